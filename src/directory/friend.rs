//! What two users are to each other: friends, asked, or blocked. Each side has an entry of its own; one commit changes
//! both, and what their direct channel says of a block.
//!
//! Who is blocked is not told: his request waits, as anybody's does who gets no answer.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, UserId};

use super::{
    Change, Directory, DirectoryError, Record, Result, Tagged,
    channel::{Channel, direct_name},
    millis,
    page::{Page, PageQuery},
    record,
    store::{Commit, Key, Prefix},
};

/// How one sees the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FriendState {
    /// He asked, and waits.
    Requested,
    /// He is asked.
    Incoming,
    Friends,
    /// He does not want to hear of the other.
    Blocked,
}

/// One side of what two users are to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Friend {
    /// The other.
    pub user: UserId,
    pub state: FriendState,
    /// Milliseconds since 1970.
    pub since: u64,
}

impl Record for Friend {}

impl Friend {
    /// Where `user`'s side is. Both are of one app.
    pub(crate) fn key(user: &UserId, other: &UserId) -> Key {
        Key::new(&["friend", user.app().as_str(), user.local(), other.local()])
    }

    fn prefix(user: &UserId) -> Prefix {
        Prefix::new(&["friend", user.app().as_str(), user.local()])
    }
}

/// What a request or an answer made of two users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Befriended {
    /// His own side.
    pub friend: Friend,
    /// What the other is to be told, if anything is new to him.
    pub tell: Option<FriendState>,
}

/// Both sides, as they are in the store.
struct Pair {
    mine: Option<Tagged<Friend>>,
    theirs: Option<Tagged<Friend>>,
}

impl Directory {
    /// `user` asks `other`, or accepts what `other` asked.
    pub async fn befriend(&self, user: &UserId, other: &UserId) -> Result<Befriended> {
        check_two(user, other)?;
        if !self.user_exists(&other.app(), other).await? {
            return Err(DirectoryError::NotFound("user"));
        }
        let limit = self.quotas(&user.app()).await?.friends;
        let my_room = self.require_room(Friend::prefix(user), limit, "friends, requests and blocks").await;
        // What others ask of him takes no place of his own.
        let their_room =
            self.require_room(Friend::prefix(other), limit.saturating_mul(2), "requests to a user").await;
        self.change(|| async {
            use FriendState::{Blocked, Friends, Incoming, Requested};
            let pair = self.pair(user, other).await?;
            let (mine, theirs) = match (pair.mine_is(), pair.theirs_is()) {
                (Some(Blocked), _) => {
                    let message = format!("you block {other}; take that back first");
                    return Err(DirectoryError::Forbidden(message));
                }
                (Some(present @ (Friends | Requested)), _) => {
                    let friend = pair.mine.map(|mine| mine.value);
                    let friend = friend.unwrap_or_else(|| Friend::new(other, present));
                    return Ok((Commit::new(), Befriended { friend, tell: None }));
                }
                (Some(Incoming), Some(Requested)) | (None, Some(Requested)) => (Friends, Some(Friends)),
                // It looks as if he had not answered yet.
                (_, Some(Blocked)) => (Requested, None),
                _ => (Requested, Some(Incoming)),
            };
            if pair.mine.is_none() {
                my_room.clone()?;
            }
            if pair.theirs.is_none() {
                their_room.clone()?;
            }
            let friend = Friend::new(other, mine);
            let mut commit = pair.expect(user, other);
            commit = commit.put(Friend::key(user, other), record::encode(&friend));
            if let Some(theirs) = theirs {
                commit = commit.put(Friend::key(other, user), record::encode(&Friend::new(user, theirs)));
            }
            Ok((commit, Befriended { friend, tell: theirs }))
        })
        .await
    }

    /// Ends a friendship, takes a request back or declines one. Nobody is told.
    pub async fn unfriend(&self, user: &UserId, other: &UserId) -> Result<()> {
        check_two(user, other)?;
        self.change(|| async {
            let pair = self.pair(user, other).await?;
            if pair.mine_is().is_none_or(|mine| mine == FriendState::Blocked) {
                return Err(DirectoryError::NotFound("friend"));
            }
            let mut commit = pair.expect(user, other).delete(Friend::key(user, other));
            if pair.theirs_is().is_some_and(|theirs| theirs != FriendState::Blocked) {
                commit = commit.delete(Friend::key(other, user));
            }
            Ok((commit, ()))
        })
        .await
    }

