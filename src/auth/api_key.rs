//! API keys let backends in. The key is a random secret that the backend alone has; the server keeps its hash, so
//! a configuration that leaks opens nothing.
//!
//! A key is `xpk_<id>_<secret>`, and its hash is SHA-256 over all of that. A plain hash will do, since the secret
//! has 256 random bits: there is nothing to guess.

use std::{collections::HashMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use xpush_protocol::{AppId, ErrorCode};

use super::rights::{GrantError, GrantsByPattern, Rights};

const PREFIX: &str = "xpk_";

const MAX_ID: usize = 32;

/// What the server knows of a key.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    hash: [u8; SHA256_OUTPUT_LEN],
    rights: Rights,
}

/// The keys of the configuration.
#[derive(Debug, Clone, Default)]
pub struct ApiKeys(HashMap<String, ApiKey>);

/// Who has shown a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The key's: the backend's name as a publisher.
    pub id: String,
    pub rights: Rights,
}

/// Why a key is none, or is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    #[error("the API key is not one that is known here")]
    Unknown,
    #[error("an API key's id is 1 to {MAX_ID} of a-z, A-Z, 0-9, '-'")]
    Id,
    #[error("two API keys have the id {0}")]
    SameId(String),
    #[error("an API key's hash is 64 hexadecimal digits, as `printf %s \"$KEY\" | sha256sum` prints them")]
    Hash,
    #[error("no random numbers can be had: {0}")]
    Random(String),
    #[error(transparent)]
    Grants(#[from] GrantError),
}

impl ApiKeyError {
    /// For the client that has shown the key.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidToken
    }
}

impl ApiKey {
    /// `sha256` is in hexadecimal. Without grants the key may do everything.
    pub fn new(id: &str, sha256: &str, grants: Option<&GrantsByPattern>) -> Result<Self, ApiKeyError> {
        let rights = match grants {
            Some(grants) => Rights::new(None, None, grants)?,
            None => Rights::everything(),
        };
        Ok(Self { id: checked_id(id)?.to_owned(), hash: from_hex(sha256).ok_or(ApiKeyError::Hash)?, rights })
    }

    /// The same for another app than the default one.
    #[must_use]
    pub fn of_app(self, app: AppId) -> Self {
        Self { rights: self.rights.within(app), ..self }
    }

