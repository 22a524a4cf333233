//! As much of Redis's protocol (RESP2) as the tests need to give an order and read the answer: a client of their
//! own, so that a fault in the client under test can't hide itself.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A paused server accepts and stays silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Sends one command over a connection of its own. Arrays come back as lines, nil as an empty text, an error reply
/// as an error.
pub(crate) async fn ask(server: SocketAddr, words: &[&str]) -> io::Result<String> {
    tokio::time::timeout(ANSWER_LIMIT, exchange(server, words)).await?
}

/// The value that follows `name` in an answer of names and values in turn, such as that of `SENTINEL MASTER`.
pub(crate) fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines();
    while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
        if key == name {
            return Some(value);
        }
    }
    None
}

/// The value of `name:value`, as `INFO` and `CLUSTER INFO` write it.
pub(crate) fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

async fn exchange(server: SocketAddr, words: &[&str]) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;

    let mut lines = Vec::new();
    let mut awaited = 1_usize;
    while awaited > 0 {
        awaited -= 1;
        let mut head = String::new();
        stream.read_line(&mut head).await?;
        let head = head.trim_end();
        let (kind, rest) = head.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        match kind {
            "+" | ":" => lines.push(rest.to_owned()),
            "-" => return Err(io::Error::other(rest.to_owned())),
            "$" => match usize::try_from(number(rest)?) {
                Ok(length) => {
                    let mut text = vec![0; length + "\r\n".len()];
                    stream.read_exact(&mut text).await?;
                    text.truncate(length);
                    lines.push(String::from_utf8_lossy(&text).into_owned());
                }
                Err(_) => lines.push(String::new()),
            },
            "*" => awaited += usize::try_from(number(rest)?).unwrap_or(0),
            _ => return Err(io::Error::other(format!("not RESP2: {head}"))),
        }
    }
    Ok(lines.join("\n"))
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(io::Error::other)
}