    /// `user` does not want to hear of `other` any more, nor be seen by him.
    pub async fn block(&self, user: &UserId, other: &UserId) -> Result<Friend> {
        check_two(user, other)?;
        // Also one whom only the application knows, or who is gone: he may have written all the same.
        let limit = self.quotas(&user.app()).await?.friends;
        // Whom strangers ask so often can still block them: theirs is an entry already.
        let room = self
            .require_room(Friend::prefix(user), limit.saturating_mul(2), "friends, requests and blocks")
            .await;
        self.change(|| async {
            let pair = self.pair(user, other).await?;
            if let Some(present) = pair.mine.as_ref().filter(|mine| mine.value.state == FriendState::Blocked)
            {
                return Ok((Commit::new(), present.value.clone()));
            }
            if pair.mine.is_none() {
                room.clone()?;
            }
            let friend = Friend::new(other, FriendState::Blocked);
            let mut commit = pair.expect(user, other);
            commit = commit.put(Friend::key(user, other), record::encode(&friend));
            // His request goes on waiting; what he can't have any more is gone.
            if matches!(pair.theirs_is(), Some(FriendState::Friends | FriendState::Incoming)) {
                commit = commit.delete(Friend::key(other, user));
            }
            Ok((self.say_blocked(commit, user, other, true).await?, friend))
        })
        .await
    }

    /// Takes a block back. A request that waited meanwhile is there then.
    pub async fn unblock(&self, user: &UserId, other: &UserId) -> Result<()> {
        check_two(user, other)?;
        self.change(|| async {
            let pair = self.pair(user, other).await?;
            if pair.mine_is() != Some(FriendState::Blocked) {
                return Err(DirectoryError::NotFound("block"));
            }
            let mut commit = pair.expect(user, other);
            let key = Friend::key(user, other);
            commit = match pair.theirs_is() {
                Some(FriendState::Requested) => {
                    commit.put(key, record::encode(&Friend::new(other, FriendState::Incoming)))
                }
                _ => commit.delete(key),
            };
            let still = pair.theirs_is() == Some(FriendState::Blocked);
            Ok((self.say_blocked(commit, user, other, still).await?, ()))
        })
        .await
    }

    /// Those whom a user sees like that, in the order of their ids.
    pub async fn friends(
        &self,
        user: &UserId,
        states: &[FriendState],
        query: PageQuery,
    ) -> Result<Page<Friend>> {
        let page = self.page::<Friend>(Friend::prefix(user), query).await?;
        Ok(page.filter_map(|_, friend| states.contains(&friend.state).then_some(friend)))
    }

    /// How a user sees another.
    pub async fn friend(&self, user: &UserId, other: &UserId) -> Result<Option<Friend>> {
        Ok(self.read::<Friend>(&Friend::key(user, other)).await?.map(|friend| friend.value))
    }

    /// Whether `user` blocks `other`.
    pub async fn blocks(&self, user: &UserId, other: &UserId) -> Result<bool> {
        let friend = self.friend(user, other).await?;
        Ok(friend.is_some_and(|friend| friend.state == FriendState::Blocked))
    }

    /// What two are to each other: `user`'s side, and the other's.
    pub async fn relation(
        &self,
        user: &UserId,
        other: &UserId,
    ) -> Result<(Option<FriendState>, Option<FriendState>)> {
        let pair = self.pair(user, other).await?;
        Ok((pair.mine_is(), pair.theirs_is()))
    }

    /// A user is deleted: nobody has him in his list any more.
    pub async fn forget_friends(&self, user: &UserId) -> Result<()> {
        /// Two keys each.
        const FORGOTTEN_AT_ONCE: usize = 200;
        let app = user.app();
        loop {
            let page = self.list::<Friend>(Friend::prefix(user), None, FORGOTTEN_AT_ONCE).await?;
            if page.is_empty() {
                return Ok(());
            }
            self.change(|| async {
                let mut commit = Commit::new();
                for (key, friend) in &page {
                    let other = friend.value.user.within(&app);
                    commit = commit.delete(key.clone()).delete(Friend::key(&other, user));
                }
                Ok((commit, ()))
            })
            .await?;
        }
    }

