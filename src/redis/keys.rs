//! What XPUSH's things are called in Redis. All keys of a channel, and its topic, share the hash tag `{channel}`, so
//! that one script may touch them in a Cluster too.

use xpush_protocol::ChannelName;

use super::LinkError;
use crate::broker::Topic;

/// Where nothing else is configured.
pub const DEFAULT_PREFIX: &str = "xpush";

pub(super) const PREFIX_LIMIT: usize = 64;

/// Names with the installation's prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys(String);

impl Keys {
    pub(super) fn new(prefix: &str) -> Result<Self, LinkError> {
        // A brace would begin another hash tag.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > PREFIX_LIMIT || !prefix.bytes().all(allowed) {
            return Err(LinkError::Prefix);
        }
        Ok(Self(prefix.to_owned()))
    }

    /// What is published on it reaches the nodes that listen to the topic.
    pub(crate) fn topic(&self, topic: &Topic) -> String {
        let prefix = &self.0;
        match topic {
            Topic::Channel(channel) => format!("{prefix}:on:{{{}}}", channel.as_str()),
            Topic::Session(session) => format!("{prefix}:session:{session}"),
            Topic::User(user) => format!("{prefix}:user:{}", user.as_str()),
            Topic::Node(node) => format!("{prefix}:node:{node}"),
        }
    }

    /// A thing of a channel.
    pub(crate) fn of_channel(&self, kind: &str, channel: &ChannelName) -> String {
        format!("{}:{kind}:{{{}}}", self.0, channel.as_str())
    }

    /// A thing of no channel.
    pub(crate) fn single(&self, kind: &str) -> String {
        format!("{}:{kind}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::UserId;

    use super::*;

    #[test]
    fn a_prefix_has_nothing_that_redis_reads_as_a_hash_tag() {
        assert!(Keys::new("eu-1:xpush").is_ok());
        for bad in ["", "a b", "{a}", "ü", &"a".repeat(65)] {
            assert_eq!(Keys::new(bad).unwrap_err(), LinkError::Prefix, "{bad}");
        }
    }

    #[test]
    fn the_things_of_a_channel_share_its_hash_tag() {
        let keys = Keys::new("x").unwrap();
        let channel: ChannelName = "room:a".parse().unwrap();
        assert_eq!(keys.of_channel("log", &channel), "x:log:{room:a}");
        assert_eq!(keys.topic(&Topic::Channel(channel)), "x:on:{room:a}");
    }

    #[test]
    fn the_same_name_in_two_apps_is_two_things() {
        let keys = Keys::new("x").unwrap();
        let (channel, user): (ChannelName, UserId) = ("room:a".parse().unwrap(), "ann".parse().unwrap());
        let shop = "shop".parse().unwrap();
        let (other, another) = (channel.within(&shop), user.within(&shop));
        assert_ne!(keys.of_channel("log", &channel), keys.of_channel("log", &other));
        assert_ne!(keys.topic(&Topic::Channel(channel)), keys.topic(&Topic::Channel(other)));
        assert_ne!(keys.topic(&Topic::User(user)), keys.topic(&Topic::User(another)));
    }
}
