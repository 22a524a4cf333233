//! Users: who they are, and what of it others may see.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::json;
use xpush_protocol::{AppId, DeviceId, SessionId, UserId};

use super::{
    Change, Directory, DirectoryError, Record, Result, Tagged,
    app::{App, check_version},
    device::Device,
    login::Login,
    millis,
    page::{Page, PageQuery},
    profile::{OwnProfile, Profile, ProfileChange, folded},
    record::{decode, encode},
    store::{Commit, Key, Prefix},
};
use crate::{auth::Account, webhook::HookEvent};

/// Bytes of what is looked for.
const MAX_QUERY: usize = 128;

/// A user as it is kept. It never leaves the directory: others get `Profile`, the user itself `OwnProfile`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(super) user: UserId,
    pub(super) created: u64,
    /// In PHC form. `None`: the user comes with tokens that somebody else makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    #[serde(flatten)]
    pub(super) profile: Profile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deactivated: bool,
    /// Tokens that the application made before (in seconds since 1970) are taken no more. Ours end with their logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) valid_from: Option<u64>,
    /// It is being deleted, or is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leaving: bool,
    /// Nothing is left of it but its id, which nobody else ever gets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gone: bool,
}

impl Record for User {}

/// Only that there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {}

impl Record for Named {}

/// When a user was there last. It is no part of the user's record: whoever changes that shall not be in the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Milliseconds since 1970.
    pub(super) at: u64,
}

impl Record for Seen {}

impl Seen {
    pub(super) fn key(user: &UserId) -> Key {
        Key::new(&["seen", user.app().as_str(), user.local()])
    }
}

/// By what users are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchField {
    #[default]
    Name,
    User,
}

impl User {
    pub(crate) fn key(user: &UserId) -> Key {
        Key::new(&["user", user.app().as_str(), user.local()])
    }

    pub(super) fn new(user: &UserId) -> Self {
        Self {
            user: user.clone(),
            created: millis(SystemTime::now()),
            password: None,
            profile: Profile::default(),
            locale: None,
            data: None,
            deactivated: false,
            valid_from: None,
            leaving: false,
            gone: false,
        }
    }

    fn name_key(&self, user: &UserId) -> Option<Key> {
        let name = self.profile.name.as_deref()?;
        Some(Key::new(&["name", user.app().as_str(), &folded(name), user.local()]))
    }

    pub(super) fn own(self, last_seen: Option<u64>) -> OwnProfile {
        OwnProfile {
            user: self.user,
            created: self.created,
            has_password: self.password.is_some(),
            profile: self.profile,
            locale: self.locale,
            data: self.data,
            deactivated: self.deactivated,
            last_seen,
        }
    }

    fn public(self) -> Option<Profile> {
        let is_there = !self.deactivated && !self.leaving;
        is_there.then_some(Profile { user: Some(self.user), ..self.profile })
    }
}

/// Writes a user over what was read of it, with its place in the index of names.
pub(super) fn write(commit: Commit, user: &UserId, before: Option<&Tagged<User>>, after: &User) -> Commit {
    let (old, new) = (before.and_then(|before| before.value.name_key(user)), after.name_key(user));
    let commit = commit
        .expect(User::key(user), before.map(|before| before.version))
        .put(User::key(user), encode(after));
    match (old, new) {
        (old, new) if old == new => commit,
        (old, new) => {
            let commit = old.into_iter().fold(commit, Commit::delete);
            new.into_iter().fold(commit, |commit, key| commit.put(key, encode(&Named {})))
        }
    }
}

