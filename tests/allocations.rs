//! What the hot paths take from the allocator, beside what they are known to take. A message's way is so short that one
//! more allocation is a good part of what it costs, and no test of what is delivered would notice it.
//!
//! A count is the same however busy the machine is, so any machine can check it. The counts are the whole process's: this
//! is a program with one test, beside which nothing runs but the threads of the log.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod harness;

use std::hint::black_box;

use dhat::{HeapStats, Profiler};
use harness::{Listener, TestNode, channel, draft};
use tokio::runtime::{Builder, Runtime};
use xpush::{
    log::{Embedded, KeepByNamespace, Log as _},
    publication::Draft,
};
use xpush_protocol::{ChannelName, ClientFrame, Codec, Publish, ServerFrame};
use xpush_transports::memory;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What each operation takes. A piece of memory that is made larger counts once more, with its new size.
const KNOWN: [(&str, Taken); 11] = [
    ("Json: write a publish", taken(1.0, 235.0)),
    ("Json: read a publish", taken(6.0, 376.0)),
    ("Json: write a publication", taken(1.0, 277.0)),
    ("Json: read a publication", taken(7.0, 400.0)),
    ("MessagePack: write a publish", taken(3.0, 453.0)),
    ("MessagePack: read a publish", taken(8.0, 760.0)),
    ("MessagePack: write a publication", taken(3.0, 484.0)),
    ("MessagePack: read a publication", taken(9.0, 784.0)),
    ("publish to 1", taken(5.0, 1059.2)),
    ("publish to 100", taken(5.0, 1059.2)),
    (APPEND, taken(10.2, 2528.0)),
];

/// So many allocations: less than any that each operation makes, and more than what comes of a table that had to grow for
/// one operation of many.
const TOLERANCE: f64 = 0.5;
/// A part of the bytes, which are the same each time.
const TOLERANCE_OF_BYTES: f64 = 0.1;
/// Those of an append differ with the heights that the log's skip lists draw, and with how the writer splits a batch: on a
/// busy machine in smaller ones. What is copied once more shows in the count.
const TOLERANCE_OF_APPENDED_BYTES: f64 = 0.4;
const APPEND: &str = "append to the embedded log";

/// The mean of so many publishes counts, once as many have made what is made only once.
const PUBLISHES: u64 = 256;
/// Appends that wait for one sync.
const APPENDS: u64 = 512;
/// What the least of so many batches took counts: one that the writer split in two commits has taken more.
const BATCHES: u64 = 8;

/// What one operation takes.
#[derive(Debug, Clone, Copy)]
struct Taken {
    allocations: f64,
    bytes: f64,
}

const fn taken(allocations: f64, bytes: f64) -> Taken {
    Taken { allocations, bytes }
}

#[test]
fn the_hot_paths_take_what_they_are_known_to_take() {
    let places = concat!(env!("CARGO_TARGET_TMPDIR"), "/allocations.json");
    let _counting = Profiler::builder().testing().file_name(places).build();
    let mut measured = Vec::new();
    measured.extend(codec(Codec::Json));
    measured.extend(codec(Codec::MessagePack));
    measured.extend([1, 100].map(|subscribers| (format!("publish to {subscribers}"), fan_out(subscribers))));
    measured.push((APPEND.into(), append()));

    assert_eq!(measured.len(), KNOWN.len(), "each line of `KNOWN` is measured");
    let differences: Vec<_> = measured.iter().filter_map(|(what, taken)| difference(what, *taken)).collect();
    // If it fails, it writes the file, and says so.
    dhat::assert!(
        differences.is_empty(),
        "these take other than they are known to take:\n{}\n\
         The file that is named above, opened with DHAT's viewer, says where allocations are made.\n\
         If it is meant, put the lines in parentheses into `KNOWN` of tests/allocations.rs, and the reason into the \
         commit.",
        differences.concat()
    );
}

/// What there is to tell of an operation that takes more than it is known to take; or less, since what was gained and is
/// not written down can be lost again unseen.
fn difference(what: &str, now: Taken) -> Option<String> {
    let (_, known) = KNOWN.iter().find(|(known, _)| *known == what).expect("`KNOWN` has a line for it");
    let of_bytes = if what == APPEND { TOLERANCE_OF_APPENDED_BYTES } else { TOLERANCE_OF_BYTES };
    let same = (now.allocations - known.allocations).abs() < TOLERANCE
        && (now.bytes - known.bytes).abs() <= known.bytes * of_bytes;
    (!same).then(|| {
        format!(
            "  {what}: from {:.1} to {:.1} allocations, from {:.0} to {:.0} bytes\n    \
             ({what:?}, taken({:.1}, {:.1})),\n",
            known.allocations, now.allocations, known.bytes, now.bytes, now.allocations, now.bytes
        )
    })
}

