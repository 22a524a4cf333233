//! A token (JWT, RFC 7519) is how the application tells the server who a client is and what it may do. It comes
//! from the client, so nothing in it is believed, the algorithm least of all, before a configured key has
//! verified it.
//!
//! `jsonwebtoken` checks the signature. The claims are checked here: by a clock that is given (tests need not
//! wait), strictly (an `exp` of `null` is no eternal life), and with errors that say what to do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned},
};
use thiserror::Error;
use xpush_protocol::{AppId, ErrorCode, UserId};

use super::{
    key::Key,
    rights::{Account, GrantError, GrantsByPattern, Rights},
};

/// A token with `MAX_GRANTS` of usual length fits; more is not read at all.
pub const MAX_TOKEN: usize = 8 * 1024;

/// By how much the clocks of the application and of this server may differ.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// Verifies tokens with the keys that are configured.
#[derive(Debug, Default)]
pub struct Verifier {
    keys: Vec<Key>,
}

/// What a token says. Claims that are not here are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user. Absent: a client without a name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sub: Option<UserId>,
    /// When it ends, in seconds since 1970. Absent: it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub exp: Option<u64>,
    /// Before this it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub nbf: Option<u64>,
    /// When it was made: one that is older than the wish to take all of a user's tokens back is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub iat: Option<u64>,
    /// Whom it is for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub aud: Option<Audience>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iss: Option<String>,
    /// In which app it holds. Absent: in that of the key.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub app: Option<AppId>,
    /// What it grants. Absent: nothing.
    #[serde(default, skip_serializing_if = "GrantsByPattern::is_empty")]
    pub channels: GrantsByPattern,
}

/// `aud` is a text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Why a token is not taken. No message has a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("there is no token, and anonymous access is not allowed here")]
    Missing,
    #[error("the token has {0} bytes, {MAX_TOKEN} at most are allowed")]
    TooLarge(usize),
    #[error("the token is no JWT: {0}")]
    Malformed(&'static str),
    #[error("the token is signed with an algorithm that no key here has; accepted: {0}")]
    Algorithm(String),
    #[error("the token names a key (`kid`) that is not known here")]
    UnknownKey,
    #[error("the token's header has `crit`, and none of its extensions is known here")]
    Critical,
    #[error("the token's signature is of no key that is known here")]
    Signature,
    #[error("the token's claims can't be read: {0}")]
    Claims(String),
    #[error("the token expired {0} s ago")]
    Expired(u64),
    #[error("the token becomes valid (`nbf`) in {0} s only; are both clocks right?")]
    NotYetValid(u64),
    #[error("the token is for another audience (`aud`)")]
    Audience,
    #[error("the token is of another issuer (`iss`)")]
    Issuer,
    #[error("the token is for another app (`app`) than the key that signed it may speak for")]
    App,
    #[error("the token's `channels` can't be used: {0}")]
    Grants(#[from] GrantError),
}

impl TokenError {
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::Unauthenticated,
            Self::Expired(_) => ErrorCode::TokenExpired,
            _ => ErrorCode::InvalidToken,
        }
    }
}

impl Verifier {
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self { keys }
    }

    /// The rights that a token gives at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Rights, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge(token.len()));
        }
        let header = Header::of(token)?;
        let mut failure = self.no_key_for(&header);
        for key in self.keys.iter().filter(|key| header.may_be_of(key)) {
            match claims(token, key) {
                Ok(claims) => return rights(claims, key, now),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The rights that a token of an issuer gives who knows users and no channels: to be the user that a claim names.
    /// Who made it has been found by its `iss`, which is signed like the rest.
    pub fn verify_issued(
        &self,
        token: &str,
        audience: Option<&str>,
        user_claim: Option<&str>,
        now: SystemTime,
    ) -> Result<Rights, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge(token.len()));
        }
        let header = Header::of(token)?;
        let mut failure = self.no_key_for(&header);
        for key in self.keys.iter().filter(|key| header.may_be_of(key)) {
            match claims::<Issued>(token, key) {
                Ok(issued) => return issued.rights(audience, user_claim, now),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn no_key_for(&self, header: &Header) -> TokenError {
        if self.keys.iter().any(|key| key.algorithm.as_str() == header.alg) {
            return TokenError::UnknownKey;
        }
        let mut accepted: Vec<_> = self.keys.iter().map(|key| key.algorithm.as_str()).collect();
        accepted.sort_unstable();
        accepted.dedup();
        TokenError::Algorithm(accepted.join(", "))
    }
}

/// What the token of another issuer says.
#[derive(Clone, Deserialize)]
struct Issued {
    #[serde(default, deserialize_with = "numeric_date")]
    exp: Option<u64>,
    #[serde(default, deserialize_with = "numeric_date")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "numeric_date")]
    iat: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

impl Issued {
    fn rights(
        self,
        audience: Option<&str>,
        user_claim: Option<&str>,
        now: SystemTime,
    ) -> Result<Rights, TokenError> {
        if audience.is_some_and(|wanted| !self.aud.as_ref().is_some_and(|said| said.contains(wanted))) {
            return Err(TokenError::Audience);
        }
        // Unlike the application, an issuer has no reason to make tokens without an end.
        let exp = self.exp.ok_or_else(|| TokenError::Claims("missing field `exp`".into()))?;
        let end = check_times(self.nbf, Some(exp), now)?;
        let name = user_claim.unwrap_or("sub");
        let user = self.others.get(name).and_then(serde_json::Value::as_str);
        let user = user.ok_or_else(|| TokenError::Claims(format!("`{name}` is no text")))?;
        let user: UserId = user.parse().map_err(|error| TokenError::Claims(format!("`{name}`: {error}")))?;
        let account = Account { login: None, device: None, issued: self.iat };
        Ok(Rights::new(Some(user), end, &GrantsByPattern::new())?.of_account(account))
    }
}

/// What a token says of who may verify it. Nothing of it is believed: it only says where to look for a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    pub kid: Option<String>,
    pub iss: Option<String>,
}

impl Hints {
    pub fn of(token: &str) -> Result<Self, TokenError> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: Option<serde_json::Value>,
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge(token.len()));
        }
        let kid = Header::of(token)?.kid;
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let said = payload.and_then(|payload| serde_json::from_slice::<Issuer>(&payload).ok());
        let iss = said.and_then(|said| said.iss?.as_str().map(str::to_owned));
        Ok(Self { kid, iss })
    }
}

