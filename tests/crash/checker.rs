//! Compares what a server acknowledged with what it has.
//!
//! It knows nothing of logs or wires: acknowledgements go in, channels as they are read go in, and what doesn't
//! fit comes out in words. A test of a whole server uses it as the test of the log does.

use std::collections::{HashMap, HashSet};

/// Which message: the publisher numbers its messages 1, 2, 3, over all its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    pub(crate) number: u64,
}

impl Message {
    /// A message id that says which it is.
    pub(crate) fn id(self) -> String {
        format!("{}.{}", self.publisher, self.number)
    }

    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (publisher, number) = id.split_once('.')?;
        Some(Self { publisher: publisher.parse().ok()?, number: number.parse().ok()? })
    }
}

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Checker {
    by_channel: HashMap<String, HashMap<u64, Message>>,
    acknowledged: HashMap<usize, u64>,
}

impl Checker {
    /// Takes an acknowledgement. Two messages must not have one place, and a publisher's come in its order.
    pub(crate) fn acknowledge(&mut self, channel: &str, offset: u64, message: Message) -> Result<(), String> {
        let last = self.acknowledged.insert(message.publisher, message.number).unwrap_or(0);
        if message.number != last + 1 {
            return Err(format!("{message:?} is acknowledged after {last}"));
        }
        let places = self.by_channel.entry(channel.to_owned()).or_default();
        match places.insert(offset, message) {
            Some(other) => Err(format!("{channel} has {message:?} and {other:?} at {offset}")),
            None => Ok(()),
        }
    }

    /// The number of the last message of this publisher that was acknowledged.
    pub(crate) fn last(&self, publisher: usize) -> u64 {
        self.acknowledged.get(&publisher).copied().unwrap_or(0)
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = &str> {
        self.by_channel.keys().map(String::as_str)
    }

    /// How many were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.by_channel.values().map(HashMap::len).sum()
    }

    /// Holds a whole channel, read from its first offset, against what was acknowledged: every acknowledged
    /// message is there, at its place, once; a publisher's messages are in its order; there is no hole.
    pub(crate) fn check(&self, channel: &str, read: &[(u64, Message)]) -> Result<(), String> {
        let mut last = HashMap::new();
        let mut seen = HashSet::new();
        for ((offset, message), expected) in read.iter().zip(1..) {
            if *offset != expected {
                return Err(format!("{channel} has {offset} where {expected} should be"));
            }
            if !seen.insert(*message) {
                return Err(format!("{channel} has {message:?} twice, again at {offset}"));
            }
            if let Some(before) = last.insert(message.publisher, message.number)
                && before > message.number
            {
                return Err(format!("{channel} has {message:?} behind number {before}"));
            }
        }
        let empty = HashMap::new();
        for (offset, message) in self.by_channel.get(channel).unwrap_or(&empty) {
            match read.get(*offset as usize - 1) {
                Some((_, found)) if found == message => {}
                Some((_, found)) => {
                    return Err(format!(
                        "{channel} has {found:?} at {offset}, where {message:?} was acknowledged"
                    ));
                }
                None => {
                    return Err(format!(
                        "{channel} lost {message:?}, acknowledged at {offset}; it has {}",
                        read.len()
                    ));
                }
            }
        }
        Ok(())
    }
}
