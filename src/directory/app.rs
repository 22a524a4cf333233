//! Apps: what one installation keeps apart, and the policy of each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xpush_protocol::AppId;

use super::{
    AppPolicy, Change, Directory, DirectoryError, Record, Result, Tagged, millis,
    page::{Page, PageQuery},
    policy::Registration,
    record::encode,
    store::{COMMIT_KEYS, Commit, Key, Prefix},
};

/// How long a policy holds unread: what it takes away is gone within a second.
const POLICY_HELD: Duration = Duration::from_millis(500);
/// Policies that are held at once; an installation has few apps.
const POLICIES_LIMIT: usize = 1024;
/// Bytes of a name that people read.
pub(super) const MAX_NAME: usize = 128;

/// Tables in which an app's entries are, under its id.
const TABLES: [&str; 17] = [
    "app-key",
    "user",
    "name",
    "seen",
    "device",
    "login",
    "friend",
    "group",
    "channel",
    "member",
    "mine",
    "answer",
    "hook",
    "hook-line",
    "hook-mark",
    "hook-since",
    "dead",
];

/// One app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub app: AppId,
    pub name: String,
    /// Milliseconds since 1970; 0 for the default app, which was always there.
    pub created: u64,
    pub policy: AppPolicy,
    /// It is being deleted, or is: nothing of it can be used any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leaving: bool,
    /// Nothing is left of it but its id, which is not given again: logs may still have what was said under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gone: bool,
}

impl Record for App {}

impl App {
    fn new(app: &AppId, name: &str, created: u64) -> Self {
        let policy = AppPolicy::default();
        Self { app: app.clone(), name: name.into(), created, policy, leaving: false, gone: false }
    }
}

/// Policies that were read lately.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<HashMap<AppId, (Instant, Arc<AppPolicy>)>>);

impl Policies {
    fn get(&self, app: &AppId) -> Option<Arc<AppPolicy>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(app).filter(|(read, _)| read.elapsed() < POLICY_HELD).map(|(_, policy)| Arc::clone(policy))
    }

    fn put(&self, app: &AppId, policy: &Arc<AppPolicy>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= POLICIES_LIMIT {
            held.clear();
        }
        held.insert(app.clone(), (Instant::now(), Arc::clone(policy)));
    }

    fn forget(&self, app: &AppId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(app);
    }
}

pub(super) fn key(app: &AppId) -> Key {
    Key::new(&["app", app.as_str()])
}

/// Finds the apps that take an issuer's tokens.
pub(super) fn issuer_prefix(issuer: &str) -> Prefix {
    Prefix::new(&["issuer", issuer])
}

fn issuer_key(issuer: &str, app: &AppId) -> Key {
    Key::new(&["issuer", issuer, app.as_str()])
}

impl Directory {
    /// One app. The default one is there without a record.
    pub async fn app(&self, app: &AppId) -> Result<Tagged<App>> {
        match self.read::<App>(&key(app)).await? {
            Some(found) if !found.value.leaving => Ok(found),
            None if app.is_default() => Ok(Tagged { value: self.default_app(), version: 0 }),
            _ => Err(DirectoryError::NotFound("app")),
        }
    }

    /// What holds in an app, as it was at most half a second ago.
    pub async fn policy(&self, app: &AppId) -> Result<Arc<AppPolicy>> {
        if let Some(policy) = self.policies.get(app) {
            return Ok(policy);
        }
        let policy = Arc::new(self.app(app).await?.value.policy);
        self.policies.put(app, &policy);
        Ok(policy)
    }

    /// The policy, if it was read lately.
    #[must_use]
    pub fn known_policy(&self, app: &AppId) -> Option<Arc<AppPolicy>> {
        self.policies.get(app)
    }

    /// In the order of their ids. The default app is among them once something was said of it.
    pub async fn apps(&self, query: PageQuery) -> Result<Page<App>> {
        let page = self.page::<App>(Prefix::new(&["app"]), query).await?;
        Ok(page.filter_map(|_, app| (!app.leaving).then_some(app)))
    }

    pub async fn create_app(&self, app: &AppId, name: &str, policy: AppPolicy) -> Result<Tagged<App>> {
        check_name(name)?;
        let created = App { policy, ..App::new(app, name, millis(SystemTime::now())) };
        self.change(|| async {
            let key = key(app);
            if self.store.get(&key).await?.is_some() {
                return Err(DirectoryError::AlreadyExists("app"));
            }
            let commit = Commit::new()
                .expect(key.clone(), None)
                .put(key, encode(&created))
                .tell(&Change::App { app: app.clone() });
            Ok((with_issuers(commit, app, &AppPolicy::default(), &created.policy), ()))
        })
        .await?;
        self.policies.forget(app);
        self.app(app).await
    }

