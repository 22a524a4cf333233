//! A namespace is the part of a channel's name that says how its channels behave: what is kept, and whether one
//! may see who is there and what was said. The core asks here; where the answers come from is not its business.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, Namespace};

use crate::log::{Keep, KeepByNamespace};

/// Publications that a `recent` channel keeps where nothing else is said: some screens of a live feed.
pub const DEFAULT_RECENT_SIZE: usize = 256;

/// How long a `recent` channel keeps them: longer than a phone needs to find its network again.
pub const DEFAULT_RECENT_TTL: Duration = Duration::from_secs(5 * 60);

/// How the channels of a namespace behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub retention: Retention,
    /// Who is in a channel can be asked, and `join` and `leave` are told.
    pub presence: bool,
    /// Who may use its channels, beside whom a token grants it to.
    pub access: Access,
    /// Members see how far each other has read.
    pub receipts: bool,
    /// The log can be read page by page. Without it a client still gets what it missed.
    pub history: bool,
}

/// Who may use a channel without a grant in a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Nobody: tokens say all.
    #[default]
    Token,
    /// The user whose inbox it is, to read; only the server writes there.
    Inbox,
    /// The channel's members, each as its role says.
    Members,
    /// Every user of the app, but those who are banned.
    Public,
    /// Everybody, without a token too.
    Anonymous,
}

/// What is kept of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// Nothing: who is not there misses it.
    #[default]
    None,
    /// In memory: the last `size` publications that are not older than `ttl`.
    Recent { size: usize, ttl: Duration },
    /// In the durable log.
    Durable { keep: Keep },
}

/// The namespace of inboxes. It is there whatever the configuration says.
pub const INBOX: &str = "inbox";

/// What an inbox keeps: a client that was away for longer reads its list of channels anew.
const INBOX_KEPT: u64 = 1000;

impl Policy {
    /// What holds for inboxes.
    #[must_use]
    pub fn of_inboxes() -> Self {
        Self {
            retention: Retention::Durable { keep: Keep { count: Some(INBOX_KEPT), age: None } },
            presence: true,
            access: Access::Inbox,
            receipts: false,
            history: true,
        }
    }
}

impl Retention {
    /// Who is not there misses it, and a hole is not filled.
    #[must_use]
    pub fn is_ephemeral(self) -> bool {
        self == Self::None
    }
}

/// The namespaces that there are. A channel of another one can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces(HashMap<Namespace, Policy>);

impl Namespaces {
    #[must_use]
    pub fn get(&self, channel: &ChannelName) -> Option<&Policy> {
        self.0.get(channel.namespace())
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Namespace, &Policy)> {
        self.0.iter().collect::<BTreeMap<_, _>>().into_iter()
    }

    /// What the durable log is told to keep.
    #[must_use]
    pub fn keep(&self) -> KeepByNamespace {
        let keep = |(name, policy): (&Namespace, &Policy)| match policy.retention {
            Retention::Durable { keep } => Some((name.clone(), keep)),
            Retention::None | Retention::Recent { .. } => None,
        };
        self.0.iter().filter_map(keep).collect()
    }
}

impl FromIterator<(Namespace, Policy)> for Namespaces {
    fn from_iter<I: IntoIterator<Item = (Namespace, Policy)>>(policies: I) -> Self {
        Self(policies.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_the_policy_of_its_namespace() {
        let durable = Policy {
            retention: Retention::Durable { keep: Keep { count: Some(3), age: None } },
            presence: true,
            history: true,
            ..Policy::default()
        };
        let none = Policy::default();
        let namespaces: Namespaces =
            [("room".parse().unwrap(), durable), ("typing".parse().unwrap(), none)].into_iter().collect();
        assert_eq!(namespaces.get(&"room:a:b".parse().unwrap()), Some(&durable));
        assert_eq!(namespaces.get(&"typing:a".parse().unwrap()), Some(&none));
        assert_eq!(namespaces.get(&"other:a".parse().unwrap()), None);
        assert_eq!(
            namespaces.keep(),
            [("room".parse().unwrap(), Keep { count: Some(3), age: None })].into_iter().collect()
        );
    }
}
