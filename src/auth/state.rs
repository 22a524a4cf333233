//! The state that a client brings back, so that any node can go on with its session: nothing about a client has to
//! survive in a node's memory. A client can read it (it is its own) but can't make or change one.
//!
//! A state is base64url of: a version byte, HMAC-SHA256 over version and body, and the body, which is
//! MessagePack with its structs as arrays. The key is the same on all nodes.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest::SHA256_OUTPUT_LEN, hmac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use xpush_protocol::{AppId, ChannelName, Cursor, ErrorCode, SessionId, UserId};

/// Text of a state at most: 10,000 subscriptions with names as long as they may be. More is not read at all.
pub const MAX_STATE: usize = 4 * 1024 * 1024;

const VERSION: u8 = 1;

/// In front of what is signed, so that nothing else that this key ever signs can pass for a state.
const PURPOSE: &[u8] = b"xpush session state\0";

/// All that a node needs to go on with a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    pub session: SessionId,
    pub user: Option<UserId>,
    /// It is verified again when the state comes back: a right that ended meanwhile has ended.
    pub token: Option<String>,
    /// What the client has taken of each channel; `None`: it asked for the channel, and has no answer yet.
    pub vector: Vec<(ChannelName, Option<Cursor>)>,
    /// Seconds since 1970.
    pub issued: u64,
    /// Of the connection that it was given to: the session's next one has a higher one, at whichever node.
    #[serde(default)]
    pub generation: u64,
    /// Whose user and channels these are. It is said once, so they are sealed without it.
    #[serde(default)]
    pub app: AppId,
}

/// Seals states (and tickets), and opens them.
pub struct StateSealer(hmac::Key);

/// Why a text is no state of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StateError {
    #[error("the state has {0} bytes, {MAX_STATE} at most are allowed")]
    TooLarge(usize),
    #[error("the state is not what a server gave out: connect without one")]
    Malformed,
    #[error("the state is of another version of the server: connect without one")]
    Version,
    #[error("the state is of another installation, or its secret has changed: connect without one")]
    Seal,
}

impl StateError {
    #[must_use]
    pub fn code(self) -> ErrorCode {
        ErrorCode::InvalidState
    }
}

impl StateSealer {
    /// `secret`: at least 32 random bytes, the same on all nodes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    #[must_use]
    pub fn seal(&self, state: &SessionState) -> String {
        self.seal_as(PURPOSE, state)
    }

    pub fn open(&self, text: &str) -> Result<SessionState, StateError> {
        let state: SessionState = self.open_as(PURPOSE, text)?;
        let app = &state.app;
        let user = state.user.map(|user| user.within(app));
        let vector = state.vector.into_iter().map(|(name, cursor)| (name.within(app), cursor)).collect();
        Ok(SessionState { user, vector, ..state })
    }

    /// A key that every node of the installation can make again, and nobody else. `purpose` is one that nothing is
    /// sealed as: the tags of those are no secret.
    #[cfg(feature = "server")]
    pub(crate) fn key_of(&self, purpose: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
        let mut key = [0; SHA256_OUTPUT_LEN];
        key.copy_from_slice(hmac::sign(&self.0, purpose).as_ref());
        key
    }

    pub(super) fn seal_as(&self, purpose: &[u8], sealed: &impl Serialize) -> String {
        // Neither a state nor a ticket has anything that MessagePack could not hold.
        #[allow(clippy::expect_used)]
        let body = rmp_serde::to_vec(sealed).expect("it can be written");
        let tag = hmac::sign(&self.0, &signed(purpose, VERSION, &body));
        URL_SAFE_NO_PAD.encode([&[VERSION], tag.as_ref(), &body].concat())
    }

    pub(super) fn open_as<T: DeserializeOwned>(&self, purpose: &[u8], text: &str) -> Result<T, StateError> {
        if text.len() > MAX_STATE {
            return Err(StateError::TooLarge(text.len()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StateError::Malformed)?;
        let (version, rest) = bytes.split_first().ok_or(StateError::Malformed)?;
        if *version != VERSION {
            return Err(StateError::Version);
        }
        let (tag, body) = rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or(StateError::Malformed)?;
        hmac::verify(&self.0, &signed(purpose, *version, body), tag).map_err(|_| StateError::Seal)?;
        rmp_serde::from_slice(body).map_err(|_| StateError::Malformed)
    }
}

impl fmt::Debug for StateSealer {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateSealer")
    }
}

fn signed(purpose: &[u8], version: u8, body: &[u8]) -> Vec<u8> {
    [purpose, &[version], body].concat()
}

#[cfg(test)]
mod tests {
    use xpush_protocol::Epoch;