    /// Changes what is said; `expected` is the version that the caller has seen.
    pub async fn update_app(
        &self,
        app: &AppId,
        expected: Option<u64>,
        name: Option<&str>,
        policy: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<Tagged<App>> {
        name.map_or(Ok(()), check_name)?;
        self.change(|| async {
            let present = self.app(app).await?;
            check_version(expected, present.version)?;
            let mut changed = present.value.clone();
            if let Some(name) = name {
                changed.name = name.into();
            }
            if let Some(policy) = &policy {
                changed.policy = changed.policy.changed(policy.clone())?;
            }
            let version = (present.version > 0).then_some(present.version);
            let commit = Commit::new()
                .expect(key(app), version)
                .put(key(app), encode(&changed))
                .tell(&Change::App { app: app.clone() });
            Ok((with_issuers(commit, app, &present.value.policy, &changed.policy), ()))
        })
        .await?;
        self.policies.forget(app);
        self.app(app).await
    }

    /// Deletes an app with everything that is kept of it here. What its channels' logs hold goes by their own rules.
    pub async fn delete_app(&self, app: &AppId, expected: Option<u64>) -> Result<()> {
        if app.is_default() {
            return Err(DirectoryError::Forbidden("the default app can't be deleted".into()));
        }
        self.change(|| async {
            // One that is leaving already is one whose deletion broke off.
            let found = self.read::<App>(&key(app)).await?.filter(|found| !found.value.gone);
            let Tagged { value, version } = found.ok_or(DirectoryError::NotFound("app"))?;
            check_version(expected, version)?;
            let leaving = App { leaving: true, ..value.clone() };
            let commit = Commit::new()
                .expect(key(app), Some(version))
                .put(key(app), encode(&leaving))
                .tell(&Change::App { app: app.clone() });
            Ok((with_issuers(commit, app, &value.policy, &AppPolicy::default()), ()))
        })
        .await?;
        self.policies.forget(app);
        self.delete_api_keys(app).await?;
        for table in TABLES {
            self.delete_all(Prefix::new(&[table, app.as_str()])).await?;
        }
        let gone = App { leaving: true, gone: true, ..App::new(app, "", millis(SystemTime::now())) };
        self.commit(Commit::new().put(key(app), encode(&gone))).await
    }

    /// Everything that begins so, some at a time.
    pub(super) async fn delete_all(&self, prefix: Prefix) -> Result<()> {
        loop {
            let scan = super::store::Scan { limit: COMMIT_KEYS, ..super::store::Scan::of(prefix.clone()) };
            let page = self.store.scan(scan).await?;
            let is_last = page.len() < COMMIT_KEYS;
            if !page.is_empty() {
                self.commit(page.into_iter().fold(Commit::new(), |commit, (key, _)| commit.delete(key)))
                    .await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn default_app(&self) -> App {
        let registration = if self.open_registration { Registration::Open } else { Registration::Closed };
        let policy = AppPolicy { registration, ..AppPolicy::default() };
        App { policy, ..App::new(&AppId::default(), AppId::default().as_str(), 0) }
    }
}

/// Keeps the index of issuers.
fn with_issuers(mut commit: Commit, app: &AppId, before: &AppPolicy, after: &AppPolicy) -> Commit {
    for gone in before.issuers.iter().filter(|issuer| !after.issuers.contains(issuer)) {
        if !after.issuers.iter().any(|issuer| issuer.issuer == gone.issuer) {
            commit = commit.delete(issuer_key(&gone.issuer, app));
        }
    }
    for issuer in &after.issuers {
        commit = commit.put(issuer_key(&issuer.issuer, app), &b"{}"[..]);
    }
    commit
}

pub(super) fn check_version(expected: Option<u64>, present: u64) -> Result<()> {
    if expected.is_none_or(|expected| expected == present) { Ok(()) } else { Err(DirectoryError::Stale) }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    check_text("name", name, MAX_NAME)
}

/// Texts that people read are on one line.
pub(super) fn check_text(field: &str, text: &str, most: usize) -> Result<()> {
    if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(DirectoryError::Invalid(format!(
            "`{field}` is empty, has more than {most} bytes or a control character"
        )));
    }
    Ok(())
}
