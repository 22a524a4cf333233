//! NATS, core without JetStream: its text protocol over TCP, a subject for each channel.

use std::{path::Path, process::Command};

use super::{Peer, Step, Subscriber, program, says_version};
use crate::framing::Framing;

pub(super) struct Nats;

impl Peer for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn version(&self) -> anyhow::Result<String> {
        says_version(&program("nats-server"), "--version")
    }

    fn manner(&self) -> &'static str {
        "its protocol over TCP; nothing kept"
    }

    fn command(&self, _folder: &Path, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(program("nats-server"));
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        Ok(command)
    }

    fn framing(&self) -> Framing {
        Framing::Nats
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        greeting(&format!("SUB {} 1\r\n", client.channel))
    }

    fn publisher(&self, _port: u16, _channel: &str) -> Vec<Step> {
        greeting("")
    }

    fn publication(&self, channel: &str, _number: u64, payload: &[u8]) -> Vec<u8> {
        let mut message = format!("PUB {channel} {}\r\n", payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        message
    }
}

/// Commands are taken in order, so the answer to a ping behind them says that they are done.
fn greeting(command: &str) -> Vec<Step> {
    let connect = r#"CONNECT {"verbose":false,"pedantic":false,"lang":"rust","version":"1","protocol":1}"#;
    vec![Step::says("", b"INFO "), Step::says(format!("{connect}\r\n{command}PING\r\n"), b"PONG")]
}
