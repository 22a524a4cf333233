//! The sessions of one QUIC connection: where its streams and datagrams belong.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, oneshot};

use super::error_code::BUFFERED_STREAM_REJECTED;

/// Streams that came before the session that they name: packets overtake each other.
const EARLY_STREAMS: usize = 4;

/// Datagrams that wait for the session's reader. Full means that it reads too slowly: the newest are dropped.
const DATAGRAMS: usize = 16;

pub(super) type Bidirectional = (SendStream, RecvStream);

/// Where a session takes what belongs to it.
pub(super) struct Inlet {
    /// Gone with the first stream: further ones are refused.
    pub(super) control: Option<oneshot::Sender<Bidirectional>>,
    pub(super) datagrams: Arc<Datagrams>,
}

/// A session's datagrams on their way to its reader. A channel would have its room allocated, for the many sessions
/// that never get one too.
#[derive(Default)]
pub(super) struct Datagrams {
    waiting: Mutex<VecDeque<Bytes>>,
    came: Notify,
}

impl Datagrams {
    fn push(&self, datagram: Bytes) {
        let mut waiting = self.waiting();
        if waiting.len() < DATAGRAMS {
            waiting.push_back(datagram);
            self.came.notify_one();
        }
    }

    /// Waits without end where none comes any more. Cancel safe.
    pub(super) async fn pop(&self) -> Bytes {
        loop {
            if let Some(datagram) = self.waiting().pop_front() {
                return datagram;
            }
            self.came.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    live: HashMap<u64, Inlet>,
    early: Vec<(u64, Bidirectional)>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.table().live.len()
    }

    /// From here on the session gets its streams and datagrams, those that came early first.
    pub(super) fn register(&self, id: u64, mut inlet: Inlet) {
        let mut table = self.table();
        for (of, stream) in std::mem::take(&mut table.early) {
            if of == id {
                offer(&mut inlet, stream);
            } else {
                table.early.push((of, stream));
            }
        }
        table.live.insert(id, inlet);
    }

    /// The session is over, or was refused.
    pub(super) fn forget(&self, id: u64) {
        let mut table = self.table();
        table.live.remove(&id);
        table.early.retain(|(of, _)| *of != id);
    }

    pub(super) fn bidirectional(&self, id: u64, stream: Bidirectional) {
        let Table { live, early } = &mut *self.table();
        match live.get_mut(&id) {
            Some(inlet) => offer(inlet, stream),
            None if early.len() < EARLY_STREAMS => early.push((id, stream)),
            None => reject(stream, BUFFERED_STREAM_REJECTED),
        }
    }

    pub(super) fn datagram(&self, id: u64, payload: Bytes) {
        if let Some(inlet) = self.table().live.get(&id) {
            inlet.datagrams.push(payload);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole after every statement: a panic elsewhere can't have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offer(inlet: &mut Inlet, stream: Bidirectional) {
    match inlet.control.take() {
        // An error: the session ends, and the stream with it.
        Some(control) => drop(control.send(stream)),
        None => reject(stream, BUFFERED_STREAM_REJECTED),
    }
}

/// Resets one way and stops the other. (Chromium tells the page no code where both come; it needs none here.)
fn reject((mut send, mut receive): Bidirectional, code: VarInt) {
    // Errors: the stream is over already.
    let _ = send.reset(code);
    let _ = receive.stop(code);
}
