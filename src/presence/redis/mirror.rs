//! What this node's own sessions are in, whatever Redis knows: the answer while Redis is away, and what is put back
//! when it returns.

use std::collections::{BTreeMap, HashMap};

use xpush_protocol::{ChannelName, Member, SessionId};

use crate::presence::{LIST_LIMIT, List};

/// Leaves that Redis could not be told. Of more than these the sessions stay until this node's lease ends.
const OWED_CAPACITY: usize = 65_536;

/// The channels of this node's own sessions.
#[derive(Default)]
pub(super) struct Mirror {
    channels: HashMap<ChannelName, Here>,
    owed: Vec<Owed>,
    /// This node's lease; `None` before the first was had.
    pub(super) lease: Option<Lease>,
}

/// Every lease of an instance has a number of its own: what is taken out for an old one is not of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) instance: u64,
    pub(super) number: u64,
}

/// A session that left while Redis could not be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) channel: ChannelName,
    pub(super) member: Member,
    pub(super) connection: u64,
}

#[derive(Default)]
struct Here {
    sessions: BTreeMap<SessionId, Place>,
    /// The lease whose channels in Redis have this one among them.
    listed: Option<Lease>,
}

/// A session's place in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: Member,
    pub(super) connection: u64,
    /// Redis has had it.
    pub(super) is_told: bool,
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}.{}", self.instance, self.number)
    }
}

impl Mirror {
    /// Gives how many are here now, and whether the session is new here.
    pub(super) fn join(&mut self, channel: &ChannelName, member: Member, connection: u64) -> (u32, bool) {
        let here = self.channels.entry(channel.clone()).or_default();
        let session = member.session.clone();
        let new = here.sessions.insert(session, Place { member, connection, is_told: false }).is_none();
        (here.sessions.len() as u32, new)
    }

    /// Gives its place, and how many are left here. `None`: it is not here by this connection.
    pub(super) fn leave(
        &mut self,
        channel: &ChannelName,
        session: &SessionId,
        connection: u64,
    ) -> Option<(Place, u32)> {
        let here = self.channels.get_mut(channel)?;
        here.sessions.get(session).filter(|place| place.connection == connection)?;
        let place = here.sessions.remove(session)?;
        let left = here.sessions.len() as u32;
        if here.sessions.is_empty() && here.listed.is_none() {
            self.channels.remove(channel);
        }
        Some((place, left))
    }

    /// Redis has it. `false`: it left meanwhile.
    pub(super) fn told(&mut self, channel: &ChannelName, session: &SessionId, connection: u64) -> bool {
        let place = self.channels.get_mut(channel).and_then(|here| here.sessions.get_mut(session));
        match place.filter(|place| place.connection == connection) {
            Some(place) => {
                place.is_told = true;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_empty(&self, channel: &ChannelName) -> bool {
        self.channels.get(channel).is_none_or(|here| here.sessions.is_empty())
    }

    /// Whether the session is here, by whichever connection.
    pub(super) fn has(&self, channel: &ChannelName, session: &SessionId) -> bool {
        self.channels.get(channel).is_some_and(|here| here.sessions.contains_key(session))
    }

    pub(super) fn is_listed(&self, channel: &ChannelName) -> bool {
        self.lease.is_some() && self.channels.get(channel).is_some_and(|here| here.listed == self.lease)
    }

    pub(super) fn listed(&mut self, channel: &ChannelName, lease: Lease) {
        self.channels.entry(channel.clone()).or_default().listed = Some(lease);
    }

    /// Channels that are listed in Redis though nobody is in them any more: they are no longer taken for listed.
    pub(super) fn take_empty(&mut self) -> Vec<ChannelName> {
        self.channels.extract_if(|_, here| here.sessions.is_empty()).map(|(channel, _)| channel).collect()
    }

    pub(super) fn list(&self, channel: &ChannelName) -> List {
        let Some(here) = self.channels.get(channel) else { return List::default() };
        let mut users: Vec<_> =
            here.sessions.values().filter_map(|place| place.member.user.as_ref()).collect();
        users.sort();
        users.dedup();
        List {
            members: here.sessions.values().take(LIST_LIMIT).map(|place| place.member.clone()).collect(),
            sessions: here.sessions.len() as u32,
            users: users.len() as u32,
        }
    }

    /// What Redis is to be told: everything, or only what it was not told yet.
    pub(super) fn to_tell(&self, everything: bool) -> Vec<(ChannelName, Place)> {
        let mut places = Vec::new();
        for (channel, here) in &self.channels {
            let untold = here.sessions.values().filter(|place| everything || !place.is_told);
            places.extend(untold.map(|place| (channel.clone(), place.clone())));
        }
        places
    }

    /// `false`: too many are owed already.
    pub(super) fn owe(&mut self, owed: Owed) -> bool {
        let has_room = self.owed.len() < OWED_CAPACITY;
        if has_room {
            self.owed.push(owed);
        }
        has_room
    }

    pub(super) fn take_owed(&mut self) -> Vec<Owed> {
        std::mem::take(&mut self.owed)
    }
}