/// What `work`, which does so many operations, takes for each.
fn measure<T>(operations: u64, work: impl FnOnce() -> T) -> Taken {
    let before = HeapStats::get();
    black_box(work());
    let after = HeapStats::get();
    let mean = |before, after| (after - before) as f64 / operations as f64;
    taken(mean(before.total_blocks, after.total_blocks), mean(before.total_bytes, after.total_bytes))
}

/// The least of some: the heap is the process's, and the thread that started this test may still be at it.
fn measure_one<T>(work: impl Fn() -> T) -> Taken {
    let taken = (0..3).map(|_| measure(1, &work));
    taken.min_by(|a, b| a.allocations.total_cmp(&b.allocations)).unwrap()
}

/// The two frames that are on every message's way, written and read.
fn codec(codec: Codec) -> [(String, Taken); 4] {
    let (publish, publication) = (publish(), publication());
    let (publish_bytes, publication_bytes) = (codec.encode(&publish), codec.encode(&publication));
    [
        ("write a publish", measure_one(|| codec.encode(&publish))),
        ("read a publish", measure_one(|| codec.decode_command(&publish_bytes).unwrap())),
        ("write a publication", measure_one(|| codec.encode(&publication))),
        ("read a publication", measure_one(|| codec.decode::<ServerFrame>(&publication_bytes).unwrap())),
    ]
    .map(|(what, taken)| (format!("{codec:?}: {what}"), taken))
}

/// A publication from its publish until every subscriber has it.
fn fan_out(subscribers: usize) -> Taken {
    let runtime = runtime();
    let node = runtime.block_on(async { TestNode::in_memory() });
    let mut listeners: Vec<_> =
        (0..subscribers).map(|_| runtime.block_on(node.listener(lobby().as_str()))).collect();
    runtime.block_on(publish_all(&node, &mut listeners, drafts(0, PUBLISHES)));
    let drafts = drafts(1, PUBLISHES);
    measure(PUBLISHES, || runtime.block_on(publish_all(&node, &mut listeners, drafts)))
}

async fn publish_all(node: &TestNode, listeners: &mut [Listener<memory::Connection>], drafts: Vec<Draft>) {
    let lobby = lobby();
    for draft in drafts {
        node.node.publish(&lobby, draft).await.unwrap().await.unwrap();
        for listener in &mut *listeners {
            listener.frame().await;
        }
    }
}

/// An append that shares its sync with many others.
fn append() -> Taken {
    let directory = tempfile::tempdir().unwrap();
    let log = Embedded::open(directory.path(), KeepByNamespace::new()).unwrap();
    let runtime = runtime();
    let batches = (0..BATCHES).map(|batch| {
        let drafts = drafts(batch, APPENDS);
        measure(APPENDS, || runtime.block_on(append_all(&log, drafts)))
    });
    let least = |a: Taken, b: Taken| taken(a.allocations.min(b.allocations), a.bytes.min(b.bytes));
    batches.reduce(least).expect("there are some")
}

async fn append_all(log: &Embedded, drafts: Vec<Draft>) {
    let lobby = lobby();
    let mut pending = Vec::with_capacity(drafts.len());
    for draft in drafts {
        pending.push(log.append(&lobby, draft).await.unwrap());
    }
    for appended in pending {
        appended.await.unwrap();
    }
}

/// All is done by one thread, in one order; and its time stands still, so what is done every so often is not done while
/// something else is counted.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn lobby() -> ChannelName {
    channel("room:lobby")
}

fn publish() -> ClientFrame {
    let Draft { message_id, event, payload, .. } = numbered(0);
    let (data, binary) = payload.into_fields();
    ClientFrame::Publish(Publish {
        id: 7,
        channel: lobby(),
        message_id: Some(message_id),
        event,
        data,
        binary,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    })
}

fn publication() -> ServerFrame {
    ServerFrame::Publication(numbered(0).into_publication(7).to_frame(&lobby(), None))
}

/// Messages of their own, for each batch.
fn drafts(batch: u64, count: u64) -> Vec<Draft> {
    (batch * count..).take(count as usize).map(numbered).collect()
}

fn numbered(n: u64) -> Draft {
    // As long as a random one, whatever the number.
    draft(format!("{n:022}").parse().unwrap())
}
