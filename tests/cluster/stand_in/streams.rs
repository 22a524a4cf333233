//! A wire of several streams, made of one that has order: what is on one stream comes in its order, and what is on
//! another may be late.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use xpush_protocol::{Codec, ServerFrame, TransportKind};
use xpush_transports::{Closed, Connection, Peer, Reader};

use crate::random::Random;

/// By so much a stream is late at most, by each of its frames anew.
const LATE: Duration = Duration::from_millis(100);

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
        let merged = Merged { inner, codec, random, streams: Default::default(), closed: None };
        (peer, merged, writer)
    }
}

/// What comes on three streams: answers, gaps, publications.
pub(super) struct Merged<R> {
    inner: R,
    codec: Codec,
    random: Random,
    /// With the moment at which each is there.
    streams: [VecDeque<(Instant, Bytes)>; 3],
    closed: Option<Closed>,
}

impl<R> Merged<R> {
    fn put(&mut self, frame: Bytes) {
        let stream = match self.codec.decode(&frame) {
            Ok(ServerFrame::Publication(_)) => 2,
            Ok(ServerFrame::Gap(_)) => 1,
            _ => 0,
        };
        let stream = &mut self.streams[stream];
        let after = stream.back().map_or_else(Instant::now, |(last, _)| *last);
        let late = if self.random.once_in(8) { self.random.up_to(LATE) } else { Duration::ZERO };
        stream.push_back((after.max(Instant::now()) + late, frame));
    }

    /// The stream whose next frame is there first.
    fn next(&mut self) -> Option<&mut VecDeque<(Instant, Bytes)>> {
        let next = |stream: &&mut VecDeque<(Instant, Bytes)>| stream.front().map(|(at, _)| *at);
        self.streams.iter_mut().filter(|stream| !stream.is_empty()).min_by_key(next)
    }
}

impl<R: Reader> Reader for Merged<R> {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        loop {
            let due = self.next().and_then(|stream| stream.front().map(|(at, _)| *at));
            if due.is_some_and(|at| at <= Instant::now())
                && let Some((_, frame)) = self.next().and_then(VecDeque::pop_front)
            {
                return Ok(frame);
            }
            // What is late then is lost: a client resumes from what it has.
            if let Some(closed) = self.closed.take() {
                return Err(closed);
            }
            let patience = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = self.inner.read() => match frame {
                    Ok(frame) => self.put(frame),
                    Err(closed) => self.closed = Some(closed),
                },
                () = patience => {}
            }
        }
    }
}
