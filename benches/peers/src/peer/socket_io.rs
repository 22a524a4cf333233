//! Socket.IO on Node, over WebSocket from the start, with rooms as channels (`socket_io.mjs`).
//!
//! Its packets are texts: engine.io's type, socket.io's type, then JSON.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Peer, Step, Subscriber, npm_version, program};
use crate::websocket::{Opcode, client_frame};

pub(super) struct SocketIo {
    folder: PathBuf,
}

impl SocketIo {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Peer for SocketIo {
    fn name(&self) -> &'static str {
        "socket.io"
    }

    fn version(&self) -> anyhow::Result<String> {
        npm_version(&self.folder, "socket.io")
    }

    fn manner(&self) -> &'static str {
        "WebSocket, JSON; nothing kept"
    }

    fn command(&self, _folder: &Path, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(program("node"));
        command.arg(self.folder.join("socket_io.mjs")).arg(port.to_string());
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        let channel = client.channel;
        let mut steps = self.publisher(client.port, channel);
        // An event whose acknowledgement, packet 3 to id 0, comes once the room is joined.
        steps.push(Step::says(text(&format!("420[\"subscribe\",\"{channel}\"]")), b"430"));
        steps
    }

    fn publisher(&self, port: u16, _channel: &str) -> Vec<Step> {
        vec![
            Step::upgrade(port, "/socket.io/?EIO=4&transport=websocket"),
            Step::says("", b"0{"),
            Step::says(text("40"), b"40{"),
        ]
    }

    fn publication(&self, channel: &str, _number: u64, payload: &[u8]) -> Vec<u8> {
        text(&format!("42[\"publish\",\"{channel}\",\"{}\"]", String::from_utf8_lossy(payload)))
    }

    fn answer(&self, said: &[u8]) -> Option<Vec<u8>> {
        // engine.io's own ping and pong.
        (said == b"2").then(|| text("3"))
    }
}

fn text(packet: &str) -> Vec<u8> {
    client_frame(Opcode::TEXT, packet.as_bytes())
}