    async fn pair(&self, user: &UserId, other: &UserId) -> Result<Pair> {
        let keys = [Friend::key(user, other), Friend::key(other, user)];
        let mut sides = self.read_many::<Friend>(&keys).await?.into_iter();
        Ok(Pair { mine: sides.next().flatten(), theirs: sides.next().flatten() })
    }

    /// Has the direct channel of the two, if there is one, say whether one blocks the other.
    async fn say_blocked(
        &self,
        commit: Commit,
        user: &UserId,
        other: &UserId,
        blocked: bool,
    ) -> Result<Commit> {
        let name: ChannelName = direct_name(user, other)?;
        let key = Channel::key(&name);
        let found = self.read::<Channel>(&key).await?;
        let commit = commit.expect(key.clone(), found.as_ref().map(|found| found.version));
        let Some(found) = found.filter(|found| found.value.blocked != blocked) else { return Ok(commit) };
        let changed = Channel { blocked, ..found.value };
        let tell = |commit: Commit, user: &UserId| {
            let (channel, user) = (name.clone(), user.clone());
            commit.tell(&Change::Member { app: name.app(), channel, user })
        };
        let commit = commit.put(key, record::encode(&changed));
        Ok(tell(tell(commit, user), other))
    }
}

impl Friend {
    fn new(user: &UserId, state: FriendState) -> Self {
        Self { user: user.clone(), state, since: millis(SystemTime::now()) }
    }
}

impl Pair {
    fn mine_is(&self) -> Option<FriendState> {
        self.mine.as_ref().map(|mine| mine.value.state)
    }

    fn theirs_is(&self) -> Option<FriendState> {
        self.theirs.as_ref().map(|theirs| theirs.value.state)
    }

    fn expect(&self, user: &UserId, other: &UserId) -> Commit {
        let version = |side: &Option<Tagged<Friend>>| side.as_ref().map(|side| side.version);
        Commit::new()
            .expect(Friend::key(user, other), version(&self.mine))
            .expect(Friend::key(other, user), version(&self.theirs))
    }
}

