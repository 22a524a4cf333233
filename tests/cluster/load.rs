//! The load that all runs on real nodes have, and what is asked of them beyond that nothing is broken.

use std::time::Duration;

use xpush::client::Via;
use xpush_protocol::Codec;

use crate::{client::Tamper, harness, run::Workload};

/// Asks for a full run, in which nodes are killed for so many seconds.
const FULL: &str = "XPUSH_TEST_CLUSTER_SECONDS";

/// Messages a second.
const FULL_RATE: f64 = 2000.0;
/// Of a short run, which a debug build has to carry beside other tests.
const SHORT_RATE: f64 = 500.0;
const SHORT_SECONDS: u64 = 60;

/// How long nodes are killed.
pub(crate) fn seconds() -> Duration {
    Duration::from_secs(full().unwrap_or(SHORT_SECONDS))
}

/// Whether times are held against what is promised of them: on a machine that does other things they say nothing.
pub(crate) fn is_timed() -> bool {
    full().is_some()
}

fn full() -> Option<u64> {
    let text = std::env::var(FULL).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{FULL} is {text:?}, which is no number of seconds")))
}

/// 500 clients on mixed wires, 200 channels.
pub(crate) fn workload(seed: u64) -> Workload {
    println!("seed {seed}");
    let wires = [
        (Via::Websocket, Codec::MessagePack),
        (Via::Quic, Codec::MessagePack),
        (Via::Websocket, Codec::Json),
        (Via::Webtransport, Codec::Json),
        (Via::Websocket, Codec::MessagePack),
        (Via::Longpoll, Codec::Json),
        (Via::Quic, Codec::Json),
        (Via::Webtransport, Codec::MessagePack),
    ];
    Workload {
        seed,
        rooms: 180,
        lives: 20,
        clients: 500,
        listens: 2,
        rate: if is_timed() { FULL_RATE } else { SHORT_RATE },
        payload: 100,
        // What is silent for as long on a machine that does other things may only be busy.
        dead_after: if is_timed() { Duration::from_millis(600) } else { Duration::from_secs(4) },
        wires: wires.to_vec(),
        losing_rights: 50,
        tamper: Tamper::None,
        settle: Duration::from_secs(60),
        token: harness::token_to_listen,
    }
}
