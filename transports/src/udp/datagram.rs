//! Frames in datagrams: one or more, each behind its length as on a stream. A datagram may be lost; a frame in it
//! is never cut.

use bytes::{Buf as _, Bytes, BytesMut};
use xpush_protocol::{get_varint, put_varint, varint_len};

use super::frames::check;
use crate::Closed;

/// Takes a datagram's next frame. `None`: there is no further one.
pub(super) fn take(rest: &mut Bytes, limit: usize) -> Result<Option<Bytes>, Closed> {
    if !rest.has_remaining() {
        // An empty `Bytes` still holds the packet that it came from.
        *rest = Bytes::new();
        return Ok(None);
    }
    let cut = || Closed::Protocol("a datagram ends within a frame".into());
    let size = check(get_varint(rest).map_err(|_| cut())?, limit)?;
    if rest.len() < size {
        return Err(cut());
    }
    Ok(Some(Bytes::copy_from_slice(&rest.split_to(size))))
}

/// Packs frames into as few datagrams as hold them.
pub(super) struct Packer<'a> {
    prefix: &'a [u8],
    max: usize,
    open: BytesMut,
    full: Vec<Bytes>,
}

impl<'a> Packer<'a> {
    /// `max`: the largest datagram that the path takes now, 0 where it takes none.
    pub(super) fn new(prefix: &'a [u8], max: usize) -> Self {
        Self { prefix, max, open: BytesMut::new(), full: Vec::new() }
    }

    /// Whether the frame fits; it is in then.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let len = varint_len(frame.len() as u64) + frame.len();
        if self.prefix.len() + len > self.max {
            return false;
        }
        if self.open.len() + len > self.max {
            self.full.push(self.open.split().freeze());
        }
        if self.open.is_empty() {
            self.open.extend_from_slice(self.prefix);
        }
        put_varint(frame.len() as u64, &mut self.open);
        self.open.extend_from_slice(frame);
        true
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.full.push(self.open.freeze());
        }
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_packed_and_read_back() {
        let mut packer = Packer::new(&[9], 20);
        for frame in [&[1; 8][..], &[2; 8], &[3; 18], &[4; 1]] {
            assert!(packer.push(frame));
        }
        assert!(!packer.push(&[5; 19]));
        let datagrams = packer.finish();
        assert_eq!(datagrams.iter().map(Bytes::len).collect::<Vec<_>>(), [19, 20, 3]);
        let mut read = Vec::new();
        for mut datagram in datagrams {
            assert_eq!(datagram.get_u8(), 9);
            while let Some(frame) = take(&mut datagram, 100).unwrap() {
                read.push((frame[0], frame.len()));
            }
        }
        assert_eq!(read, [(1, 8), (2, 8), (3, 18), (4, 1)]);
    }

    #[test]
    fn a_path_without_datagrams_takes_none() {
        assert!(!Packer::new(&[], 0).push(b"x"));
    }

    #[test]
    fn a_datagram_that_ends_within_a_frame_is_broken() {
        assert!(matches!(take(&mut Bytes::from_static(&[3, 1]), 100), Err(Closed::Protocol(_))));
        assert!(matches!(take(&mut Bytes::from_static(&[0x40]), 100), Err(Closed::Protocol(_))));
        assert!(matches!(take(&mut Bytes::from_static(&[0x2a]), 9), Err(Closed::FrameTooLarge { .. })));
    }
}