/// The part of a token's header that chooses a key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<de::IgnoredAny>,
}

impl Header {
    fn of(token: &str) -> Result<Self, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed("it has not three parts with dots between them"));
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| TokenError::Malformed("its header is not base64url"))?;
        let header: Self = serde_json::from_slice(&bytes)
            .map_err(|_| TokenError::Malformed("its header is no JSON object with `alg`"))?;
        // RFC 7515, section 4.1.11: what is critical and not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        Ok(header)
    }

    /// The algorithm is the key's, whatever the token says; the token's must only be the same.
    fn may_be_of(&self, key: &Key) -> bool {
        let same_id = match (&self.kid, &key.id) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        same_id && key.algorithm.as_str() == self.alg
    }
}

pub(super) fn claims<T: DeserializeOwned + Clone>(token: &str, key: &Key) -> Result<T, TokenError> {
    jsonwebtoken::decode_header(token)
        .map_err(|_| TokenError::Malformed("its header has a parameter of the wrong type"))?;
    let mut signature_only = Validation::new(key.algorithm.of_jwt());
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_nbf = false;
    signature_only.validate_aud = false;
    match jsonwebtoken::decode::<T>(token, &key.material, &signature_only) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.into_kind() {
            // The signature was good: the text of the error is about claims that one of our keys has signed.
            ErrorKind::Json(error) => TokenError::Claims(error.to_string()),
            ErrorKind::Base64(_) => TokenError::Malformed("a part of it is not base64url"),
            _ => TokenError::Signature,
        }),
    }
}

fn rights(claims: Claims, key: &Key, now: SystemTime) -> Result<Rights, TokenError> {
    if key.issuer.is_some() && key.issuer != claims.iss {
        return Err(TokenError::Issuer);
    }
    if let Some(wanted) = &key.audience
        && !claims.aud.as_ref().is_some_and(|audience| audience.contains(wanted))
    {
        return Err(TokenError::Audience);
    }
    // A key that could name any app would be a key to all of them.
    if claims.app.as_ref().is_some_and(|app| *app != key.app) {
        return Err(TokenError::App);
    }
    let end = check_times(claims.nbf, claims.exp, now)?;
    let account = Account { login: None, device: None, issued: claims.iat };
    Ok(Rights::new(claims.sub, end, &claims.channels)?.within(key.app.clone()).of_account(account))
}

/// When the rights end.
pub(super) fn check_times(
    nbf: Option<u64>,
    exp: Option<u64>,
    now: SystemTime,
) -> Result<Option<u64>, TokenError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some(begin) = nbf
        && begin > now.saturating_add(LEEWAY.as_secs())
    {
        return Err(TokenError::NotYetValid(begin - now));
    }
    // The rights end where the token would no longer be taken: with the leeway, like everything about its time.
    let end = exp.map(|end| end.saturating_add(LEEWAY.as_secs()));
    if let (Some(exp), Some(end)) = (exp, end)
        && end <= now
    {
        return Err(TokenError::Expired(now - exp));
    }
    Ok(end)
}

impl Audience {
    fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Several(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// A claim that is there must be of its type: `null` is not "absent".
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// RFC 7519, section 2: seconds since 1970, maybe with a fraction.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if seconds.is_finite() && seconds >= 0.0 {
        // Beyond u64 the cast stops at its end, which is late enough.
        Ok(Some(seconds as u64))
    } else {
        Err(de::Error::custom("a time is seconds since 1970"))
    }
}

#[cfg(test)]
mod tests;
