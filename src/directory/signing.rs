//! The keys that sign access tokens, shared by all nodes: who needs one first makes it, and the others read it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    digest, hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xpush_protocol::SessionId;

use super::{
    Directory, DirectoryError, Record, Result, millis,
    record::encode,
    store::{Commit, Key as At, Prefix, StoreError},
};
use crate::auth::{AccessToken, Hints, Jwk, JwkSet, Key, Rights, Signer, TokenError};

/// Before the ids of our own keys: no token that has none is ever tried with them.
const KID: &str = "xpush-";
/// A token that names a key which is not known here has them read again, at most as often.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// A key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct KeyRecord {
    kid: String,
    created: u64,
    /// Base64; whoever can read the directory can make tokens.
    pkcs8: String,
}

impl Record for KeyRecord {}

/// Which key signs.
#[derive(Clone, Serialize, Deserialize)]
struct Current {
    kid: String,
}

impl Record for Current {}

/// A key ready for use.
pub(super) struct SigningKey {
    kid: String,
    signer: Signer,
    verifier: Key,
    public: Vec<u8>,
    /// Seals refresh tokens, so that a made-up one reaches no record.
    pub(super) seal: hmac::Key,
}

/// What was read of the keys.
#[derive(Default)]
pub(super) struct SigningKeys(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// The one that signs comes first.
    keys: Vec<Arc<SigningKey>>,
    read: Option<Instant>,
}

fn current_key() -> At {
    At::new(&["signing-current"])
}

impl SigningKey {
    fn of(record: &KeyRecord) -> Result<Self> {
        let damaged = |what: &dyn std::fmt::Display| {
            DirectoryError::from(StoreError::Damaged(format!("the signing key {}: {what}", record.kid)))
        };
        let pkcs8 = STANDARD.decode(&record.pkcs8).map_err(|error| damaged(&error))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|error| damaged(&error))?;
        let public = pair.public_key().as_ref().to_vec();
        let verifier = Key::ed25519(&record.kid, &public).map_err(|error| damaged(&error))?;
        let purpose = [&b"xpush refresh token\0"[..], &pkcs8].concat();
        let seal = hmac::Key::new(hmac::HMAC_SHA256, digest::digest(&digest::SHA256, &purpose).as_ref());
        let signer = Signer::ed25519(&record.kid, &pkcs8);
        Ok(Self { kid: record.kid.clone(), signer, verifier, public, seal })
    }

    pub(super) fn sign(&self, token: &AccessToken) -> Result<String> {
        // It fails for no key of this kind.
        self.signer.sign(token).map_err(|error| DirectoryError::Busy(error.to_string()))
    }
}

impl SigningKeys {
    fn held(&self) -> Vec<Arc<SigningKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    fn put(&self, keys: Vec<Arc<SigningKey>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Held { keys, read: Some(Instant::now()) };
    }

    /// Whether it is time to read them again; the answer is yes once.
    fn may_reread(&self) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = held.read.is_none_or(|read| read.elapsed() >= REREAD_PAUSE);
        if may {
            held.read = Some(Instant::now());
        }
        may
    }
}

impl Directory {
    /// Whether a token is meant to be one of ours.
    #[must_use]
    pub fn is_own_token(hints: &Hints) -> bool {
        hints.kid.as_deref().is_some_and(|kid| kid.starts_with(KID))
    }

    /// The rights that an access token of ours gives. Whether its login still stands is for `check_account` to say.
    pub async fn verify_access_token(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<std::result::Result<Rights, TokenError>> {
        let kid = match Hints::of(token) {
            Ok(hints) => hints.kid.unwrap_or_default(),
            Err(error) => return Ok(Err(error)),
        };
        let find = |keys: Vec<Arc<SigningKey>>| keys.into_iter().find(|key| key.kid == kid);
        let mut found = find(self.signing.held());
        if found.is_none() && self.signing.may_reread() {
            found = find(self.read_signing_keys().await?);
        }
        Ok(match found {
            Some(key) => AccessToken::verify(token, &key.verifier, now),
            None => Err(TokenError::UnknownKey),
        })
    }

    /// What others verify our tokens with. A new installation has nothing to publish until it is asked.
    pub async fn jwks(&self) -> Result<JwkSet> {
        self.signing_key().await?;
        let keys = self.signing.held();
        Ok(JwkSet { keys: keys.iter().map(|key| Jwk::ed25519(&key.kid, &key.public)).collect() })
    }

    /// The key that signs; made now if nobody has.
    pub(super) async fn signing_key(&self) -> Result<Arc<SigningKey>> {
        if let Some(key) = self.signing.held().into_iter().next() {
            return Ok(key);
        }
        if let Some(key) = self.read_signing_keys().await?.into_iter().next() {
            return Ok(key);
        }
        self.change(|| async {
            if self.store.get(&current_key()).await?.is_some() {
                return Ok((Commit::new(), ()));
            }
            let random = SystemRandom::new();
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random)
                .map_err(|_| DirectoryError::Busy("no random numbers can be had".into()))?;
            let kid = format!("{KID}{}", SessionId::random());
            let created = millis(SystemTime::now());
            let record = KeyRecord { kid: kid.clone(), created, pkcs8: STANDARD.encode(pkcs8.as_ref()) };
            let at = At::new(&["signing", &kid]);
            let commit = Commit::new()
                .expect(current_key(), None)
                .put(current_key(), encode(&Current { kid }))
                .put(at, encode(&record));
            Ok((commit, ()))
        })
        .await?;
        let keys = self.read_signing_keys().await?;
        keys.into_iter().next().ok_or_else(|| StoreError::Damaged("there is no signing key".into()).into())
    }

    /// All keys whose seal a refresh token may have.
    pub(super) fn seals(&self) -> Vec<Arc<SigningKey>> {
        self.signing.held()
    }

    async fn read_signing_keys(&self) -> Result<Vec<Arc<SigningKey>>> {
        let current = self.read::<Current>(&current_key()).await?.map(|found| found.value.kid);
        let records = self.list::<KeyRecord>(Prefix::new(&["signing"]), None, usize::MAX).await?;
        let mut keys = Vec::new();
        for (_, record) in records {
            keys.push(Arc::new(SigningKey::of(&record.value)?));
        }
        keys.sort_by_key(|key| Some(&key.kid) != current.as_ref());
        self.signing.put(keys.clone());
        Ok(keys)
    }
}
