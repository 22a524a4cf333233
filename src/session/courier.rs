//! Couriers carry what waits in outboxes to the wires, one after the other. A publication to a thousand sessions would
//! wake a thousand tasks, each of which takes one frame and writes it; and to wake one and have it look at all that it
//! holds costs as much as the rest of the delivery.
//!
//! A courier never waits. What a wire does not take at once, and all that is more than to write, is left to the
//! session's own task.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::available_parallelism,
};

use tokio::task::yield_now;
use tokio_util::task::TaskTracker;
use xpush_transports::{Outgoing, TryWrite};

use super::Outbox;
use crate::metrics::Metrics;

/// Outboxes that a courier looks at before it lets other tasks have their turn. Where the wire is encrypted, each mostly
/// takes two of the 128 steps that tokio gives a task at once; a wire for which none is left looks full.
const ROUND: usize = 64;

/// Room that a courier keeps while nobody waits, for outboxes and for frames.
const IDLE_ROOM: usize = 1024;

/// All couriers of a node, as many as there are cores. Each is sent when somebody calls it for the first time.
pub(crate) struct Couriers {
    lines: Box<[Arc<Line>]>,
    /// Sessions are spread over the lines as they come.
    next: AtomicUsize,
    tasks: TaskTracker,
}

/// Outboxes that have something for their wires, and wait for one courier. Each is in here once at most.
struct Line {
    waiting: Mutex<Waiting>,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Waiting {
    outboxes: VecDeque<Arc<Outbox>>,
    /// There is a courier.
    served: bool,
    /// It waits for somebody to call.
    courier: Option<Waker>,
    /// It goes when nobody waits.
    closed: bool,
}

/// Whom an outbox calls, and how that one writes.
pub(super) struct Carrier {
    line: Arc<Line>,
    /// Gone with the session's writer.
    wire: Weak<dyn TryWrite>,
}

/// The outboxes that a courier has taken on.
struct Round {
    line: Arc<Line>,
    outboxes: VecDeque<Arc<Outbox>>,
    /// It has gone because nobody waits.
    is_over: bool,
}

impl Couriers {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        let tasks = TaskTracker::new();
        let line = || Line { waiting: Mutex::default(), tasks: tasks.clone(), metrics: Arc::clone(metrics) };
        let cores = available_parallelism().map_or(1, usize::from);
        let lines = (0..cores).map(|_| Arc::new(line())).collect();
        Self { lines, next: AtomicUsize::new(0), tasks }
    }

    /// For a session whose wire others can write to.
    pub(super) fn carrier(&self, wire: Weak<dyn TryWrite>) -> Carrier {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len();
        Carrier { line: Arc::clone(&self.lines[next]), wire }
    }

    /// Waits for all couriers, which go once nobody waits for them. There must be nobody left who calls one.
    pub(crate) async fn finish(&self) {
        self.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn close(&self) {
        self.lines.iter().for_each(|line| line.close());
    }
}

impl Drop for Couriers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Carrier {
    /// Has a courier come by this outbox, which is in no line.
    pub(super) fn call(&self, outbox: Arc<Outbox>) {
        let mut waiting = self.line.waiting();
        waiting.outboxes.push_back(outbox);
        let (served, courier) = (std::mem::replace(&mut waiting.served, true), waiting.courier.take());
        drop(waiting);
        match courier {
            Some(courier) => courier.wake(),
            None if served => {}
            None => {
                self.line.tasks.spawn(walk(Arc::clone(&self.line)));
            }
        }
    }

    pub(super) fn try_write(&self, frames: &mut Vec<Outgoing>) -> bool {
        self.wire.upgrade().is_some_and(|wire| wire.try_write(frames))
    }
}

/// A courier's life.
async fn walk(line: Arc<Line>) {
    let mut round = Round { line: Arc::clone(&line), outboxes: VecDeque::new(), is_over: false };
    let (mut frames, mut carried) = (Vec::new(), 0_usize);
    while poll_fn(|cx| line.poll_take_on(cx, &mut round.outboxes, &mut frames)).await {
        while let Some(outbox) = round.outboxes.pop_front() {
            line.metrics.delivered(outbox.carry(&mut frames));
            carried = carried.wrapping_add(1);
            if carried.is_multiple_of(ROUND) {
                yield_now().await;
            }
        }
    }
    round.is_over = true;
}

impl Line {
    /// Waits until somebody waits. `false`: nobody does, and nobody is to be waited for.
    fn poll_take_on(
        &self,
        cx: &mut Context<'_>,
        outboxes: &mut VecDeque<Arc<Outbox>>,
        frames: &mut Vec<Outgoing>,
    ) -> Poll<bool> {
        let mut waiting = self.waiting();
        if !waiting.outboxes.is_empty() {
            std::mem::swap(&mut waiting.outboxes, outboxes);
            return Poll::Ready(true);
        }
        if waiting.closed {
            waiting.served = false;
            return Poll::Ready(false);
        }
        waiting.outboxes.shrink_to(IDLE_ROOM);
        outboxes.shrink_to(IDLE_ROOM);
        frames.shrink_to(IDLE_ROOM);
        waiting.courier = Some(cx.waker().clone());
        Poll::Pending
    }

    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let courier = waiting.courier.take();
        drop(waiting);
        if let Some(courier) = courier {
            courier.wake();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Round {
    /// A courier goes when nobody waits; but for a panic, which is a bug of ours, and for a runtime that ends. Then those
    /// that wait write for themselves, and the next one that calls gets another courier.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let called = {
            let mut waiting = self.line.waiting();
            waiting.served = false;
            std::mem::take(&mut waiting.outboxes)
        };
        self.outboxes.drain(..).chain(called).for_each(|outbox| outbox.not_carried());
    }
}
