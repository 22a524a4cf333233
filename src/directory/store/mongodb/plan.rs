//! A commit as one write for each key that it names.

use std::{
    collections::{BTreeMap, btree_map::Entry as Place},
    ops::Deref,
    time::SystemTime,
};

use ::mongodb::bson::Document;
use bytes::Bytes;

use super::{
    super::{Commit, Entry, Key},
    record,
};

/// In the order of the keys, so that two transactions meet at the first that they share.
pub(super) struct Plan(Vec<Step>);

/// What happens to one key.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) key: Key,
    expected: Expected,
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    Absent,
    Version(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// It stays as it is.
    None,
    Put {
        value: Bytes,
        expires: Option<SystemTime>,
    },
    Delete,
}

pub(super) enum Write {
    /// Of one document, or of none where the filter finds it otherwise. An upsert whose filter does not find what is
    /// there is a duplicate key.
    Update {
        filter: Document,
        update: Document,
        upsert: bool,
    },
    Delete {
        filter: Document,
    },
}

impl Plan {
    /// None if the commit expects two things of one key.
    pub(super) fn of(commit: Commit) -> Option<Self> {
        let mut steps = BTreeMap::new();
        for (key, version) in commit.expects {
            let expected = version.map_or(Expected::Absent, Expected::Version);
            match steps.entry(key) {
                Place::Vacant(place) => {
                    place.insert((expected, Effect::None));
                }
                Place::Occupied(known) if known.get().0 == expected => {}
                Place::Occupied(_) => return None,
            }
        }
        for write in commit.writes {
            let step = steps.entry(write.key).or_insert((Expected::Anything, Effect::None));
            step.1 = match write.value {
                Some(value) => Effect::Put { value, expires: write.expires },
                None => Effect::Delete,
            };
        }
        let step = |(key, (expected, effect))| Step { key, expected, effect };
        Some(Self(steps.into_iter().map(step).collect()))
    }
}

impl Deref for Plan {
    type Target = Vec<Step>;

    fn deref(&self) -> &Vec<Step> {
        &self.0
    }
}

impl Step {
    /// What it takes in a command, roughly.
    pub(super) fn bytes(&self) -> usize {
        /// The names of fields and what they say beside the key and the value.
        const REST: usize = 200;
        let value = if let Effect::Put { value, .. } = &self.effect { value.len() } else { 0 };
        REST + self.key.as_str().len() + value
    }

    /// Whether nothing becomes another.
    pub(super) fn is_check(&self) -> bool {
        match self.effect {
            Effect::None => true,
            Effect::Delete => self.expected == Expected::Absent,
            Effect::Put { .. } => false,
        }
    }

    pub(super) fn is_conditional(&self) -> bool {
        self.expected != Expected::Anything
    }

    pub(super) fn expects(&self, found: Option<&Entry>) -> bool {
        match self.expected {
            Expected::Anything => true,
            Expected::Absent => found.is_none(),
            Expected::Version(version) => found.is_some_and(|entry| entry.version == version),
        }
    }

    /// One write that another transaction of the same key meets, also where nothing becomes another.
    pub(super) fn write(&self, now: SystemTime) -> Write {
        let key = &self.key;
        let (filter, upsert) = match self.expected {
            Expected::Anything => (record::at(key), true),
            Expected::Absent => (record::expired(key, now), true),
            Expected::Version(version) => (record::at_version(key, version, now), false),
        };
        match (&self.effect, self.expected) {
            (Effect::Put { value, expires }, _) => {
                Write::Update { filter, update: record::encode(value, *expires), upsert }
            }
            (_, Expected::Absent) => Write::Update { filter, update: record::absence(), upsert },
            (Effect::Delete, _) => Write::Delete { filter },
            // What is not expected either is in no commit.
            (Effect::None, _) => Write::Update { filter, update: record::guard(), upsert: false },
        }
    }
}
