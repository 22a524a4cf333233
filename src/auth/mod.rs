//! Who is it, and what may it do? Tokens of clients, API keys of backends and the state that a client brings back
//! become `Rights`, an identity or a session here, once, at the door.
//!
//! Invariant: nothing in here does network I/O, reads the clock or knows the configuration; what is needed is
//! handed in.

mod access_token;
mod api_key;
mod crypto;
mod dev_keys;
mod jwk;
mod key;
mod pattern;
mod rights;
mod state;
mod ticket;
mod token;

use std::{net::IpAddr, time::SystemTime};

pub use access_token::AccessToken;
pub use api_key::{ApiKey, ApiKeyError, ApiKeys, Backend};
pub use dev_keys::{DevKeys, DevKeysError};
pub use jwk::{Jwk, JwkSet};
pub use key::{Algorithm, Key, KeyError, MIN_SECRET, Signer};
pub use pattern::{Pattern, PatternError};
pub use rights::{Account, Grant, GrantError, GrantsByPattern, MAX_GRANTS, Permission, Permissions, Rights};
pub use state::{MAX_STATE, SessionState, StateError, StateSealer};
pub use ticket::{TICKET_LIFETIME, Ticket, TicketError};
pub use token::{Audience, Claims, Hints, LEEWAY, MAX_TOKEN, TokenError, Verifier};

/// All that decides who is let in.
#[derive(Debug)]
pub struct Auth {
    pub verifier: Verifier,
    pub api_keys: ApiKeys,
    pub sealer: StateSealer,
    /// Clients of this machine need no token.
    pub loopback_anonymous: bool,
}

impl Auth {
    /// A client's rights: by its token, or without one where that is allowed.
    pub fn rights(&self, token: Option<&str>, peer: IpAddr, now: SystemTime) -> Result<Rights, TokenError> {
        match token {
            Some(token) => self.verifier.verify(token, now),
            None => self.anonymous(peer).ok_or(TokenError::Missing),
        }
    }

    /// What a client without a token may do: everything, if it is on this machine and that is allowed at all.
    #[must_use]
    pub fn anonymous(&self, peer: IpAddr) -> Option<Rights> {
        // ::ffff:127.0.0.1 is how a socket for both families sees 127.0.0.1.
        (self.loopback_anonymous && peer.to_canonical().is_loopback()).then(Rights::everything)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn auth(loopback_anonymous: bool) -> Auth {
        Auth {
            verifier: Verifier::default(),
            api_keys: ApiKeys::default(),
            sealer: StateSealer::new(&[7; 32]),
            loopback_anonymous,
        }
    }

    #[test]
    fn only_loopback_is_anonymous_and_only_where_it_may_be() {
        for (address, is_let_in) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("192.168.1.2", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
        ] {
            let peer = address.parse().unwrap();
            assert_eq!(auth(true).anonymous(peer).is_some(), is_let_in, "{address}");
            assert_eq!(auth(false).anonymous(peer), None, "{address}");
        }
    }

    #[test]
    fn a_bad_token_is_refused_where_none_would_be_taken() {
        let peer = "127.0.0.1".parse().unwrap();
        assert!(auth(true).rights(None, peer, UNIX_EPOCH).is_ok());
        assert!(auth(true).rights(Some("a.b.c"), peer, UNIX_EPOCH).is_err());
        assert_eq!(auth(false).rights(None, peer, UNIX_EPOCH), Err(TokenError::Missing));
    }
}
