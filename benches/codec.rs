//! What writing and reading a frame costs, in both codecs: those of every message, and those of every connection.

#[path = "../tests/harness/mod.rs"]
mod harness;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness::{channel, draft};
use serde::{Serialize, de::DeserializeOwned};
use xpush_protocol::{
    ClientFrame, Codec, Connect, Cursor, Epoch, MessageId, Publish, Published, Resubscribe, ServerFrame,
};

/// In the resume vector of `connect`.
const CHANNELS: usize = 10;

fn publish() -> ClientFrame {
    let draft = draft(MessageId::random());
    let (data, binary) = draft.payload.into_fields();
    let (channel, message_id) = (channel("room:lobby"), Some(draft.message_id));
    ClientFrame::Publish(Publish {
        id: 7,
        channel,
        message_id,
        event: draft.event,
        data,
        binary,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    })
}

fn publication() -> ServerFrame {
    let publication = draft(MessageId::random()).into_publication(1_000_000);
    ServerFrame::Publication(publication.to_frame(&channel("room:lobby"), None))
}

fn connect() -> ClientFrame {
    let subscriptions = (0..CHANNELS)
        .map(|n| Resubscribe { channel: channel(&format!("room:{n}")), cursor: Some(cursor()) })
        .collect();
    ClientFrame::Connect(Connect { id: 1, subscriptions, ..Connect::default() })
}

fn published() -> ServerFrame {
    ServerFrame::Published(Published { id: 7, cursor: cursor(), duplicate: false })
}

fn cursor() -> Cursor {
    Cursor { epoch: Epoch(1_530_822_917), offset: 1_000_000 }
}

fn write_and_read<F: Serialize + DeserializeOwned>(c: &mut Criterion, name: &str, frame: &F) {
    let mut group = c.benchmark_group(format!("codec/{name}"));
    for codec in [Codec::Json, Codec::MessagePack] {
        let bytes = codec.encode(frame);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("write {codec:?}"), |b| b.iter(|| codec.encode(frame)));
        group.bench_function(format!("read {codec:?}"), |b| {
            b.iter(|| codec.decode::<F>(&bytes).expect("a frame"));
        });
    }
}

fn frames(c: &mut Criterion) {
    write_and_read(c, "publish", &publish());
    write_and_read(c, "publication", &publication());
    write_and_read(c, "published", &published());
    write_and_read(c, "connect", &connect());
}

criterion_group!(benches, frames);
criterion_main!(benches);
