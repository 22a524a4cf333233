//! The promises of a cluster, held against what clients did and saw while nodes and servers were killed, stopped, cut
//! off and drained.
//!
//! `history` takes note of everything, `checker` judges it, `planted` proves that the checker would find a fault.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod balancer;
mod checker;
mod client;
mod directory;
mod faults;
mod flood;
mod growth;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod kills;
mod latency;
mod load;
mod measure;
mod messages;
mod nodes;
mod planted;
mod polls;
mod random;
mod revoke;
mod routing;
mod run;
mod stand_in;

use mimalloc::MiMalloc;

/// As in the program: the clients share the machine with the nodes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
