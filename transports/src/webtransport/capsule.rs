//! Capsules on the CONNECT stream (RFC 9297): a session ends with CLOSE_WEBTRANSPORT_SESSION, which says why.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use xpush_protocol::{get_varint, put_varint};

const CLOSE_SESSION: u64 = 0x2843;

/// The draft's limit for a reason.
const REASON_MAX: usize = 1024;

/// The longest capsule that is worth waiting for: a close with the longest reason, and its header.
const CAPSULE_MAX: usize = REASON_MAX + 64;

/// What the peer said at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u32,
    pub(super) reason: String,
}

/// A capsule that is longer than any we know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Close {
    /// The capsule's bytes.
    pub(super) fn encode(code: u32, reason: &str) -> Bytes {
        debug_assert!(reason.len() <= REASON_MAX);
        let mut capsule = BytesMut::new();
        put_varint(CLOSE_SESSION, &mut capsule);
        put_varint(4 + reason.len() as u64, &mut capsule);
        capsule.put_u32(code);
        capsule.extend_from_slice(reason.as_bytes());
        capsule.freeze()
    }
}

/// Finds the close among a stream's capsules.
#[derive(Default)]
pub(super) struct Capsules(BytesMut);

impl Capsules {
    /// More of the stream came. Capsules of other kinds are passed over, as RFC 9297 wants it.
    pub(super) fn push(&mut self, mut bytes: impl bytes::Buf) -> Result<Option<Close>, TooLong> {
        while bytes.has_remaining() {
            let chunk = bytes.chunk();
            self.0.extend_from_slice(chunk);
            let len = chunk.len();
            bytes.advance(len);
        }
        while let Some((kind, value)) = self.take()? {
            if kind == CLOSE_SESSION {
                return Ok(Some(close(value)));
            }
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<(u64, Bytes)>, TooLong> {
        let mut rest = &self.0[..];
        let (Ok(kind), Ok(len)) = (get_varint(&mut rest), get_varint(&mut rest)) else { return Ok(None) };
        let header = self.0.len() - rest.len();
        let len = usize::try_from(len).ok().filter(|len| *len <= CAPSULE_MAX).ok_or(TooLong)?;
        if rest.len() < len {
            return Ok(None);
        }
        self.0.advance(header);
        Ok(Some((kind, self.0.split_to(len).freeze())))
    }
}

/// An empty one means 0 and no reason.
fn close(mut value: Bytes) -> Close {
    let code = value.try_get_u32().unwrap_or_default();
    Close { code, reason: String::from_utf8_lossy(&value).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reads_back_byte_by_byte_and_behind_others() {
        let mut bytes = BytesMut::new();
        put_varint(0x29 * 7 + 0x17, &mut bytes);
        put_varint(3, &mut bytes);
        bytes.extend_from_slice(b"abc");
        bytes.extend_from_slice(&Close::encode(4001, "the node leaves – ü"));
        let mut capsules = Capsules::default();
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            assert_eq!(capsules.push(&[*byte][..]), Ok(None));
        }
        let close = Close { code: 4001, reason: "the node leaves – ü".into() };
        assert_eq!(capsules.push(&[*last][..]), Ok(Some(close)));
    }

    #[test]
    fn a_close_without_a_code_means_zero() {
        let close = Close { code: 0, reason: String::new() };
        assert_eq!(Capsules::default().push(&[0x68, 0x43, 0][..]), Ok(Some(close)));
    }

    #[test]
    fn a_capsule_is_refused_by_its_length_alone() {
        let mut bytes = BytesMut::new();
        put_varint(0x17, &mut bytes);
        put_varint(1 << 30, &mut bytes);
        assert_eq!(Capsules::default().push(bytes), Err(TooLong));
    }
}