impl Directory {
    /// Whether what a token says of its user still holds: the user may come in, the login and the device are there.
    pub async fn check_account(&self, app: &AppId, user: &UserId, account: &Account) -> Result<()> {
        let user = user.within(app);
        let mut keys = vec![User::key(&user), super::app::key(app)];
        keys.extend(account.login.as_deref().map(|login| Login::key(&user, login)));
        let is_ours = account.login.is_some();
        keys.extend(account.device.as_ref().filter(|_| is_ours).map(|device| Device::key(&user, device)));
        let mut entries = self.store.get_many(&keys).await?.into_iter();
        let revoked = |what: &str| Err(DirectoryError::InvalidToken(what.into()));
        let record = entries.next().flatten();
        // Read, and not of the policies that are held: sessions look once, as soon as they hear of it. An app without a
        // record is one that the configuration has keys of.
        if let Some(found) = entries.next().flatten()
            && decode::<App>(&keys[1], &found)?.value.leaving
        {
            return revoked("the token's app is gone");
        }
        let Some(record) = record else {
            // A user whom only the application knows.
            return if is_ours { revoked("the token's user is gone") } else { Ok(()) };
        };
        let record: User = decode(&keys[0], &record)?.value;
        if record.deactivated || record.leaving {
            return revoked("the token's user is deactivated or deleted");
        }
        // One that does not say when it was made may be as old as any.
        if !is_ours && record.valid_from.is_some_and(|from| account.issued.unwrap_or(0) < from) {
            return revoked("the token was taken back");
        }
        if entries.any(|entry| entry.is_none()) {
            return revoked("the token's login is over: it was ended, or its device was removed");
        }
        Ok(())
    }

    /// Whether there is a user who may be written to. Whom only the application's tokens name is one once
    /// `ensure_user` was asked for it.
    pub async fn user_exists(&self, app: &AppId, user: &UserId) -> Result<bool> {
        let found = self.read::<User>(&User::key(&user.within(app))).await?;
        Ok(found.is_some_and(|found| !found.value.leaving && !found.value.deactivated))
    }

    /// Makes a record without a password, if there is none.
    pub async fn ensure_user(&self, app: &AppId, user: &UserId) -> Result<()> {
        let user = user.within(app);
        self.change(|| async {
            match self.read::<User>(&User::key(&user)).await? {
                Some(found) if found.value.leaving => {
                    Err(DirectoryError::Forbidden("the user is deleted, or being deleted".into()))
                }
                Some(_) => Ok((Commit::new(), ())),
                None => Ok((write(Commit::new(), &user, None, &User::new(&user)), ())),
            }
        })
        .await
    }

    /// A new user; `password` is its hash.
    pub(super) async fn create_user(
        &self,
        user: &UserId,
        password: Option<String>,
        profile: &ProfileChange,
    ) -> Result<()> {
        let mut created = User { password, ..User::new(user) };
        profile.apply(&mut created)?;
        self.change(|| async {
            self.app(&user.app()).await?;
            if self.store.get(&User::key(user)).await?.is_some() {
                return Err(DirectoryError::AlreadyExists("user"));
            }
            let commit = write(Commit::new(), user, None, &created);
            let commit = commit.after(
                self,
                HookEvent::UserRegistered,
                &user.app(),
                user.local(),
                || json!({ "user": user, "name": created.profile.name }),
            );
            Ok((commit, ()))
        })
        .await
    }

    pub(super) async fn user(&self, user: &UserId) -> Result<Tagged<User>> {
        let found = self.read::<User>(&User::key(user)).await?;
        found.filter(|found| !found.value.leaving).ok_or(DirectoryError::NotFound("user"))
    }

    /// What the user itself, and backends, may know.
    pub async fn own_profile(&self, user: &UserId) -> Result<Tagged<OwnProfile>> {
        let Tagged { value, version } = self.user(user).await?;
        Ok(Tagged { value: value.own(self.last_seen(user).await?), version })
    }

    /// What others may know. A deactivated user is not there for them.
    pub async fn profile(&self, user: &UserId) -> Result<Tagged<Profile>> {
        let Tagged { value, version } = self.user(user).await?;
        Ok(Tagged { value: value.public().ok_or(DirectoryError::NotFound("user"))?, version })
    }

    pub async fn update_profile(
        &self,
        user: &UserId,
        expected: Option<u64>,
        changes: &ProfileChange,
    ) -> Result<Tagged<OwnProfile>> {
        self.change_user(user, expected, |changed, commit| {
            changes.apply(changed)?;
            Ok(commit)
        })
        .await?;
        self.own_profile(user).await
    }

    /// Changes a user; `change` may add to the commit.
    pub(super) async fn change_user(
        &self,
        user: &UserId,
        expected: Option<u64>,
        change: impl Fn(&mut User, Commit) -> Result<Commit>,
    ) -> Result<()> {
        self.change(|| async {
            let present = self.user(user).await?;
            check_version(expected, present.version)?;
            let mut changed = present.value.clone();
            let commit = change(&mut changed, Commit::new())?;
            Ok((write(commit, user, Some(&present), &changed), ()))
        })
        .await
    }

