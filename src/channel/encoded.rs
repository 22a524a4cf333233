//! A frame for many: encoded once for each codec that somebody reads, then shared as bytes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xpush_protocol::{ChannelName, Codec, Epoch, Message, ServerFrame};

use crate::publication::Publication;

/// A frame that many connections will write.
pub struct Encoded {
    source: Source,
    json: OnceLock<Bytes>,
    messagepack: OnceLock<Bytes>,
}

enum Source {
    Publication(ChannelName, Option<Epoch>, Arc<Publication>),
    Frame(ServerFrame),
}

impl Encoded {
    #[must_use]
    pub fn new(frame: &ServerFrame) -> Self {
        Self::from_source(Source::Frame(frame.clone()))
    }

    /// `epoch`: `None` where the subscribers know it already.
    #[must_use]
    pub fn publication(channel: ChannelName, epoch: Option<Epoch>, publication: Arc<Publication>) -> Self {
        Self::from_source(Source::Publication(channel, epoch, publication))
    }

    fn from_source(source: Source) -> Self {
        Self { source, json: OnceLock::new(), messagepack: OnceLock::new() }
    }

    /// What is left of it once its message is deleted.
    #[must_use]
    pub(super) fn redacted(&self) -> Option<Self> {
        match &self.source {
            Source::Publication(channel, epoch, publication) => {
                Some(Self::publication(channel.clone(), *epoch, Arc::new(publication.redacted())))
            }
            Source::Frame(_) => None,
        }
    }

    /// Bytes of the payload.
    pub(super) fn payload_len(&self) -> usize {
        match &self.source {
            Source::Publication(_, _, publication) => publication.payload.len(),
            Source::Frame(_) => 0,
        }
    }

    /// The private message, if it is one.
    #[must_use]
    pub fn message(&self) -> Option<Message> {
        match &self.source {
            Source::Frame(ServerFrame::Message(message)) => Some(message.clone()),
            Source::Frame(_) | Source::Publication(..) => None,
        }
    }

    /// The frame in this codec; the first caller pays for it.
    #[must_use]
    pub fn bytes(&self, codec: Codec) -> Bytes {
        let cell = match codec {
            Codec::Json => &self.json,
            Codec::MessagePack => &self.messagepack,
        };
        cell.get_or_init(|| match &self.source {
            Source::Frame(frame) => codec.encode(frame),
            Source::Publication(channel, epoch, publication) => {
                codec.encode(&ServerFrame::Publication(publication.to_frame(channel, *epoch)))
            }
        })
        .clone()
    }
}
