//! HTTP/1.1 by hand: what a test sends is exactly what the server gets, however wrong it is.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::process::PATIENCE;

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code in the body of a refusal, which is a problem (RFC 9457).
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json()["status"], self.status, "{self:?}");
        self.json()["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    let exchange = exchange(address, method, path, headers, body.as_ref());
    let answer = timeout(PATIENCE, exchange).await.expect("an answer in time");
    answer.unwrap_or_else(|| panic!("{method} {path} got no answer"))
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, &[], "").await
}

/// `None`: nobody is there.
pub(crate) async fn try_get(address: SocketAddr, path: &str) -> Option<Response> {
    timeout(PATIENCE, exchange(address, "GET", path, &[], b"")).await.ok().flatten()
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    post_as(address, path, &[], body).await
}

pub(crate) async fn post_as(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let headers = [headers, &[("content-type", "application/json")]].concat();
    request(address, "POST", path, &headers, body.to_string()).await
}

async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Response> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let (mut reader, mut writer) = stream.split();
    let send = async {
        // A server that refuses a body need not read all of it.
        let _ = writer.write_all(head.as_bytes()).await;
        let _ = writer.write_all(body).await;
    };
    let receive = async {
        let mut bytes = Vec::new();
        // A reset after the answer does not take the answer back.
        let _ = reader.read_to_end(&mut bytes).await;
        bytes
    };
    let ((), bytes) = tokio::join!(send, receive);
    Response::parse(&bytes)
}
