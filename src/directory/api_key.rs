//! An app's API keys: several, so that one can be rotated while the other works. Their ids are unique over all apps,
//! since a key's text names only the id.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xpush_protocol::{AppId, SessionId};

use super::{
    Change, Directory, DirectoryError, Record, Result,
    app::check_name,
    millis,
    page::{Page, PageQuery},
    record::encode,
    store::{Commit, Key, Prefix},
};
use crate::auth::{ApiKey, ApiKeyError, Backend, GrantsByPattern};

/// How long a key holds unread: a deleted one is gone within a second.
const KEY_HELD: Duration = Duration::from_millis(500);
/// Keys (and texts that are none) held at once.
const KEYS_LIMIT: usize = 1024;
/// Keys of one app: some backends, each with two while it rotates.
const KEYS_PER_APP: usize = 50;

/// A key as it is kept: of its secret there is the hash alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    id: String,
    app: AppId,
    name: Option<String>,
    /// SHA-256 of the whole text, in hexadecimal.
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grants: Option<GrantsByPattern>,
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl Record for KeyRecord {}

/// What is told of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    pub id: String,
    pub app: AppId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent: it may do everything in its app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsByPattern>,
    /// Milliseconds since 1970, as `expires`.
    pub created: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// What a new key is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewKey {
    pub name: Option<String>,
    pub grants: Option<GrantsByPattern>,
    /// Seconds from now on; absent: it does not end by itself.
    pub expires_in: Option<u64>,
}

/// Only that there is one of this app.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OfApp {}

impl Record for OfApp {}

/// Keys that were read lately; `None` where there was none.
#[derive(Debug, Default)]
pub(super) struct KeysHeld(Mutex<HashMap<String, (Instant, Option<KeyRecord>)>>);

impl KeysHeld {
    fn get(&self, id: &str) -> Option<Option<KeyRecord>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(id).filter(|(read, _)| read.elapsed() < KEY_HELD).map(|(_, key)| key.clone())
    }

    fn put(&self, id: &str, key: Option<&KeyRecord>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= KEYS_LIMIT {
            held.clear();
        }
        held.insert(id.to_owned(), (Instant::now(), key.cloned()));
    }

    fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn key(id: &str) -> Key {
    Key::new(&["key", id])
}

fn index(app: &AppId, id: &str) -> Key {
    Key::new(&["app-key", app.as_str(), id])
}

fn of_app(app: &AppId) -> Prefix {
    Prefix::new(&["app-key", app.as_str()])
}

impl KeyRecord {
    fn info(self) -> KeyInfo {
        let Self { id, app, name, hash: _, grants, created, expires } = self;
        KeyInfo { id, app, name, grants, created, expires }
    }
}

impl Directory {
    /// Makes a key and gives its text, which is told this once.
    pub async fn create_api_key(&self, app: &AppId, new: NewKey) -> Result<(KeyInfo, String)> {
        new.name.as_deref().map_or(Ok(()), check_name)?;
        let now = SystemTime::now();
        let invalid = |error: &dyn std::fmt::Display| DirectoryError::Invalid(format!("the key: {error}"));
        let expires = match new.expires_in {
            Some(0) => return Err(DirectoryError::Invalid("`expires_in` is 0 seconds".into())),
            Some(seconds) => {
                let end = now.checked_add(Duration::from_secs(seconds));
                Some(end.ok_or_else(|| DirectoryError::Invalid("`expires_in` is beyond all time".into()))?)
            }
            None => None,
        };
        self.change(|| async {
            self.app(app).await?;
            let scan = super::store::Scan::of(of_app(app));
            if self.store.scan(scan).await?.len() >= KEYS_PER_APP {
                return Err(DirectoryError::LimitReached(format!("an app has {KEYS_PER_APP} keys at most")));
            }
            // An underscore is no part of an id.
            let id = SessionId::random().as_str().replace(['_', '-'], "0");
            let text = ApiKey::generate(&id).map_err(|error| invalid(&error))?;
            let hash = ApiKey::hash(&text);
            ApiKey::new(&id, &hash, new.grants.as_ref()).map_err(|error| invalid(&error))?;
            let record = KeyRecord {
                id: id.clone(),
                app: app.clone(),
                name: new.name.clone(),
                hash,
                grants: new.grants.clone(),
                created: millis(now),
                expires: expires.map(millis),
            };
            let commit = Commit::new().expect(key(&id), None);
            let (bytes, of_app) = (encode(&record), encode(&OfApp {}));
            let commit = match expires {
                Some(at) => commit.put_until(key(&id), bytes, at).put_until(index(app, &id), of_app, at),
                None => commit.put(key(&id), bytes).put(index(app, &id), of_app),
            };
            Ok((commit, (record.info(), text)))
        })
        .await
    }

    pub async fn api_keys(&self, app: &AppId, query: PageQuery) -> Result<Page<KeyInfo>> {
        self.app(app).await?;
        let page = self.page::<OfApp>(of_app(app), query).await?;
        let keys: Vec<Key> = page.keys().map(|at| key(at.component(2))).collect();
        let found = self.read_many::<KeyRecord>(&keys).await?;
        let items = found.into_iter().flatten().map(|found| found.value.info()).collect();
        Ok(Page { items, next: page.next() })
    }

    /// The key is let in no more: here at once, elsewhere within a second.
    pub async fn delete_api_key(&self, app: &AppId, id: &str) -> Result<()> {
        self.change(|| async {
            let found = self.read::<KeyRecord>(&key(id)).await?;
            let found = found.filter(|found| found.value.app == *app);
            let version = found.ok_or(DirectoryError::NotFound("key"))?.version;
            let commit = Commit::new()
                .expect(key(id), Some(version))
                .delete(key(id))
                .delete(index(app, id))
                .tell(&Change::App { app: app.clone() });
            Ok((commit, ()))
        })
        .await?;
        self.keys_held.forget(id);
        Ok(())
    }

    /// Whose key a text is.
    pub async fn backend(&self, text: &str) -> Result<Option<Backend>> {
        let Some(id) = ApiKey::id_of(text) else { return Ok(None) };
        let record = match self.keys_held.get(id) {
            Some(held) => held,
            None => {
                let read = self.read::<KeyRecord>(&key(id)).await?.map(|found| found.value);
                self.keys_held.put(id, read.as_ref());
                read
            }
        };
        let now = millis(SystemTime::now());
        let Some(record) = record.filter(|record| record.expires.is_none_or(|at| at > now)) else {
            return Ok(None);
        };
        let known = match ApiKey::new(&record.id, &record.hash, record.grants.as_ref()) {
            Ok(known) => known,
            Err(error) => {
                let what = format!("the API key {}: {error}", record.id);
                return Err(super::store::StoreError::Damaged(what).into());
            }
        };
        match known.check(text) {
            Ok(backend) => {
                // One of an app that is being deleted is over already.
                self.policy(&record.app).await.map_err(|error| match error {
                    DirectoryError::NotFound(_) => {
                        DirectoryError::InvalidToken(ApiKeyError::Unknown.to_string())
                    }
                    other => other,
                })?;
                Ok(Some(Backend { rights: backend.rights.within(record.app), ..backend }))
            }
            Err(_) => Ok(None),
        }
    }

    pub(super) async fn delete_api_keys(&self, app: &AppId) -> Result<()> {
        let keys = self.store.scan(super::store::Scan::of(of_app(app))).await?;
        let commit = keys.iter().fold(Commit::new(), |commit, (at, _)| commit.delete(key(at.component(2))));
        if !commit.writes.is_empty() {
            self.commit(commit).await?;
        }
        Ok(())
    }
}
