//! Which stream carries which lane. Streams are opened when they are first needed and live as long as the
//! connection; channels share them, so that a lost packet delays a quarter of the channels and not all of them.

use bytes::Bytes;
use quinn::{SendStream, VarInt, WriteError};

use super::{
    datagram::Packer,
    frames::Batch,
    halves::{Link, Shared},
};
use crate::{Closed, Lane, Outgoing};

/// Streams that carry publications as they are made.
pub(crate) const LIVE_STREAMS: usize = 4;

/// The streams that the server writes, by their place in `Lanes::streams`: control, live ones, backfill.
pub(crate) const STREAMS: usize = 1 + LIVE_STREAMS + 1;
const CONTROL: usize = 0;
const FIRST_LIVE: usize = 1;
const BACKFILL: usize = STREAMS - 1;

/// quinn sends higher ones first. HTTP/3's own streams have 0, and hardly a byte.
const PRIORITIES: [i32; STREAMS] = [2, 1, 1, 1, 1, -1];

pub(super) struct Lanes {
    streams: [Option<SendStream>; STREAMS],
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { streams: [const { None }; STREAMS] }
    }

    pub(super) async fn write<L: Link>(
        &mut self,
        shared: &Shared<L>,
        frames: &mut Vec<Outgoing>,
    ) -> Result<(), Closed> {
        let quic = shared.link.quic();
        let mut batches: [Batch; STREAMS] = Default::default();
        let mut datagrams =
            Packer::new(shared.link.datagram_prefix(), quic.max_datagram_size().unwrap_or_default());
        for frame in frames.drain(..) {
            match place(frame.lane) {
                Place::Stream(stream) => batches[stream].push(&frame.bytes),
                Place::Datagram { or } if !datagrams.push(&frame.bytes) => batches[or].push(&frame.bytes),
                Place::Datagram { .. } | Place::Nowhere => {}
            }
        }
        for datagram in datagrams.finish() {
            // Full buffers drop the oldest one, a path that shrank drops this one: latest wins, or is lost.
            if let Err(quinn::SendDatagramError::ConnectionLost(error)) = quic.send_datagram(datagram) {
                return Err(Box::pin(shared.why(error.to_string())).await);
            }
        }
        // One after the other, the urgent ones first: a peer that takes nothing of one takes this write's time.
        for (stream, batch) in batches.into_iter().enumerate() {
            if !batch.is_empty() {
                self.write_batch(shared, stream, batch).await?;
            }
        }
        Ok(())
    }

    async fn write_batch<L: Link>(
        &mut self,
        shared: &Shared<L>,
        stream: usize,
        batch: Batch,
    ) -> Result<(), Closed> {
        let (open, opening) = match &mut self.streams[stream] {
            Some(open) => (open, None),
            empty => {
                // What happens once is boxed: its state would be a part of every idle connection's.
                let (new, opening) = Box::pin(open(shared, stream)).await?;
                // Fails only for a stream that was closed, and nobody closed this one.
                let _ = new.set_priority(PRIORITIES[stream]);
                (empty.insert(new), Some(opening))
            }
        };
        let mut chunks = batch.into_chunks(opening);
        match open.write_all_chunks(&mut chunks).await {
            Ok(()) => Ok(()),
            Err(WriteError::Stopped(code)) => {
                Err(Box::pin(shared.why(format!("the peer stopped a stream with {code}"))).await)
            }
            Err(error) => Err(Box::pin(shared.why(error.to_string())).await),
        }
    }

    /// Ends all streams, and waits until the peer has everything.
    pub(super) async fn flush(&mut self) {
        for stream in self.streams.iter_mut().flatten() {
            // An error: it was reset already, and has nothing to flush.
            let _ = stream.finish();
        }
        for stream in self.streams.iter().flatten() {
            let _ = stream.stopped().await;
        }
    }

    /// What the peer did not take is thrown away.
    pub(super) fn reset(&mut self) {
        for stream in self.streams.iter_mut().flatten() {
            let _ = stream.reset(VarInt::from_u32(0));
        }
    }
}

/// A new stream, and the bytes that come first on it.
async fn open<L: Link>(shared: &Shared<L>, stream: usize) -> Result<(SendStream, Bytes), Closed> {
    if stream == CONTROL {
        return Ok((shared.control_writer().await?, Bytes::new()));
    }
    match shared.link.quic().open_uni().await {
        Ok(new) => Ok((new, Bytes::copy_from_slice(shared.link.stream_prefix()))),
        Err(error) => Err(shared.why(error.to_string()).await),
    }
}

enum Place {
    Stream(usize),
    Datagram { or: usize },
    Nowhere,
}

fn place(lane: Lane) -> Place {
    let live = |channel: u32| FIRST_LIVE + channel as usize % LIVE_STREAMS;
    match lane {
        Lane::Control | Lane::Aside => Place::Stream(CONTROL),
        Lane::Live(channel) => Place::Stream(live(channel)),
        Lane::Backfill => Place::Stream(BACKFILL),
        Lane::Ephemeral(channel) => Place::Datagram { or: live(channel) },
        // `Peer::wants_checkpoints` is false here.
        Lane::Checkpoint => Place::Nowhere,
    }
}
