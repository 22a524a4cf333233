//! A WebSocket by hand (RFC 6455): it can break the protocol, and it can stop reading.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{http::Response, process::PATIENCE};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

pub(crate) struct RawSocket {
    stream: TcpStream,
    read: Vec<u8>,
    pub(crate) answers_pings: bool,
}

/// How a socket ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed {
        code: u16,
        reason: String,
    },
    /// Without a word.
    Cut,
}

impl RawSocket {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address, &[]).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub(crate) async fn try_open(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Response> {
        Self::over(TcpStream::connect(address).await.unwrap(), address, headers).await
    }

    /// With a receive buffer in the kernel of about this size: what is not read soon stays at the server.
    pub(crate) async fn open_narrow(address: SocketAddr, receive_buffer: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(receive_buffer).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self::over(stream, address, &[]).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    async fn over(
        stream: TcpStream,
        address: SocketAddr,
        headers: &[(&str, &str)],
    ) -> Result<Self, Response> {
        let mut socket = Self { stream, read: Vec::new(), answers_pings: true };
        let mut head = format!(
            "GET /v1/connect HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        socket.stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        loop {
            if let Some(end) = socket.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let response = Response::parse(&socket.read).unwrap();
                if response.status == 101 {
                    socket.read.drain(..end + 4);
                    return Ok(socket);
                }
                let length: usize =
                    response.header("content-length").map_or(0, |length| length.parse().unwrap());
                if response.body.len() >= length {
                    return Err(response);
                }
            }
            assert!(socket.fill().await, "the upgrade got no answer");
        }
    }

    /// Connects a session.
    pub(crate) async fn session(address: SocketAddr) -> Self {
        let mut socket = Self::open(address).await;
        socket.say(r#"{"connect":{"id":1}}"#).await;
        assert!(socket.hear().await.unwrap().get("connected").is_some());
        socket
    }

    /// One text message. That the server may have hung up is seen at the next `hear`.
    pub(crate) async fn say(&mut self, text: &str) {
        self.frame(TEXT, true, text.as_bytes()).await;
    }

    /// One frame; false if it can't be written any more.
    pub(crate) async fn frame(&mut self, opcode: u8, last: bool, payload: &[u8]) -> bool {
        let bytes = encoded(opcode, last, payload);
        timeout(PATIENCE, self.stream.write_all(&bytes)).await.expect("room in time").is_ok()
    }

    /// Bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("room in time").is_ok()
    }

    /// The next message, as JSON.
    pub(crate) async fn hear(&mut self) -> Result<Value, Ended> {
        timeout(PATIENCE, self.next()).await.expect("a message in time")
    }

    /// How it ends; what comes before is passed over.
    pub(crate) async fn end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.hear().await {
                return ended;
            }
        }
    }

    async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            let Some((opcode, payload)) = self.take() else {
                if !self.fill().await {
                    return Err(Ended::Cut);
                }
                continue;
            };
            match opcode {
                TEXT => return Ok(serde_json::from_slice(&payload).unwrap()),
                PING if self.answers_pings => drop(self.frame(PONG, true, &payload).await),
                CLOSE => {
                    let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(Ended::Closed { code, reason });
                }
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = *self.read.get(..2)? else { return None };
        let (start, length) = match second & 0x7f {
            126 => (4, u16::from_be_bytes(self.read.get(2..4)?.try_into().unwrap()).into()),
            127 => (10, u64::from_be_bytes(self.read.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, short.into()),
        };
        let payload = self.read.get(start..start + length)?.to_vec();
        self.read.drain(..start + length);
        Some((first & 0x0f, payload))
    }

    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.is_ok_and(|count| count > 0)
    }
}

/// A client's frame: masked, with zeros.
pub(crate) fn encoded(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![opcode | if last { FINAL } else { 0 }];
    match payload.len() {
        length @ 0..126 => bytes.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(MASKED | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(MASKED | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}
