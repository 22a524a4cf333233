//! A wire of several streams, made of one that has order: what is on one stream comes in its order, and what is on
//! another may be late.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use xpush_protocol::{Codec, ServerFrame, TransportKind};
use xpush_transports::{Closed, Connection, Peer, Reader};

use crate::random::Random;

/// By so much a frame, and what is behind it on its stream, is late at most.
const LATE: Duration = Duration::from_millis(100);

/// Frames that are read ahead of who reads.
const READ_AHEAD: usize = 256;

/// A connection whose frames come as they would on streams.
pub(super) struct Streams<C> {
    connection: C,
    peer: Peer,
    random: Random,
}

impl<C: Connection> Streams<C> {
    pub(super) fn of(connection: C, codec: Codec, random: Random) -> Self {
        let peer = Peer { kind: TransportKind::Quic, codec: Some(codec), ..connection.peer().clone() };
        Self { connection, peer, random }
    }
}

impl<C: Connection> Connection for Streams<C> {
    type Reader = Merged<C::Reader>;
    type Writer = C::Writer;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, Self::Reader, Self::Writer) {
        let Self { connection, peer, random } = self;
        let (_, inner, writer) = connection.split();
        let codec = peer.codec.unwrap_or(Codec::Json);
        let merged =
            Merged { inner, codec, random, reads_back: false, streams: Default::default(), closed: None };
        (peer, merged, writer)
    }
}

/// What comes on three streams: answers; what is live; gaps, and what is read from the log beside them.
pub(super) struct Merged<R> {
    inner: R,
    codec: Codec,
    random: Random,
    /// Publications come with the gaps now.
    reads_back: bool,
    /// With the moment at which each is there.
    streams: [VecDeque<(Instant, Bytes)>; 3],
    closed: Option<Closed>,
}

impl<R> Merged<R> {
    fn put(&mut self, frame: Bytes) {
        // The wire below has no streams to tell by; any of these orders is one that clients have to bear.
        self.reads_back ^= self.random.once_in(8);
        let stream = match self.codec.decode(&frame) {
            Ok(ServerFrame::Publication(_)) if !self.reads_back => 1,
            Ok(ServerFrame::Publication(_) | ServerFrame::Gap(_)) => 2,
            _ => 0,
        };
        let late = if self.random.once_in(8) { self.random.up_to(LATE) } else { Duration::ZERO };
        let at = Instant::now() + late;
        let stream = &mut self.streams[stream];
        let at = stream.back().map_or(at, |(last, _)| at.max(*last));
        stream.push_back((at, frame));
    }

    /// The stream whose next frame is there first, and when that is.
    fn first_due(&self) -> Option<(usize, Instant)> {
        let due = self.streams.iter().map(|stream| stream.front().map(|(at, _)| *at)).enumerate();
        due.filter_map(|(stream, at)| Some((stream, at?))).min_by_key(|(_, at)| *at)
    }

    fn is_full(&self) -> bool {
        self.streams.iter().map(VecDeque::len).sum::<usize>() >= READ_AHEAD
    }
}

impl<R: Reader> Reader for Merged<R> {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        loop {
            let due = self.first_due();
            if let Some((stream, _)) = due.filter(|(_, at)| *at <= Instant::now())
                && let Some((_, frame)) = self.streams[stream].pop_front()
            {
                return Ok(frame);
            }
            // What is late then is lost: a client resumes from what it has.
            if let Some(closed) = self.closed.take() {
                return Err(closed);
            }
            let is_full = self.is_full();
            let patience = async {
                match due {
                    Some((_, at)) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = self.inner.read(), if !is_full => match frame {
                    Ok(frame) => self.put(frame),
                    Err(closed) => self.closed = Some(closed),
                },
                () = patience => {}
            }
        }
    }
}
