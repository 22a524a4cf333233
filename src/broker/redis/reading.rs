//! What comes in. It waits in a bounded queue between the connection, which must not wait, and the task that hands it
//! to the node; what does not fit is lost, and every channel doubts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use xpush_protocol::ChannelName;

use super::publishing::Publishing;
use crate::{
    broker::{Carried, Inbox},
    redis::Envelope,
};

/// Messages that may wait.
const QUEUE_CAPACITY: usize = 16_384;
/// Bytes of them.
const QUEUE_BYTES: usize = 32 << 20;
/// Answers that wait to be published; of more than these, whoever asked hears of fewer sessions than there were.
const ANSWERS_CAPACITY: usize = 4096;
/// Answers that are published together.
const ANSWERS_AT_ONCE: usize = 64;

/// Between a connection and the node.
pub(super) struct Queue {
    sender: mpsc::Sender<Incoming>,
    bytes: Arc<AtomicUsize>,
    inbox: Arc<Inbox>,
}

pub(super) struct Incoming {
    topic: Vec<u8>,
    body: Vec<u8>,
}

/// Hands what waits to the node.
pub(super) struct Reading {
    pub(super) instance: u64,
    inbox: Arc<Inbox>,
    incoming: mpsc::Receiver<Incoming>,
    bytes: Arc<AtomicUsize>,
    answers: mpsc::Sender<Carried>,
}

/// Publishes what the node answers.
pub(super) struct Answering {
    answers: mpsc::Receiver<Carried>,
}

pub(super) fn queue(inbox: &Arc<Inbox>, instance: u64) -> (Queue, Reading, Answering) {
    let (sender, incoming) = mpsc::channel(QUEUE_CAPACITY);
    let (answers, answered) = mpsc::channel(ANSWERS_CAPACITY);
    let bytes = Arc::new(AtomicUsize::new(0));
    let queue = Queue { sender, bytes: Arc::clone(&bytes), inbox: Arc::clone(inbox) };
    let reading = Reading { instance, inbox: Arc::clone(inbox), incoming, bytes, answers };
    (queue, reading, Answering { answers: answered })
}

impl Queue {
    /// Never waits.
    pub(super) fn push(&self, topic: Vec<u8>, body: Vec<u8>) {
        let size = topic.len() + body.len();
        let waiting = self.bytes.fetch_add(size, Ordering::Relaxed);
        if waiting + size > QUEUE_BYTES || self.sender.try_send(Incoming { topic, body }).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            // Each that is lost says so: the channels are looked at after the last of them.
            self.inbox.doubt();
        }
    }
}

impl Reading {
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let incoming = tokio::select! {
                incoming = self.incoming.recv() => incoming,
                () = cancel.cancelled() => return,
            };
            let Some(Incoming { topic, body }) = incoming else { return };
            self.bytes.fetch_sub(topic.len() + body.len(), Ordering::Relaxed);
            let Some(carried) = self.understand(&topic, &body) else { continue };
            for answer in self.inbox.receive(carried) {
                if self.answers.try_send(answer).is_err() {
                    warn!("too many answers to other nodes wait; one is dropped");
                }
            }
        }
    }

    /// What another node said, and one thing of our own: a publication that our log was not told it has. Whoever waits
    /// for the answer delivers it; if there was none, the channel learns here that it misses something.
    fn understand(&self, topic: &[u8], body: &[u8]) -> Option<Carried> {
        let envelope = Envelope::open(body);
        let Some(envelope) = envelope else {
            debug!(topic = %String::from_utf8_lossy(topic), "not ours");
            return None;
        };
        if envelope.origin != self.instance {
            return envelope.carried();
        }
        let cursor = envelope.place?;
        let topic = std::str::from_utf8(topic).ok()?;
        let (_, channel) = topic.strip_suffix('}')?.split_once('{')?;
        Some(Carried::Top { channel: ChannelName::from_scoped(channel).ok()?, cursor })
    }
}

impl Answering {
    pub(super) async fn run(mut self, publishing: Arc<Publishing>, cancel: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = self.answers.recv_many(&mut batch, ANSWERS_AT_ONCE) => {}
                () = cancel.cancelled() => return,
            }
            if batch.is_empty() {
                return;
            }
            join_all(batch.iter().map(|answer| publishing.publish(answer))).await;
            batch.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_doubted(inbox: &Inbox) -> bool {
        tokio::time::timeout(Duration::ZERO, inbox.doubted()).await.is_ok()
    }

    #[tokio::test]
    async fn what_does_not_fit_is_lost_and_doubted() {
        let inbox = Arc::new(Inbox::new("a".parse().unwrap()));
        let (queue, mut reading, _answering) = queue(&inbox, 1);
        for _ in 0..QUEUE_CAPACITY {
            queue.push(Vec::new(), Vec::new());
        }
        assert!(!is_doubted(&inbox).await);
        queue.push(Vec::new(), Vec::new());
        assert!(is_doubted(&inbox).await);

        while reading.incoming.try_recv().is_ok() {}
        queue.push(Vec::new(), vec![0; QUEUE_BYTES]);
        assert!(!is_doubted(&inbox).await);
        queue.push(Vec::new(), vec![0]);
        assert!(is_doubted(&inbox).await);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), QUEUE_BYTES);
    }
}
