//! HTTP/3 SETTINGS. `h3` writes those that Chromium wants: ENABLE_WEBTRANSPORT of draft 02 (0x2b603742) and
//! H3_DATAGRAM (0x33). Later drafts renamed it, and WebKit looks for the later names: they are put beside.

use bytes::{Buf as _, Bytes, BytesMut};
use xpush_protocol::{get_varint, put_varint};

/// What a control stream begins with: its type, and a SETTINGS frame (RFC 9114, sections 6.2.1 and 7.2.4).
const CONTROL_STREAM_WITH_SETTINGS: [u8; 2] = [0x00, 0x04];

/// WEBTRANSPORT_MAX_SESSIONS of draft 07, WT_MAX_SESSIONS of drafts 13 and 14, WT_ENABLED of draft 15. More than
/// one session would oblige both ends to those drafts' flow control.
const LATER_DRAFTS: [(u64, u64); 3] = [(0xc671_706a, 1), (0x14e9_cd29, 1), (0x2c7c_f000, 1)];

/// The first bytes of a stream of ours, with the later drafts' settings if it is the control stream.
pub(super) fn with_later_drafts(bytes: Bytes) -> Bytes {
    if !bytes.starts_with(&CONTROL_STREAM_WITH_SETTINGS) {
        return bytes;
    }
    let mut rest = bytes.slice(CONTROL_STREAM_WITH_SETTINGS.len()..);
    match get_varint(&mut rest) {
        Ok(len) if len == rest.remaining() as u64 => {}
        // Not the whole frame, or more than it: not what `h3` writes, and left alone.
        _ => return bytes,
    }
    let mut settings = BytesMut::from(&rest[..]);
    for (id, value) in LATER_DRAFTS {
        put_varint(id, &mut settings);
        put_varint(value, &mut settings);
    }
    let mut out = BytesMut::from(&CONTROL_STREAM_WITH_SETTINGS[..]);
    put_varint(settings.len() as u64, &mut out);
    out.extend_from_slice(&settings);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_stream_gets_them() {
        let encoder = Bytes::from_static(&[0x02]);
        assert_eq!(with_later_drafts(encoder.clone()), encoder);
        let mut patched = with_later_drafts(Bytes::from_static(&[0, 4, 2, 0x33, 1]));
        patched.advance(CONTROL_STREAM_WITH_SETTINGS.len());
        assert_eq!(get_varint(&mut patched), Ok(patched.len() as u64));
        let mut settings = Vec::new();
        while patched.has_remaining() {
            settings.push((get_varint(&mut patched).unwrap(), get_varint(&mut patched).unwrap()));
        }
        assert_eq!(settings, [&[(0x33, 1)][..], &LATER_DRAFTS].concat());
    }
}
