//! What is kept of a user: given to whom it is of, and deleted with it.

use serde_json::{Map, Value, json};
use xpush_protocol::UserId;

use super::{
    Directory, DirectoryError, Result,
    app::check_version,
    store::{Commit, Key, Prefix, SCAN_LIMIT, Scan, StoreError},
    user::{Seen, User, write},
};
use crate::webhook::HookEvent;

/// Tables with entries of a user under its app and id, by the names that an export gives them.
const TABLES: [(&str, &str); 4] =
    [("devices", "device"), ("logins", "login"), ("friends", "friend"), ("groups", "group")];

/// The channels that a user is in, each with the membership.
const MINE: &str = "mine";

/// Nobody is told these, not even whom they are of: they let in whoever has them.
const SECRETS: [&str; 2] = ["password", "hash"];

/// Entries of one table in an export. Quotas allow fewer.
const EXPORTED: usize = 10_000;

impl Directory {
    /// Deletes a user and what the directory keeps of it. What it said in channels is theirs, and goes by their rules.
    pub async fn delete_user(&self, user: &UserId, expected: Option<u64>) -> Result<()> {
        self.take_leave(user, expected).await?;
        self.bury(user).await
    }

    /// The first part of it: nobody is this user any more, and what others see of it is gone. If what comes after this
    /// breaks off, all of it may be done again.
    pub(crate) async fn take_leave(&self, user: &UserId, expected: Option<u64>) -> Result<()> {
        let found = self.read::<User>(&User::key(user)).await?.filter(|found| !found.value.gone);
        let found = found.ok_or(DirectoryError::NotFound("user"))?;
        check_version(expected, found.version)?;
        // From here on nobody is this user; one that is leaving already is one whose deletion broke off.
        if !found.value.leaving {
            self.end_everywhere(user, |leaving| leaving.leaving = true).await?;
        }
        self.leave_everything(user).await?;
        self.forget_friends(user).await?;
        self.forget_groups(user).await?;
        for (_, table) in TABLES {
            self.delete_all(Prefix::new(&[table, user.app().as_str(), user.local()])).await?;
        }
        Ok(())
    }

    /// The last part. Only the id stays, so that nobody registers it and is taken for who had it: by tokens that the
    /// application once made, by the other one of a direct channel, as the author of what was said.
    pub(crate) async fn bury(&self, user: &UserId) -> Result<()> {
        self.change(|| async {
            let found = self.read::<User>(&User::key(user)).await?;
            let Some(found) = found.filter(|found| found.value.leaving && !found.value.gone) else {
                return Ok((Commit::new(), ()));
            };
            let gone = User { leaving: true, gone: true, ..User::new(user) };
            let commit = write(Commit::new(), user, Some(&found), &gone).delete(Seen::key(user));
            let told = || json!({ "user": user });
            Ok((commit.after(self, HookEvent::UserDeleted, &user.app(), user.local(), told), ()))
        })
        .await
    }

    /// Everything that is kept of a user, but for the secrets that let it in and what it said in channels.
    pub async fn export_user(&self, user: &UserId) -> Result<Value> {
        let own = self.own_profile(user).await?.value;
        let mut export = Map::new();
        export.insert("user".into(), json!(own));
        export.insert("app".into(), json!(user.app()));
        for (name, table) in TABLES {
            let entries = self.all_of(Prefix::new(&[table, user.app().as_str(), user.local()])).await?;
            export.insert(name.into(), entries.into_iter().map(|(_, value)| value).collect());
        }
        let mine = self.all_of(Prefix::new(&[MINE, user.app().as_str(), user.local()])).await?;
        let mut channels = Vec::new();
        for (key, _) in mine {
            let key = Key::new(&["member", user.app().as_str(), key.component(3), user.local()]);
            if let Some(entry) = self.store.get(&key).await? {
                let mut membership = value(&key, &entry.value)?;
                membership["channel"] = json!(key.component(2));
                channels.push(membership);
            }
        }
        export.insert("channels".into(), channels.into());
        Ok(export.into())
    }

    async fn all_of(&self, prefix: Prefix) -> Result<Vec<(Key, Value)>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan(Scan { after, ..Scan::of(prefix.clone()) }).await?;
            let is_last = page.len() < SCAN_LIMIT;
            after = page.last().map(|(key, _)| key.clone());
            for (key, entry) in page {
                let value = value(&key, &entry.value)?;
                all.push((key, value));
            }
            if is_last || all.len() >= EXPORTED {
                return Ok(all);
            }
        }
    }
}

fn value(key: &Key, bytes: &[u8]) -> Result<Value> {
    let mut value: Value =
        serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged(format!("{key:?}: {error}")))?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|field, _| !SECRETS.contains(&field.as_str()));
    }
    Ok(value)
}
