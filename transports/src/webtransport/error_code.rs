//! A session's error codes are 32 bits wide, and live in a range of HTTP/3's
//! (draft-ietf-webtrans-http3, section "Resetting Data Streams"). HTTP/3 keeps each 31st for itself.

use quinn::VarInt;

const FIRST: u64 = 0x52e4_a40f_a8db;
const LAST: u64 = 0x52e5_ac98_3162;

/// A stream that names no session, or came too early for the few that are kept.
pub(super) const BUFFERED_STREAM_REJECTED: VarInt = VarInt::from_u32(0x3994_bd84);

/// Nothing went wrong (RFC 9114, section 8.1).
pub(super) const H3_NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// A peer that makes us buffer too much (RFC 9114, section 8.1).
pub(super) const H3_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// The session's code, if it is one.
pub(super) fn from_http(code: u64) -> Option<u32> {
    if !(FIRST..=LAST).contains(&code) || (code - 0x21).is_multiple_of(0x1f) {
        return None;
    }
    let shifted = code - FIRST;
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drafts_formula_reads_back() {
        for code in [0, 1, 29, 30, 31, 4000, 4503, u32::MAX - 1, u32::MAX] {
            let http = FIRST + u64::from(code) + u64::from(code) / 0x1e;
            assert_eq!(from_http(http), Some(code));
        }
        assert_eq!(from_http(0x100), None);
        assert_eq!(from_http(FIRST - 1), None);
        assert_eq!(from_http(LAST + 1), None);
        assert_eq!(from_http(FIRST + 30), None);
    }
}
