//! How a courier writes in the writing side's stead.

use std::sync::{Arc, MutexGuard};

use xpush_transports::Outgoing;

use super::{Outbox, Queue, ring};
use crate::session::courier::Carrier;

/// What a courier has to do with an outbox.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    #[default]
    Not,
    /// One will come by.
    Called,
    /// One is writing: nothing may overtake it.
    Now,
}

impl Outbox {
    /// This wire can be written to by a courier.
    pub(in crate::session) fn carried_by(&self, carrier: Carrier) {
        let _ = self.carrier.set(carrier);
    }

    /// There is something to write, and nothing else to do: a courier can.
    pub(super) fn call(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        match (queue.carried, self.carrier.get()) {
            // Where it does not wait, the writing side looks by itself.
            (Carried::Not, Some(carrier)) if queue.writer.is_some() => {
                queue.carried = Carried::Called;
                drop(queue);
                carrier.call(Arc::clone(self));
            }
            (Carried::Called, _) => {}
            (Carried::Now, _) => queue.rung = true,
            (Carried::Not, _) => ring(queue),
        }
    }

    /// What a courier does who comes by: it writes what waits, if the writing side does not. `frames` is empty, and is
    /// again. Gives how many publications that were, for the metrics.
    pub(in crate::session) fn carry(self: &Arc<Self>, frames: &mut Vec<Outgoing>) -> u64 {
        let Some(carrier) = self.carrier.get() else { return 0 };
        let mut queue = self.queue();
        queue.carried = Carried::Not;
        if queue.writer.is_none() {
            return 0;
        }
        queue.take_all(self.codec, frames);
        // Which of them has to be read from the log was found only now.
        queue.rung |= queue.deliveries.are_behind();
        queue.let_go();
        let delivered = std::mem::take(&mut queue.delivered);
        if frames.is_empty() {
            // The writing side was here meanwhile.
            if queue.rung {
                ring(queue);
            }
            return delivered;
        }
        queue.carried = Carried::Now;
        drop(queue);
        let mut carrying = Carrying { outbox: self, frames, written: false };
        carrying.written = carrier.wire().try_write(carrying.frames);
        delivered
    }

    /// The courier that was called does not come.
    pub(in crate::session) fn not_carried(&self) {
        let mut queue = self.queue();
        queue.carried = Carried::Not;
        ring(queue);
    }
}

/// A courier is writing. Whether it can or panics, the writing side has its turn afterwards.
struct Carrying<'a> {
    outbox: &'a Arc<Outbox>,
    frames: &'a mut Vec<Outgoing>,
    /// The wire took all of it.
    written: bool,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let mut queue = self.outbox.queue();
        queue.carried = Carried::Not;
        if !self.written {
            queue.left = Some(std::mem::take(self.frames));
        }
        if !self.written || queue.rung {
            ring(queue);
        } else if queue.deliveries.are_taking() {
            // There was more than one write bears.
            self.outbox.call(queue);
        }
    }
}