    use super::*;

    fn state(channels: usize) -> SessionState {
        SessionState {
            session: SessionId::random(),
            user: Some("ann".parse().unwrap()),
            token: Some("a.b.c".into()),
            vector: (0..channels)
                .map(|i| {
                    let name = format!("room:{i:0>222}").parse().unwrap();
                    (name, (i % 7 > 0).then_some(Cursor { epoch: Epoch(u32::MAX), offset: u64::MAX }))
                })
                .collect(),
            issued: 1_700_000_000,
            generation: 3,
            app: AppId::default(),
        }
    }

    #[test]
    fn a_state_comes_back_on_any_node_with_the_same_secret() {
        let sealed = StateSealer::new(&[7; 32]).seal(&state(3).clone());
        assert_eq!(StateSealer::new(&[8; 32]).open(&sealed), Err(StateError::Seal));
        let (sealer, state) = (StateSealer::new(&[7; 32]), state(3));
        assert_eq!(sealer.open(&sealer.seal(&state)), Ok(state));
        let bare = SessionState {
            session: SessionId::random(),
            user: None,
            token: None,
            vector: vec![],
            issued: 0,
            generation: 0,
            app: AppId::default(),
        };
        assert_eq!(sealer.open(&sealer.seal(&bare)), Ok(bare));
    }

    #[test]
    fn the_names_of_a_state_are_of_its_app() {
        let (sealer, shop) = (StateSealer::new(&[7; 32]), "shop".parse::<AppId>().unwrap());
        let state = state(2);
        let of_shop = SessionState {
            user: state.user.as_ref().map(|user| user.within(&shop)),
            vector: state.vector.iter().map(|(name, cursor)| (name.within(&shop), *cursor)).collect(),
            app: shop,
            ..state.clone()
        };
        assert_eq!(sealer.open(&sealer.seal(&of_shop)), Ok(of_shop));
    }

    #[test]
    fn a_state_from_before_there_were_apps_is_one_of_the_default_app() {
        let (sealer, state) = (StateSealer::new(&[7; 32]), state(1));
        let SessionState { session, user, token, vector, issued, generation, app: _ } = state.clone();
        let before = (session, user, token, vector, issued, generation);
        assert_eq!(sealer.open(&sealer.seal_as(PURPOSE, &before)), Ok(state));
    }

    #[test]
    fn a_change_of_any_byte_is_found() {
        let sealer = StateSealer::new(&[7; 32]);
        let sealed = sealer.seal(&state(2));
        for at in 0..sealed.len() {
            for other in [b'A', b'z', b'_', b'=', b' '] {
                let mut changed = sealed.clone().into_bytes();
                if changed[at] == other {
                    continue;
                }
                changed[at] = other;
                assert!(sealer.open(std::str::from_utf8(&changed).unwrap()).is_err(), "byte {at}");
            }
            assert!(sealer.open(&sealed[..at]).is_err(), "cut at {at}");
        }
        assert!(sealer.open(&format!("{sealed}A")).is_err());
    }

    #[test]
    fn a_state_of_the_most_subscriptions_fits() {
        let sealer = StateSealer::new(&[7; 32]);
        let largest = sealer.seal(&state(10_000));
        assert!(largest.len() <= MAX_STATE, "{}", largest.len());
        assert!(sealer.open(&largest).is_ok());
        let beyond = "A".repeat(MAX_STATE + 1);
        assert_eq!(sealer.open(&beyond), Err(StateError::TooLarge(MAX_STATE + 1)));
    }

    #[test]
    fn every_way_to_be_no_state_says_so() {
        let sealer = StateSealer::new(&[7; 32]);
        for (text, error) in [
            ("", StateError::Malformed),
            ("not base64!", StateError::Malformed),
            ("AQ", StateError::Malformed),
            ("Ag", StateError::Version),
            (&URL_SAFE_NO_PAD.encode([1; 200]), StateError::Seal),
        ] {
            assert_eq!(sealer.open(text), Err(error), "{text:?}");
            assert_eq!(error.code(), ErrorCode::InvalidState);
        }
    }
}
