//! A ticket leads a client to a node: whoever gave it has checked the token that is sealed in it, and it holds for a
//! minute, time enough to connect. Any node takes it; it names the one that was meant.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xpush_protocol::ErrorCode;

use super::{StateError, StateSealer};

/// From the answer that brings it until the client has connected, over the slowest wire.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);

/// Clocks of two nodes differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// In front of what is signed: a state can't pass for a ticket.
const PURPOSE: &[u8] = b"xpush ticket\0";

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Verified again where the ticket is shown. `None`: anonymous.
    pub token: Option<String>,
    /// The node that was meant.
    pub node: String,
    /// Milliseconds since 1970.
    expires: u64,
}

/// Why a text is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TicketError {
    #[error("the ticket is not one that a node of this installation gave: ask for a new one")]
    Invalid,
    #[error("the ticket has expired: ask for a new one")]
    Expired,
}

impl TicketError {
    #[must_use]
    pub fn code(self) -> ErrorCode {
        ErrorCode::InvalidToken
    }
}

impl Ticket {
    #[must_use]
    pub fn new(token: Option<String>, node: &str, now: SystemTime) -> Self {
        Self { token, node: node.into(), expires: millis(now + TICKET_LIFETIME) }
    }

    #[must_use]
    pub fn seal(&self, sealer: &StateSealer) -> String {
        sealer.seal_as(PURPOSE, self)
    }

    pub fn open(text: &str, sealer: &StateSealer, now: SystemTime) -> Result<Self, TicketError> {
        let ticket: Self = sealer.open_as(PURPOSE, text).map_err(|_: StateError| TicketError::Invalid)?;
        if millis(now) > ticket.expires + millis(UNIX_EPOCH + CLOCK_SKEW) {
            return Err(TicketError::Expired);
        }
        Ok(ticket)
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use xpush_protocol::SessionId;

    use super::{super::SessionState, *};

    #[test]
    fn a_ticket_holds_for_a_minute_at_any_node_with_the_same_secret() {
        let (sealer, now) = (StateSealer::new(&[7; 32]), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let ticket = Ticket::new(Some("a.b.c".into()), "n1", now);
        let text = ticket.seal(&sealer);
        let there = StateSealer::new(&[7; 32]);
        assert_eq!(Ticket::open(&text, &there, now + TICKET_LIFETIME), Ok(ticket));
        let late = now + TICKET_LIFETIME + CLOCK_SKEW + Duration::from_secs(1);
        assert_eq!(Ticket::open(&text, &there, late), Err(TicketError::Expired));
        assert_eq!(Ticket::open(&text, &StateSealer::new(&[8; 32]), now), Err(TicketError::Invalid));
    }

    #[test]
    fn a_state_is_no_ticket_and_a_ticket_no_state() {
        let sealer = StateSealer::new(&[7; 32]);
        let ticket = Ticket::new(None, "n1", UNIX_EPOCH).seal(&sealer);
        assert_eq!(sealer.open(&ticket), Err(StateError::Seal));
        let state = SessionState {
            session: SessionId::random(),
            user: None,
            token: None,
            vector: vec![],
            issued: 0,
            generation: 1,
            app: xpush_protocol::AppId::default(),
        };
        assert_eq!(Ticket::open(&sealer.seal(&state), &sealer, UNIX_EPOCH), Err(TicketError::Invalid));
    }
}