    /// Nobody comes in as this user until `activate`; all of its logins end. Whom only the application's tokens name gets
    /// a record by this, as by `revoke`.
    pub async fn deactivate(&self, user: &UserId) -> Result<()> {
        self.end_everywhere(user, |changed| changed.deactivated = true).await
    }

    pub async fn activate(&self, user: &UserId) -> Result<()> {
        self.change_user(user, None, |changed, commit| {
            changed.deactivated = false;
            Ok(commit)
        })
        .await
    }

    /// Takes back every token of the user that was made until now, by us or by the application.
    pub async fn revoke(&self, user: &UserId) -> Result<()> {
        self.end_everywhere(user, |_| ()).await
    }

    pub(super) async fn end_everywhere(&self, user: &UserId, change: impl Fn(&mut User)) -> Result<()> {
        self.change(|| async {
            let present = self.read::<User>(&User::key(user)).await?;
            if present.as_ref().is_some_and(|present| present.value.leaving) {
                return Err(DirectoryError::NotFound("user"));
            }
            let mut changed = present.as_ref().map_or_else(|| User::new(user), |found| found.value.clone());
            change(&mut changed);
            // Tokens say whole seconds: one of this second may be older than this.
            changed.valid_from = Some(millis(SystemTime::now()) / 1000 + 1);
            let logins = self.logins(user).await?;
            let commit = logins.into_iter().fold(Commit::new(), |commit, (key, _)| commit.delete(key));
            let commit = commit.tell(&Change::User { app: user.app(), user: user.clone() });
            Ok((write(commit, user, present.as_ref(), &changed), ()))
        })
        .await
    }

    /// Users whose name or id begins so, as others may see them. Upper and lower case are the same in names.
    pub async fn search_users(
        &self,
        app: &AppId,
        field: SearchField,
        text: &str,
        query: PageQuery,
    ) -> Result<Page<Profile>> {
        if text.trim().is_empty() || text.len() > MAX_QUERY || text.chars().any(char::is_control) {
            return Err(DirectoryError::Invalid(format!(
                "`q` has 1 to {MAX_QUERY} bytes, and no control characters"
            )));
        }
        match field {
            SearchField::User => {
                let page = self.page::<User>(Prefix::beginning(&["user", app.as_str()], text), query).await?;
                Ok(page.filter_map(|_, user| user.public()))
            }
            SearchField::Name => {
                let prefix = Prefix::beginning(&["name", app.as_str()], &folded(text));
                let page = self.page::<Named>(prefix, query).await?;
                let keys: Vec<Key> =
                    page.keys().map(|key| Key::new(&["user", app.as_str(), key.component(3)])).collect();
                let found = self.read_many::<User>(&keys).await?;
                let items = found.into_iter().flatten().filter_map(|found| found.value.public()).collect();
                Ok(Page { items, next: page.next() })
            }
        }
    }

    /// All users of an app, for its backends.
    pub async fn users(&self, app: &AppId, query: PageQuery) -> Result<Page<OwnProfile>> {
        self.app(app).await?;
        let page = self.page::<User>(Prefix::new(&["user", app.as_str()]), query).await?;
        Ok(page.filter_map(|_, user| (!user.leaving).then(|| user.own(None))))
    }

    /// Milliseconds since 1970.
    pub async fn last_seen(&self, user: &UserId) -> Result<Option<u64>> {
        Ok(self.read::<Seen>(&Seen::key(user)).await?.map(|seen| seen.value.at))
    }

    /// The user was there, maybe with a session of a device of its own. What a crash takes back of it is seen anew soon.
    pub async fn saw(&self, user: &UserId, device: Option<(&DeviceId, &SessionId)>) -> Result<()> {
        let at = millis(SystemTime::now());
        self.change(|| async {
            let mut commit = Commit::new().soon().put(Seen::key(user), encode(&Seen { at }));
            if let Some((device, session)) = device
                && let Some(found) = self.read::<Device>(&Device::key(user, device)).await?
            {
                let key = Device::key(user, device);
                let session = Some(session.clone());
                let seen = Device { last_seen: at, session, ..found.value };
                commit = commit.expect(key.clone(), Some(found.version)).put(key, encode(&seen));
            }
            Ok((commit, ()))
        })
        .await
    }
}
