//! RFC 6455, as little of it as the load and the floor need: handshakes, whole frames, no extensions.

use std::ops::Range;

use anyhow::ensure;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The load always asks with this key: nobody on the way has to be kept from caching the answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// One mask for all frames. It has to be unforgeable in browsers; here it only must cost the server its unmasking.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The longest that anybody sends here.
const FRAME_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opcode(u8);

impl Opcode {
    pub(crate) const TEXT: Self = Self(1);
    pub(crate) const BINARY: Self = Self(2);
    pub(crate) const CLOSE: Self = Self(8);
    pub(crate) const PING: Self = Self(9);
    pub(crate) const PONG: Self = Self(10);
}

/// A frame that begins where the input does.
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    pub(crate) mask: Option<[u8; 4]>,
    /// Of its data, in the input.
    pub(crate) body: Range<usize>,
    /// Its length, with header and mask.
    pub(crate) whole: usize,
}

/// `None`: it is not whole yet.
pub(crate) fn split(input: &[u8]) -> anyhow::Result<Option<Frame>> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    let (length, header) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, _) => match rest.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (length, _) => (usize::from(length), 2),
    };
    ensure!(first & 0x80 != 0, "a message came in fragments, which the load does not put together");
    ensure!(length <= FRAME_LIMIT, "a WebSocket frame of {length} bytes");
    let mask = match (second & 0x80 != 0, input.get(header..).and_then(<[u8]>::first_chunk::<4>)) {
        (false, _) => None,
        (true, Some(mask)) => Some(*mask),
        (true, None) => return Ok(None),
    };
    let begin = header + mask.map_or(0, |mask| mask.len());
    let whole = begin + length;
    let frame = Frame { opcode: Opcode(first & 0x0f), mask, body: begin..whole, whole };
    Ok((input.len() >= whole).then_some(frame))
}

pub(crate) fn unmasked(input: &[u8], frame: &Frame) -> Vec<u8> {
    let mut body = input[frame.body.clone()].to_vec();
    if let Some(mask) = frame.mask {
        apply(mask, &mut body);
    }
    body
}

/// As clients write it: masked.
pub(crate) fn client_frame(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, body.len(), 0x80);
    frame.extend_from_slice(&MASK);
    let begin = frame.len();
    frame.extend_from_slice(body);
    apply(MASK, &mut frame[begin..]);
    frame
}

pub(crate) fn server_frame(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, body.len(), 0);
    frame.extend_from_slice(body);
    frame
}

/// The request by which a client becomes a WebSocket.
pub(crate) fn upgrade(port: u16, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let subprotocol =
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
    .into_bytes()
}

/// The path that a client asks for, and what makes its connection a WebSocket. `None`: it asks for something else.
pub(crate) fn accept(request: &[u8]) -> Option<(String, Vec<u8>)> {
    let request = str::from_utf8(request).ok()?;
    let path = request.strip_prefix("GET ")?.split(' ').next()?;
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim())
    })?;
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {proof}\r\n\r\n"
    );
    Some((path.to_owned(), answer.into_bytes()))
}

/// Where the head of an HTTP message ends, and what is behind it begins.
pub(crate) fn head_end(input: &[u8]) -> Option<usize> {
    memchr::memmem::find(input, b"\r\n\r\n").map(|at| at + 4)
}

fn header(opcode: Opcode, length: usize, mask: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + length);
    frame.push(0x80 | opcode.0);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => frame.push(mask | length),
        (_, Ok(length)) => {
            frame.push(mask | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame
}

fn apply(mask: [u8; 4], body: &mut [u8]) {
    for (byte, mask) in body.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_is_taken_apart_as_it_was_put_together() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let body = vec![7; length];
            for whole in [client_frame(Opcode::BINARY, &body), server_frame(Opcode::BINARY, &body)] {
                let frame = split(&whole).unwrap().unwrap();
                assert_eq!(
                    (frame.opcode, unmasked(&whole, &frame), frame.whole),
                    (Opcode::BINARY, body.clone(), whole.len())
                );
                for cut in [0, 1, 2, 3, 5, whole.len() - 1] {
                    assert!(cut >= whole.len() || split(&whole[..cut]).unwrap().is_none(), "{length} {cut}");
                }
            }
        }
    }

    #[test]
    fn a_request_is_accepted_with_the_proof_of_the_rfc() {
        let (path, answer) = accept(&upgrade(80, "/sub/a", None)).unwrap();
        assert_eq!(path, "/sub/a");
        assert!(String::from_utf8(answer).unwrap().contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
}
