//! Frames on a stream: a QUIC varint (RFC 9000, section 16) says how long the next one is, then come its bytes.

use std::future::Future;

use bytes::{Buf as _, Bytes, BytesMut};
use xpush_protocol::put_varint;

use crate::Closed;

/// Read off a stream at once: a few packets.
const CHUNK: usize = 8 * 1024;

/// What a length alone may reserve. A peer that announces a long frame has to send it before it costs more.
const FIRST_ALLOCATION: usize = 2 * 1024;

/// Smaller frames are copied into one buffer with their neighbours; larger ones are handed over as they are, so
/// that one publication to many subscribers stays one in memory.
const COPY_BELOW: usize = 512;

/// The longest varint.
const LENGTH_MAX: usize = 8;

/// Where a stream's bytes come from.
pub(crate) trait Chunks: Send + 'static {
    /// The next bytes, at least one; `None` at the end. Cancel safe. The error is for a person.
    fn chunk(&mut self, max: usize) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

impl Chunks for quinn::RecvStream {
    async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, String> {
        let chunk = self.read_chunk(max, true).await.map_err(|error| error.to_string())?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

/// Puts a stream's frames together again.
pub(crate) struct Frames<C> {
    stream: C,
    limit: usize,
    /// Read and not yet looked at.
    chunk: Bytes,
    /// The length, as far as it is there.
    length: [u8; LENGTH_MAX],
    length_len: usize,
    /// The frame under way, and how many of its bytes are missing.
    frame: Option<(BytesMut, usize)>,
}

/// Why a stream has no further frame.
#[derive(Debug)]
pub(crate) enum NoFrame {
    /// It ended between two frames.
    Finished,
    /// The peer broke the framing.
    Broken(Closed),
    /// It was reset, or the connection is gone; which, the connection tells.
    Lost(String),
}

impl<C: Chunks> Frames<C> {
    pub(crate) fn new(stream: C, limit: usize) -> Self {
        let length = [0; LENGTH_MAX];
        Self { stream, limit, chunk: Bytes::new(), length, length_len: 0, frame: None }
    }

    /// The next frame. Cancel safe: everything read is kept here.
    pub(crate) async fn next(&mut self) -> Result<Bytes, NoFrame> {
        loop {
            if let Some(frame) = self.take().map_err(NoFrame::Broken)? {
                return Ok(frame);
            }
            match self.stream.chunk(CHUNK).await {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) if self.frame.is_none() && self.length_len == 0 => return Err(NoFrame::Finished),
                Ok(None) => {
                    let what = "a stream ended within a frame".to_owned();
                    return Err(NoFrame::Broken(Closed::Protocol(what)));
                }
                Err(error) => return Err(NoFrame::Lost(error)),
            }
        }
    }

    /// A frame out of what was read. `None`: more is needed, and nothing is left in `chunk`.
    fn take(&mut self) -> Result<Option<Bytes>, Closed> {
        loop {
            if let Some((frame, missing)) = &mut self.frame {
                let now = self.chunk.split_to(self.chunk.len().min(*missing));
                frame.extend_from_slice(&now);
                *missing -= now.len();
                if *missing > 0 {
                    break;
                }
                let frame = std::mem::take(frame).freeze();
                self.frame = None;
                self.let_go();
                return Ok(Some(frame));
            }
            let Some(size) = self.take_length() else { break };
            let size = check(size, self.limit)?;
            self.frame = Some((BytesMut::with_capacity(size.min(FIRST_ALLOCATION)), size));
        }
        self.let_go();
        Ok(None)
    }

    fn take_length(&mut self) -> Option<u64> {
        while !self.chunk.is_empty() {
            self.length[self.length_len] = self.chunk.get_u8();
            self.length_len += 1;
            if let Ok(length) = xpush_protocol::get_varint(&mut &self.length[..self.length_len]) {
                self.length_len = 0;
                return Some(length);
            }
        }
        None
    }

    /// An empty `Bytes` still holds the packets that it came from.
    fn let_go(&mut self) {
        if self.chunk.is_empty() {
            self.chunk = Bytes::new();
        }
    }
}

/// The size of a frame that may come.
pub(crate) fn check(size: u64, limit: usize) -> Result<usize, Closed> {
    match usize::try_from(size) {
        Ok(0) => Err(Closed::Protocol("a frame without a byte".into())),
        Ok(fits) if fits <= limit => Ok(fits),
        _ => Err(Closed::FrameTooLarge { size, limit }),
    }
}

/// Frames that go out on one stream, as the chunks of one write.
#[derive(Default)]
pub(crate) struct Batch {
    joined: BytesMut,
    chunks: Vec<Bytes>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.joined.is_empty()
    }

    pub(crate) fn push(&mut self, frame: &Bytes) {
        put_varint(frame.len() as u64, &mut self.joined);
        if frame.len() < COPY_BELOW {
            self.joined.extend_from_slice(frame);
        } else {
            self.chunks.push(self.joined.split().freeze());
            self.chunks.push(frame.clone());
        }
    }

    /// What stands before the first frame of a new stream comes first.
    pub(crate) fn into_chunks(mut self, opening: Option<Bytes>) -> Vec<Bytes> {
        if !self.joined.is_empty() {
            self.chunks.push(self.joined.freeze());
        }
        if let Some(opening) = opening.filter(|opening| !opening.is_empty()) {
            self.chunks.insert(0, opening);
        }
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    impl Chunks for VecDeque<Bytes> {
        async fn chunk(&mut self, _: usize) -> Result<Option<Bytes>, String> {
            Ok(self.pop_front())
        }
    }

    fn batch(frames: &[Bytes]) -> Bytes {
        let mut batch = Batch::default();
        frames.iter().for_each(|frame| batch.push(frame));
        batch.into_chunks(None).concat().into()
    }

    #[tokio::test]
    async fn frames_read_back_however_the_stream_is_cut() {
        let frames = [1, 63, 64, 511, 512, 16_383, 16_384].map(|size| Bytes::from(vec![b'x'; size]));
        let bytes = batch(&frames);
        for step in [1, 2, 7, 1200, bytes.len()] {
            let chunks: VecDeque<Bytes> = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
            let mut stream = Frames::new(chunks, 16_384);
            for frame in &frames {
                assert_eq!(stream.next().await.unwrap(), frame);
            }
            assert!(matches!(stream.next().await, Err(NoFrame::Finished)));
        }
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
        let bytes = batch(&[Bytes::from_static(&[0; 1025])]).slice(..2);
        let mut stream = Frames::new(VecDeque::from([bytes]), 1024);
        let refused = stream.next().await;
        assert!(
            matches!(refused, Err(NoFrame::Broken(Closed::FrameTooLarge { size: 1025, limit: 1024 }))),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_broken() {
        for cut in 1..4 {
            let bytes = batch(&[Bytes::from_static(b"abc")]).slice(..cut);
            let mut stream = Frames::new(VecDeque::from([bytes]), 1024);
            assert!(matches!(stream.next().await, Err(NoFrame::Broken(Closed::Protocol(_)))));
        }
    }

    #[tokio::test]
    async fn a_frame_without_a_byte_is_broken() {
        let mut stream = Frames::new(VecDeque::from([Bytes::from_static(&[0])]), 1024);
        assert!(matches!(stream.next().await, Err(NoFrame::Broken(Closed::Protocol(_)))));
    }
}
