//! Groups of contacts: a user's own lists of users, which nobody else sees.

use serde::{Deserialize, Serialize};
use xpush_protocol::UserId;

use super::{
    Directory, DirectoryError, Record, Result,
    page::{Page, PageQuery},
    record,
    store::{Commit, Key, Prefix},
    text,
};

/// Users of one group.
pub const GROUP_USERS: usize = 1000;
/// Bytes of a group's name.
const NAME_LIMIT: usize = 256;
/// Bytes of a group's id, which its owner chooses.
const ID_LIMIT: usize = 64;

/// A list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub name: String,
    pub users: Vec<UserId>,
}

impl Record for Group {}

impl Group {
    fn key(owner: &UserId, id: &str) -> Key {
        Key::new(&["group", owner.app().as_str(), owner.local(), id])
    }

    fn prefix(owner: &UserId) -> Prefix {
        Prefix::new(&["group", owner.app().as_str(), owner.local()])
    }
}

impl Directory {
    /// Writes a group of this owner. Gives whether it is new.
    pub async fn put_group(&self, owner: &UserId, mut group: Group) -> Result<(Group, bool)> {
        check_id(&group.id)?;
        text::check("name", &group.name, NAME_LIMIT, false)?;
        group.users.sort();
        group.users.dedup();
        if group.users.len() > GROUP_USERS {
            let message = format!("`users` has {}, {GROUP_USERS} at most are allowed", group.users.len());
            return Err(DirectoryError::Invalid(message));
        }
        let limit = self.quotas(&owner.app()).await?.groups;
        let room = self.require_room(Group::prefix(owner), limit, "groups a user").await;
        let key = Group::key(owner, &group.id);
        let is_new = self
            .change(|| async {
                let present = self.read::<Group>(&key).await?;
                if present.is_none() {
                    room.clone()?;
                }
                let is_new = present.is_none();
                let commit = Commit::new().expect(key.clone(), present.map(|present| present.version));
                Ok((commit.put(key.clone(), record::encode(&group)), is_new))
            })
            .await?;
        Ok((group, is_new))
    }

    pub async fn group(&self, owner: &UserId, id: &str) -> Result<Group> {
        check_id(id)?;
        let found = self.read::<Group>(&Group::key(owner, id)).await?;
        found.map(|found| found.value).ok_or(DirectoryError::NotFound("group"))
    }

    pub async fn delete_group(&self, owner: &UserId, id: &str) -> Result<()> {
        check_id(id)?;
        let key = Group::key(owner, id);
        self.change(|| async {
            let found = self.read::<Group>(&key).await?;
            let Some(found) = found else { return Err(DirectoryError::NotFound("group")) };
            Ok((Commit::new().expect(key.clone(), Some(found.version)).delete(key.clone()), ()))
        })
        .await
    }

    /// A user's groups, in the order of their ids.
    pub async fn groups(&self, owner: &UserId, query: PageQuery) -> Result<Page<Group>> {
        let page = self.page::<Group>(Group::prefix(owner), query).await?;
        Ok(page.filter_map(|_, group| Some(group)))
    }

    /// The owner is deleted.
    pub async fn forget_groups(&self, owner: &UserId) -> Result<()> {
        loop {
            let page = self.groups(owner, PageQuery::default()).await?;
            if page.items.is_empty() {
                return Ok(());
            }
            for group in page.items {
                match self.delete_group(owner, &group.id).await {
                    Ok(()) | Err(DirectoryError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=ID_LIMIT).contains(&id.len()) && id.chars().all(allowed) {
        return Ok(());
    }
    let message = format!("a group's id is 1 to {ID_LIMIT} of A-Z, a-z, 0-9, '-', '_', '.'");
    Err(DirectoryError::Invalid(message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::{
        fixture::{all, directory_of, user},
        store::{Store, contract::on_every_store},
    };

    on_every_store!(a_group_is_its_owners_alone a_group_has_bounds);

    fn group(id: &str, users: &[&str]) -> Group {
        Group { id: id.into(), name: "Family".into(), users: users.iter().map(|name| user(name)).collect() }
    }

    async fn a_group_is_its_owners_alone(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob"]).await;
        let (ann, bob) = (user("ann"), user("bob"));
        let (written, is_new) = directory.put_group(&ann, group("g", &["cid", "bob", "cid"])).await.unwrap();
        assert!(is_new);
        assert_eq!(written.users, [user("bob"), user("cid")]);
        assert!(!directory.put_group(&ann, group("g", &[])).await.unwrap().1);
        assert_eq!(directory.groups(&ann, all()).await.unwrap().items.len(), 1);
        let missing = DirectoryError::NotFound("group");
        assert_eq!(directory.group(&bob, "g").await, Err(missing.clone()));
        assert_eq!(directory.delete_group(&bob, "g").await, Err(missing.clone()));
        directory.delete_group(&ann, "g").await.unwrap();
        assert_eq!(directory.group(&ann, "g").await, Err(missing));
        directory.put_group(&ann, group("h", &[])).await.unwrap();
        directory.forget_groups(&ann).await.unwrap();
        assert_eq!(directory.groups(&ann, all()).await.unwrap().items, []);
    }

    async fn a_group_has_bounds(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann"]).await;
        let many: Vec<String> = (0..=GROUP_USERS).map(|n| format!("u{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let long = "x".repeat(65);
        for bad in [group("g", &many), group("", &[]), group("a/b", &[]), group(&long, &[])] {
            let refused = directory.put_group(&user("ann"), bad).await;
            assert!(matches!(refused, Err(DirectoryError::Invalid(_))), "{refused:?}");
        }
        for n in 0..100 {
            directory.put_group(&user("ann"), group(&format!("g{n}"), &[])).await.unwrap();
        }
        let full = directory.put_group(&user("ann"), group("more", &[])).await;
        assert!(matches!(full, Err(DirectoryError::LimitReached(_))));
        directory.put_group(&user("ann"), group("g1", &["bob"])).await.unwrap();
    }
}
