//! Access tokens of our own making: short, signed with a key that all nodes share, and good for nothing but to say
//! which login of which user it is. What the user may do is said by channels and members, not by the token.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xpush_protocol::{AppId, DeviceId, UserId};

use super::{
    Account, Rights,
    key::Key,
    rights::GrantsByPattern,
    token::{TokenError, check_times, claims},
};

/// `iss` and `aud` of them.
const SELF: &str = "xpush";

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    pub sub: UserId,
    pub app: AppId,
    /// In seconds since 1970, as `exp`.
    pub iat: u64,
    pub exp: u64,
    /// The device that logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did: Option<DeviceId>,
    /// The login.
    pub lid: String,
    iss: String,
    aud: String,
}

impl AccessToken {
    #[must_use]
    pub fn new(app: AppId, user: &UserId, login: &str, device: Option<DeviceId>, iat: u64, ttl: u64) -> Self {
        let (sub, exp) = (user.clone(), iat.saturating_add(ttl));
        Self { sub, app, iat, exp, did: device, lid: login.into(), iss: SELF.into(), aud: SELF.into() }
    }

    /// The rights that it gives at `now`: none but to be that user. Whether the login still stands is not known here.
    pub fn verify(token: &str, key: &Key, now: SystemTime) -> Result<Rights, TokenError> {
        let said: Self = claims(token, key)?;
        if said.iss != SELF {
            return Err(TokenError::Issuer);
        }
        if said.aud != SELF {
            return Err(TokenError::Audience);
        }
        let end = check_times(None, Some(said.exp), now)?;
        let account = Account { login: Some(said.lid), device: said.did, issued: Some(said.iat) };
        let rights = Rights::new(Some(said.sub), end, &GrantsByPattern::new())?;
        Ok(rights.within(said.app).of_account(account))
    }
}