    /// A new key: its text, which is shown once and kept nowhere.
    pub fn generate(id: &str) -> Result<String, ApiKeyError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| ApiKeyError::Random(error.to_string()))?;
        Ok(format!("{PREFIX}{}_{}", checked_id(id)?, URL_SAFE_NO_PAD.encode(secret)))
    }

    /// What the server keeps of a key's text, in hexadecimal.
    #[must_use]
    pub fn hash(text: &str) -> String {
        sha256(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a text is meant as an API key; a token never begins like one.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id that a key's text names, if it is one.
    pub(crate) fn id_of(text: &str) -> Option<&str> {
        let id = text.strip_prefix(PREFIX)?.split_once('_')?.0;
        checked_id(id).ok()
    }

    /// Whose key it is, if it is this one. The time that it takes says nothing about how much of the secret was right.
    pub(crate) fn check(&self, text: &str) -> Result<Backend, ApiKeyError> {
        if sha256(text).ct_eq(&self.hash).into() {
            Ok(Backend { id: self.id.clone(), rights: self.rights.clone() })
        } else {
            Err(ApiKeyError::Unknown)
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

impl ApiKeys {
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Result<Self, ApiKeyError> {
        let mut by_id = HashMap::new();
        for key in keys {
            if let Some(key) = by_id.insert(key.id.clone(), key) {
                return Err(ApiKeyError::SameId(key.id));
            }
        }
        Ok(Self(by_id))
    }

    /// Whose key it is.
    pub fn check(&self, text: &str) -> Result<Backend, ApiKeyError> {
        let key = ApiKey::id_of(text).and_then(|id| self.0.get(id));
        key.ok_or(ApiKeyError::Unknown)?.check(text)
    }

    /// Whether there is one with the id that the text names.
    #[must_use]
    pub fn know(&self, text: &str) -> bool {
        ApiKey::id_of(text).is_some_and(|id| self.0.contains_key(id))
    }
}

/// An underscore would leave open where the secret begins.
fn checked_id(id: &str) -> Result<&str, ApiKeyError> {
    let is_good =
        (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_good.then_some(id).ok_or(ApiKeyError::Id)
}

fn sha256(text: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn from_hex(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == SHA256_OUTPUT_LEN * 2 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Permission;

    fn known(text: &str, id: &str, grants: Option<&GrantsByPattern>) -> ApiKeys {
        ApiKeys::new([ApiKey::new(id, &ApiKey::hash(text), grants).unwrap()]).unwrap()
    }

    #[test]
    fn a_backend_is_let_in_by_its_key_alone() {
        let text = ApiKey::generate("shop-1").unwrap();
        let keys = known(&text, "shop-1", None);
        let backend = keys.check(&text).unwrap();
        assert_eq!(backend.id, "shop-1");
        assert!(backend.rights.allows(Permission::Publish, &"room:a".parse().unwrap()));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'x' { b'y' } else { b'x' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(keys.check(&forged), Err(ApiKeyError::Unknown), "{forged}");
        }
        for other in ["", "xpk_", "xpk_shop-1", "xpk_shop-1_", &ApiKey::generate("shop-1").unwrap()] {
            assert_eq!(keys.check(other), Err(ApiKeyError::Unknown), "{other}");
        }
    }

    #[test]
    fn a_key_may_be_for_some_channels_only() {
        let text = ApiKey::generate("a").unwrap();
        let grants = [("room:*".to_owned(), [Permission::Publish].into_iter().collect())].into();
        let rights = known(&text, "a", Some(&grants)).check(&text).unwrap().rights;
        assert!(rights.allows(Permission::Publish, &"room:a".parse().unwrap()));
        assert!(!rights.allows(Permission::History, &"room:a".parse().unwrap()));
        assert!(!rights.allows(Permission::Publish, &"live:a".parse().unwrap()));
    }

    #[test]
    fn a_key_of_another_app_may_nothing_in_the_default_one() {
        let text = ApiKey::generate("a").unwrap();
        let shop: AppId = "shop".parse().unwrap();
        let key = ApiKey::new("a", &ApiKey::hash(&text), None).unwrap().of_app(shop.clone());
        let rights = ApiKeys::new([key]).unwrap().check(&text).unwrap().rights;
        let room: xpush_protocol::ChannelName = "room:a".parse().unwrap();
        assert!(rights.is_everything() && *rights.app() == shop);
        assert!(rights.allows(Permission::Publish, &room.within(&shop)));
        assert!(!rights.allows(Permission::Publish, &room));
    }

    #[test]
    fn what_can_be_no_key_is_refused_at_the_configuration() {
        let hash = ApiKey::hash("xpk_a_b");
        assert_eq!(hash.len(), 64);
        let of = |id: &str, hash: &str| ApiKey::new(id, hash, None).map(|_| ());
        assert_eq!(of("a", &hash), Ok(()));
        for id in ["", "a_b", "ä", &"a".repeat(33)] {
            assert_eq!(of(id, &hash), Err(ApiKeyError::Id), "{id}");
        }
        for bad in ["", &hash[1..], &hash.replace(|c: char| c.is_ascii_digit(), "g"), &format!("{hash}00")] {
            assert_eq!(of("a", bad), Err(ApiKeyError::Hash), "{bad}");
        }
        let key = || ApiKey::new("a", &hash, None).unwrap();
        assert_eq!(ApiKeys::new([key(), key()]).unwrap_err(), ApiKeyError::SameId("a".into()));
    }
}
