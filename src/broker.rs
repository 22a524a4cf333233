//! The broker carries publications between nodes. It may lose one and never decides order: a channel sees what is
//! missing by the offsets, and reads it from the log.

use std::sync::Arc;

use futures_util::future::{self, BoxFuture};
use xpush_protocol::{ChannelName, Epoch};

use crate::{channel::Channels, publication::Publication};

/// Carries publications to every node with subscribers, this one included.
pub trait Broker: Send + Sync + 'static {
    /// Sends a publication that the log has. Never fails as far as the publisher is concerned: what is lost here
    /// is found by its offset.
    fn publish(&self, carried: Carried) -> BoxFuture<'_, ()>;
}

/// A publication on its way to the nodes.
#[derive(Debug, Clone)]
pub struct Carried {
    pub channel: ChannelName,
    pub epoch: Epoch,
    pub publication: Arc<Publication>,
}

/// One node alone: hands each publication straight to its own channels.
pub struct InProcess {
    channels: Arc<Channels>,
}

impl InProcess {
    #[must_use]
    pub fn new(channels: Arc<Channels>) -> Self {
        Self { channels }
    }
}

impl Broker for InProcess {
    fn publish(&self, carried: Carried) -> BoxFuture<'_, ()> {
        self.channels.deliver(&carried.channel, carried.epoch, &carried.publication);
        Box::pin(future::ready(()))
    }
}
