//! What is asked of Redis: one script each, which any node may run.

use std::{collections::BTreeSet, sync::Arc};

use ::redis::{Cmd, Value, from_redis_value};
use xpush_protocol::{ChannelName, Member, SessionId, UserId};

use super::mirror::{Lease, Place};
use crate::{
    presence::{LIST_LIMIT, List},
    redis::{Link, LinkError, Reply, Script, read},
};

/// Sessions that are told, or taken out, in one go.
pub(super) const AT_ONCE: usize = 256;
/// Leases that ran out, of which a node hears at once.
const EXPIRED_AT_ONCE: usize = 16;

/// The members of all channels, in Redis.
pub(super) struct Members {
    link: Arc<Link>,
    join: Script,
    leave: Script,
    reap: Script,
    lease: Script,
}

/// A session that was taken out of a channel.
pub(super) struct Reaped {
    pub(super) member: Member,
    pub(super) occupancy: u32,
}

impl Members {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let script = |text: &str| Script::new(text.to_owned());
        Self {
            link,
            join: script(include_str!("join.lua")),
            leave: script(include_str!("leave.lua")),
            reap: script(include_str!("reap.lua")),
            lease: script(include_str!("lease.lua")),
        }
    }

    /// Which runs of Redis's servers are there.
    pub(super) fn runs(&self) -> BTreeSet<Arc<str>> {
        self.link.runs()
    }

    /// Gives the channel's occupancy, and whether the session is new in it.
    pub(super) async fn join(
        &self,
        lease: Lease,
        channel: &ChannelName,
        place: &Place,
    ) -> Result<(u32, bool), LinkError> {
        let keys = self.keys(channel, lease);
        let joined = self.link.run(&self.join, &keys, |call, _| arguments(call, lease, place, "join"));
        let (occupancy, new): (u32, u8) = joined.await?;
        Ok((occupancy, new == 1))
    }

    /// As `join`, for many. Those that Redis has had before yield to another node.
    pub(super) async fn put(
        &self,
        lease: Lease,
        places: &[(ChannelName, Place)],
    ) -> Vec<Result<(u32, bool), LinkError>> {
        let keys: Vec<_> = places.iter().map(|(channel, _)| self.keys(channel, lease)).collect();
        let answers = self.link.run_each(&self.join, &keys, |at, call, _| {
            let place = &places[at].1;
            arguments(call, lease, place, if place.is_told { "put" } else { "join" });
        });
        answers.await.into_iter().map(pair).collect()
    }

    /// Gives for each the channel's occupancy, and whether the session was there by this connection.
    pub(super) async fn leave(
        &self,
        lease: Lease,
        leaving: &[(&ChannelName, &SessionId, u64)],
    ) -> Vec<Result<(u32, bool), LinkError>> {
        let keys: Vec<_> = leaving.iter().map(|(channel, ..)| self.keys(channel, lease)).collect();
        let answers = self.link.run_each(&self.leave, &keys, |at, call, _| {
            let (_, session, connection) = &leaving[at];
            call.arg(session.as_str()).arg(format!("{:016x}", lease.instance)).arg(connection);
        });
        answers.await.into_iter().map(pair).collect()
    }

    pub(super) async fn list(&self, channel: &ChannelName) -> Result<List, LinkError> {
        let [members, users, _] = self.keys(channel, Lease { instance: 0, number: 0 });
        let keys = [members.clone(), users, members];
        let question = |at: usize| {
            let mut question = ::redis::cmd(if at < 2 { "HLEN" } else { "HRANDFIELD" });
            question.arg(&keys[at]);
            if at == 2 {
                question.arg(LIST_LIMIT).arg("WITHVALUES");
            }
            question
        };
        let mut answers = self.link.ask_each(&keys, question).await.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let (sessions, users) = (next().and_then(read)?, next().and_then(read)?);
        let entries: Vec<Value> = next().and_then(read)?;
        let members = entries.iter().filter_map(|entry| {
            let (session, place): (String, String) = from_redis_value(entry.clone()).ok()?;
            let user = place.splitn(3, ' ').nth(2)?;
            member(&session, user)
        });
        Ok(List { members: members.collect(), sessions, users })
    }

    /// Says that a lease has members in these channels.
    pub(super) async fn list_channels(
        &self,
        lease: Lease,
        channels: &[ChannelName],
    ) -> Result<(), LinkError> {
        self.change_list("SADD", lease, channels).await
    }

    pub(super) async fn unlist_channels(
        &self,
        lease: Lease,
        channels: &[ChannelName],
    ) -> Result<(), LinkError> {
        self.change_list("SREM", lease, channels).await
    }

    async fn change_list(
        &self,
        command: &str,
        lease: Lease,
        channels: &[ChannelName],
    ) -> Result<(), LinkError> {
        let key = self.list_key(&lease.to_string());
        for channels in channels.chunks(AT_ONCE) {
            let mut change = ::redis::cmd(command);
            change.arg(&key);
            for channel in channels {
                change.arg(channel.as_str());
            }
            self.link.ask::<u64>(&key, change).await?;
        }
        Ok(())
    }

    /// Begins a lease, or prolongs it. Gives whether it lives, and which have run out.
    pub(super) async fn hold(
        &self,
        lease: Lease,
        millis: u64,
        may_begin: bool,
    ) -> Result<(bool, Vec<String>), LinkError> {
        let keys = [self.link.keys.single("leases")];
        let held = self.link.run(&self.lease, &keys, |call, _| {
            let begin = if may_begin { "begin" } else { "go on" };
            call.arg(lease.to_string()).arg(millis).arg(begin).arg(EXPIRED_AT_ONCE);
        });
        let (lives, expired): (u8, Vec<String>) = held.await?;
        Ok((lives == 1, expired))
    }

    /// Whether this node is the one that takes an expired lease's members out. It is, for so long.
    pub(super) async fn claim(&self, expired: &str, by: Lease, millis: u64) -> Result<bool, LinkError> {
        let key = self.link.keys.single(&format!("reaper:{expired}"));
        let mut claim = ::redis::cmd("SET");
        claim.arg(&key).arg(by.to_string()).arg("NX").arg("PX").arg(millis).arg("GET");
        let by_whom: Option<String> = self.link.ask(&key, claim).await?;
        if by_whom.as_ref().is_some_and(|whom| *whom != by.to_string()) {
            return Ok(false);
        }
        let mut prolong = ::redis::cmd("PEXPIRE");
        prolong.arg(&key).arg(millis);
        self.link.ask::<u8>(&key, prolong).await?;
        Ok(true)
    }

    /// Some of the channels where an expired lease may have members. None: there are no more.
    pub(super) async fn channels_of(&self, expired: &str) -> Result<Vec<String>, LinkError> {
        let key = self.list_key(expired);
        let mut some = ::redis::cmd("SRANDMEMBER");
        some.arg(&key).arg(AT_ONCE);
        self.link.ask(&key, some).await
    }

    /// Takes all members out that an expired lease has in a channel, in turns. Gives those of this turn, and whether
    /// there may be more.
    pub(super) async fn reap(
        &self,
        expired: &str,
        channel: &ChannelName,
    ) -> Result<(Vec<Reaped>, bool), LinkError> {
        let keys = self.keys_of(channel, expired);
        let reaped = self.link.run(&self.reap, &keys, |call, _| {
            call.arg(expired).arg(AT_ONCE);
        });
        let mut reaped: Vec<Value> = reaped.await?;
        if reaped.is_empty() {
            return Ok((Vec::new(), false));
        }
        let seen: usize = read(reaped.remove(0))?;
        let gone = reaped.into_iter().filter_map(|one| {
            let (session, user, occupancy): (String, String, u32) = from_redis_value(one).ok()?;
            Some(Reaped { member: member(&session, &user)?, occupancy })
        });
        Ok((gone.collect(), seen == AT_ONCE))
    }

    /// An expired lease has no members in this channel any more.
    pub(super) async fn reaped(&self, expired: &str, channel: &str) -> Result<(), LinkError> {
        let key = self.list_key(expired);
        let mut remove = ::redis::cmd("SREM");
        remove.arg(&key).arg(channel);
        self.link.ask::<u64>(&key, remove).await.map(drop)
    }

    /// An expired lease has no members any more.
    pub(super) async fn bury(&self, expired: &str) -> Result<(), LinkError> {
        let key = self.link.keys.single("leases");
        let mut remove = ::redis::cmd("ZREM");
        remove.arg(&key).arg(expired);
        self.link.ask::<u64>(&key, remove).await?;
        let key = self.link.keys.single(&format!("reaper:{expired}"));
        let mut remove = ::redis::cmd("DEL");
        remove.arg(&key);
        self.link.ask::<u64>(&key, remove).await.map(drop)
    }

    fn keys(&self, channel: &ChannelName, lease: Lease) -> [String; 3] {
        self.keys_of(channel, &lease.to_string())
    }

    fn keys_of(&self, channel: &ChannelName, lease: &str) -> [String; 3] {
        let keys = &self.link.keys;
        let of_lease = keys.of_channel(&format!("members:{lease}"), channel);
        [keys.of_channel("members", channel), keys.of_channel("users", channel), of_lease]
    }

    /// The set of channels where a lease has members.
    fn list_key(&self, lease: &str) -> String {
        self.link.keys.single(&format!("channels:{lease}"))
    }
}

fn arguments(call: &mut Cmd, lease: Lease, place: &Place, how: &str) {
    call.arg(place.member.session.as_str())
        .arg(format!("{:016x}", lease.instance))
        .arg(lease.to_string())
        .arg(place.connection)
        .arg(place.member.user.as_ref().map_or("", |user| user.as_str()))
        .arg(how);
}

fn pair(answer: Result<Reply, LinkError>) -> Result<(u32, bool), LinkError> {
    let (occupancy, is_so): (u32, u8) = read(answer?)?;
    Ok((occupancy, is_so == 1))
}

/// `None`: no node of ours wrote that.
fn member(session: &str, user: &str) -> Option<Member> {
    let user = if user.is_empty() { None } else { Some(UserId::from_scoped(user).ok()?) };
    Some(Member { session: session.parse().ok()?, user })
}
