//! Webhooks: an application's own server is asked before something happens, or told after it did, so that an
//! application can have rules and workflows of its own without being on the messages' way.
//!
//! `policy` is what an app says of its webhooks, `table` who has some. `before` asks. What is told after is in an
//! `outbox`, or behind a `mark` in a channel's log; `line` tells it in order, `due` says which line is next, `run` does
//! all that while the node lives. `network` says which addresses may be called and finds them, `dial` calls them.
//!
//! Invariant: only `dial` knows HTTP. All else compiles without it.

mod before;
pub mod call;
#[cfg(feature = "server")]
pub mod dial;
mod due;
mod line;
mod mark;
pub mod network;
mod notice;
mod outbox;
mod policy;
mod run;
mod sign;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use xpush_protocol::SessionId;

use call::Nobody;
pub use call::{Answer, Call, CallError, Dial, Target, TargetError};
use due::Due;
use mark::Marks;
pub use outbox::DeadLetter;
pub use policy::{HookEvent, HookSecret, MAX_WEBHOOKS, OnFailure, Webhook, accept, shown};
pub use sign::signature;
pub use table::Table;

use crate::session::now;

/// What a node asks and tells.
pub struct Webhooks {
    table: Arc<Table>,
    /// Set once, by who has a client to call with.
    dial: OnceLock<Arc<dyn Dial>>,
    marks: Marks,
    due: Due,
    /// An app's policy changed.
    changed: Notify,
    /// Of this process, as lines know who tells them.
    instance: String,
    clock: fn() -> u64,
}

impl Webhooks {
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            dial: OnceLock::new(),
            marks: Marks::default(),
            due: Due::default(),
            changed: Notify::new(),
            instance: SessionId::random().to_string(),
            clock: now,
        }
    }

    /// Calls by this. The first one stays.
    pub fn dial_by(&self, dial: Arc<dyn Dial>) {
        let _ = self.dial.set(dial);
    }

    /// Whether any app has a webhook.
    pub(crate) fn are_some(&self) -> bool {
        !self.table.is_empty()
    }

    fn dial(&self) -> &dyn Dial {
        self.dial.get().map_or(&Nobody, |dial| &**dial)
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        (self.clock)()
    }
}
