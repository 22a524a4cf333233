//! Where a message of a peer begins and ends, on each of the wires that the peers speak.

use std::ops::Range;

use anyhow::{Context as _, ensure};

use crate::websocket::{self, Opcode};

/// The longest that any peer sends to the load.
const LENGTH_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// First the head of an HTTP answer, then RFC 6455.
    WebSocket,
    /// Lines; behind a `MSG` line as many bytes as it says.
    Nats,
    /// MQTT 3.1.1: packets with their length in front.
    Mqtt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of the HTTP answer.
    Head,
    Data,
    /// Wants an answer, or the connection is closed some day.
    Ping,
    /// The last: why the peer wants no more.
    Close,
}

pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// In the input.
    pub(crate) body: Range<usize>,
    pub(crate) whole: usize,
}

impl Framing {
    /// The frame with which the input begins. `None`: it is not whole yet.
    pub(crate) fn split(self, input: &[u8], upgraded: bool) -> anyhow::Result<Option<Frame>> {
        match self {
            Self::WebSocket if !upgraded => {
                let end = websocket::head_end(input);
                Ok(end.map(|end| Frame { kind: Kind::Head, body: 0..end, whole: end }))
            }
            Self::WebSocket => Ok(websocket::split(input)?.map(|frame| {
                let kind = match frame.opcode {
                    Opcode::PING => Kind::Ping,
                    Opcode::CLOSE => Kind::Close,
                    _ => Kind::Data,
                };
                Frame { kind, body: frame.body, whole: frame.whole }
            })),
            Self::Nats => nats(input),
            Self::Mqtt => mqtt(input),
        }
    }

    pub(crate) fn pong(self, ping: &[u8]) -> Vec<u8> {
        match self {
            Self::WebSocket => websocket::client_frame(Opcode::PONG, ping),
            Self::Nats => b"PONG\r\n".to_vec(),
            // The server does not ping.
            Self::Mqtt => Vec::new(),
        }
    }
}

fn nats(input: &[u8]) -> anyhow::Result<Option<Frame>> {
    let Some(end) = memchr::memmem::find(input, b"\r\n") else { return Ok(None) };
    let line = &input[..end];
    if line.starts_with(b"MSG ") {
        let length = line.rsplit(|byte| *byte == b' ').next().and_then(|text| str::from_utf8(text).ok());
        let length: usize = length.context("a MSG without its length")?.parse()?;
        ensure!(length <= LENGTH_LIMIT, "a message of {length} bytes");
        let begin = end + 2;
        let whole = begin + length + 2;
        let frame = Frame { kind: Kind::Data, body: begin..begin + length, whole };
        return Ok((input.len() >= whole).then_some(frame));
    }
    let kind = match line {
        b"PING" => Kind::Ping,
        line if line.starts_with(b"-ERR") => Kind::Close,
        _ => Kind::Data,
    };
    Ok(Some(Frame { kind, body: 0..end, whole: end + 2 }))
}

fn mqtt(input: &[u8]) -> anyhow::Result<Option<Frame>> {
    let mut length = 0;
    for (n, byte) in input.iter().skip(1).enumerate() {
        ensure!(n < 4, "an MQTT packet whose length has no end");
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            ensure!(length <= LENGTH_LIMIT, "an MQTT packet of {length} bytes");
            let whole = 2 + n + length;
            // With its first byte, which says what it is.
            let frame = Frame { kind: Kind::Data, body: 0..whole, whole };
            return Ok((input.len() >= whole).then_some(frame));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nats_message_is_whole_with_the_bytes_that_its_line_announces() {
        let input = b"MSG c1 1 5\r\na\r\nbc\r\nPING\r\n";
        let frame = Framing::Nats.split(input, true).unwrap().unwrap();
        assert_eq!(&input[frame.body], b"a\r\nbc");
        assert_eq!(Framing::Nats.split(&input[frame.whole..], true).unwrap().unwrap().kind, Kind::Ping);
        assert!(Framing::Nats.split(&input[..frame.whole - 1], true).unwrap().is_none());
    }

    #[test]
    fn an_mqtt_packet_may_have_a_length_of_several_bytes() {
        let mut input = vec![0x30, 0xc8, 0x01];
        input.resize(3 + 200, 0);
        assert_eq!(Framing::Mqtt.split(&input, true).unwrap().unwrap().whole, 203);
        assert!(Framing::Mqtt.split(&input[..202], true).unwrap().is_none());
        assert!(Framing::Mqtt.split(&input[..2], true).unwrap().is_none());
    }
}
