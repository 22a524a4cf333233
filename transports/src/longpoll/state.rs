//! What a client hands from poll to poll: `<poll id>.<answer's number>.<checkpoint>`.

use std::fmt;

use xpush_protocol::ErrorCode;

use crate::refusal::Refusal;

/// Names a connection on its node. Random, since who knows it may poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PollId(u128);

/// The parts of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) id: PollId,
    /// 0: before the first answer.
    pub(super) number: u64,
    /// Empty until the session gave one.
    pub(super) checkpoint: String,
}

impl PollId {
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u128::from_ne_bytes(bytes)))
    }
}

impl State {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let parse = || {
            let mut parts = text.splitn(3, '.');
            let (id, number, checkpoint) = (parts.next()?, parts.next()?, parts.next()?);
            // Exactly what `fmt` writes: no sign, no other length.
            let id = u128::from_str_radix(id, 16).ok().filter(|parsed| format!("{parsed:032x}") == id)?;
            let number = number.parse().ok().filter(|parsed: &u64| parsed.to_string() == number)?;
            Some(Self { id: PollId(id), number, checkpoint: checkpoint.to_owned() })
        };
        parse().ok_or_else(Self::refusal)
    }

    /// The checkpoint to begin anew with.
    pub(super) fn into_checkpoint(self) -> Result<String, Refusal> {
        if self.checkpoint.is_empty() { Err(Self::refusal()) } else { Ok(self.checkpoint) }
    }

    fn refusal() -> Refusal {
        let message = "the state is not one that a poll was answered with; begin again without a state";
        Refusal::bad_request(ErrorCode::InvalidState, message)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{}.{}", self.id.0, self.number, self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back() {
        for (number, checkpoint) in [(0, ""), (7, "abc_-"), (u64::MAX, "a.b.c")] {
            let state = State { id: PollId::random().unwrap(), number, checkpoint: checkpoint.into() };
            assert_eq!(State::parse(&state.to_string()).unwrap(), state);
        }
    }

    #[test]
    fn what_was_never_given_out_is_no_state() {
        let id = "0123456789abcdef0123456789abcdef";
        for text in [
            String::new(),
            "..".into(),
            id.into(),
            format!("{id}.1"),
            format!("{id}.01.x"),
            format!("{id}.+1.x"),
            format!("{id}.-1.x"),
            format!("{id}0.1.x"),
            format!("{}.1.x", &id[1..]),
            format!("{}.1.x", id.to_uppercase()),
            format!("+{}.1.x", &id[1..]),
            format!("{id}.99999999999999999999.x"),
        ] {
            assert!(State::parse(&text).is_err(), "{text}");
        }
    }
}