fn check_two(user: &UserId, other: &UserId) -> Result<()> {
    if user == other {
        return Err(DirectoryError::Invalid("nobody is a friend of himself".into()));
    }
    if user.app() != other.app() {
        return Err(DirectoryError::NotFound("user"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::{
        fixture::{all, directory_of, user},
        store::{Store, contract::on_every_store},
    };

    on_every_store!(
        a_request_is_accepted_by_the_other_side
        two_who_ask_each_other_at_once_are_friends
        a_request_is_declined_or_taken_back
        who_is_blocked_sees_a_request_that_waits
        a_block_takes_a_friendship_away
        friends_have_a_quota
        who_is_deleted_is_in_nobodys_list
    );

    use FriendState::{Blocked, Friends, Incoming, Requested};

    async fn is(directory: &Directory, one: &str, other: &str) -> (Option<FriendState>, Option<FriendState>) {
        directory.relation(&user(one), &user(other)).await.unwrap()
    }

    async fn a_request_is_accepted_by_the_other_side(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob"]).await;
        let (ann, bob) = (user("ann"), user("bob"));
        let asked = directory.befriend(&ann, &bob).await.unwrap();
        assert_eq!((asked.friend.state, asked.tell), (Requested, Some(Incoming)));
        // To ask again tells nobody again.
        assert_eq!(directory.befriend(&ann, &bob).await.unwrap().tell, None);
        let accepted = directory.befriend(&bob, &ann).await.unwrap();
        assert_eq!((accepted.friend.state, accepted.tell), (Friends, Some(Friends)));
        assert_eq!(is(&directory, "ann", "bob").await, (Some(Friends), Some(Friends)));
        let list = directory.friends(&ann, &[Friends], all()).await.unwrap();
        assert_eq!(list.items.len(), 1);
        assert!(directory.befriend(&ann, &ann).await.is_err());
        let unknown = directory.befriend(&ann, &user("nobody")).await;
        assert_eq!(unknown, Err(DirectoryError::NotFound("user")));
    }

    async fn two_who_ask_each_other_at_once_are_friends(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob"]).await;
        let (ann, bob) = (user("ann"), user("bob"));
        let (one, other) = tokio::join!(directory.befriend(&ann, &bob), directory.befriend(&bob, &ann));
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(is(&directory, "ann", "bob").await, (Some(Friends), Some(Friends)));
    }

    async fn a_request_is_declined_or_taken_back(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob"]).await;
        let (ann, bob) = (user("ann"), user("bob"));
        for (who, other) in [(&ann, &bob), (&bob, &ann)] {
            directory.befriend(&ann, &bob).await.unwrap();
            directory.unfriend(who, other).await.unwrap();
            assert_eq!(is(&directory, "ann", "bob").await, (None, None));
        }
        assert_eq!(directory.unfriend(&ann, &bob).await, Err(DirectoryError::NotFound("friend")));
    }

    async fn who_is_blocked_sees_a_request_that_waits(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob", "cid"]).await;
        let (ann, bob, cid) = (user("ann"), user("bob"), user("cid"));
        directory.block(&ann, &bob).await.unwrap();
        let blocked = directory.befriend(&bob, &ann).await.unwrap();
        let other = directory.befriend(&bob, &cid).await.unwrap();
        assert_eq!(blocked.friend.state, other.friend.state);
        assert_eq!(blocked.tell, None);
        assert_eq!(is(&directory, "ann", "bob").await, (Some(Blocked), Some(Requested)));
        assert_eq!(directory.friends(&ann, &[Incoming], all()).await.unwrap().items, []);
        let refused = directory.befriend(&ann, &bob).await;
        assert!(matches!(refused, Err(DirectoryError::Forbidden(_))));
        // It was asked, after all.
        directory.unblock(&ann, &bob).await.unwrap();
        assert_eq!(is(&directory, "ann", "bob").await, (Some(Incoming), Some(Requested)));
    }

    async fn a_block_takes_a_friendship_away(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob"]).await;
        let (ann, bob) = (user("ann"), user("bob"));
        directory.befriend(&ann, &bob).await.unwrap();
        directory.befriend(&bob, &ann).await.unwrap();
        directory.block(&bob, &ann).await.unwrap();
        assert_eq!(is(&directory, "ann", "bob").await, (None, Some(Blocked)));
        assert!(directory.blocks(&bob, &ann).await.unwrap() && !directory.blocks(&ann, &bob).await.unwrap());
        assert_eq!(directory.unfriend(&bob, &ann).await, Err(DirectoryError::NotFound("friend")));
        assert_eq!(directory.unblock(&ann, &bob).await, Err(DirectoryError::NotFound("block")));
        directory.unblock(&bob, &ann).await.unwrap();
        assert_eq!(is(&directory, "ann", "bob").await, (None, None));
    }

    async fn friends_have_a_quota(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob", "cid"]).await;
        let quotas = serde_json::json!({ "quotas": { "friends": 1 } });
        let serde_json::Value::Object(quotas) = quotas else { unreachable!() };
        directory.update_app(&"default".parse().unwrap(), None, None, Some(quotas)).await.unwrap();
        directory.befriend(&user("ann"), &user("bob")).await.unwrap();
        let full = directory.befriend(&user("ann"), &user("cid")).await;
        assert!(matches!(full, Err(DirectoryError::LimitReached(_))), "{full:?}");
        // What was asked of somebody does not keep him from blocking.
        directory.block(&user("ann"), &user("cid")).await.unwrap();
    }

    async fn who_is_deleted_is_in_nobodys_list(store: Arc<dyn Store>) {
        let directory = directory_of(store, &["ann", "bob", "cid"]).await;
        let (ann, bob, cid) = (user("ann"), user("bob"), user("cid"));
        directory.befriend(&ann, &bob).await.unwrap();
        directory.block(&ann, &cid).await.unwrap();
        directory.forget_friends(&ann).await.unwrap();
        assert_eq!(is(&directory, "ann", "bob").await, (None, None));
        assert_eq!(is(&directory, "ann", "cid").await, (None, None));
    }
}
