//! Webhooks: an application's own server is asked before something happens, or told after it did, so that an
//! application can have rules and workflows of its own without being on the messages' way.
//!
//! `policy` is what an app says of its webhooks. `network` says which addresses may be called and finds them, `dial`
//! calls them.
//!
//! Invariant: only `dial` knows HTTP. All else compiles without it.

pub mod call;
#[cfg(feature = "server")]
pub mod dial;
pub mod network;
mod policy;

pub use call::{Answer, Call, CallError, Dial, Target, TargetError};
pub use policy::{HookEvent, HookSecret, MAX_WEBHOOKS, OnFailure, Webhook, accept, shown};
