//! QUIC's variable-length integers (RFC 9000, section 16): they stand before every frame on a QUIC stream.

use bytes::{Buf, BufMut};
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VarintError {
    /// More bytes are needed.
    #[error("the integer is not complete")]
    Incomplete,
}

/// Appends `value`, which must be below 2^62, in its shortest form.
pub fn put_varint(value: u64, out: &mut impl BufMut) {
    debug_assert!(value < 1 << 62);
    match varint_len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(value as u16 | 0x4000),
        4 => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// How many bytes `put_varint` writes.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Takes one integer off the front. On an error nothing is taken.
pub fn get_varint(bytes: &mut impl Buf) -> Result<u64, VarintError> {
    if !bytes.has_remaining() {
        return Err(VarintError::Incomplete);
    }
    // A varint's length is in its first byte, and every chunk that has a remaining byte begins with one.
    let len = 1 << (bytes.chunk()[0] >> 6);
    if bytes.remaining() < len {
        return Err(VarintError::Incomplete);
    }
    let mut value = u64::from(bytes.get_u8() & 0x3f);
    for _ in 1..len {
        value = value << 8 | u64::from(bytes.get_u8());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_examples_hold() {
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(get_varint(&mut &out[..]), Ok(value));
            assert_eq!(get_varint(&mut &out[..out.len() - 1]), Err(VarintError::Incomplete));
        }
    }
}
