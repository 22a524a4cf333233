//! How a courier writes in the writing side's stead.

use std::{
    sync::{Arc, MutexGuard},
    thread::panicking,
};

use xpush_protocol::CloseCode;
use xpush_transports::{Farewell, Outgoing};

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
        // Before the lock: it is dropped after it, also in a panic.
        let mut carrying = Carrying { outbox: self, frames, written: true };
        let mut queue = self.queue();
        if queue.writer.is_none() {
            queue.carried = Carried::Not;
            return 0;
        }
        queue.carried = Carried::Now;
        queue.take_all(self.codec, carrying.frames);
        // To be read from the log, as only the writing side can; some of it was found only now.
        queue.rung |= queue.deliveries.need_the_log();
        queue.let_go();
        let delivered = std::mem::take(&mut queue.delivered);
        drop(queue);
        if !carrying.frames.is_empty() {
            carrying.written = carrier.try_write(carrying.frames);
        }
        delivered
    }

    /// The courier that was called does not come.
    pub(in crate::session) fn not_carried(&self) {
        let mut queue = self.queue();
        queue.carried = Carried::Not;
        ring(queue);
    }
}

/// A courier is at it. However that ends, the outbox is the writing side's again.
struct Carrying<'a> {
    outbox: &'a Arc<Outbox>,
    frames: &'a mut Vec<Outgoing>,
    /// The wire took all of it.
    written: bool,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let mut queue = self.outbox.queue();
        if queue.carried != Carried::Now {
            return;
        }
        queue.carried = Carried::Not;
        if panicking() {
            // Nobody knows what of it was written. Its client does, and comes back with its cursors.
            drop(queue);
            return self.outbox.close(Farewell::new(CloseCode::Internal, "a fault of the server's"));
        }
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
