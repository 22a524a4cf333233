//! Centrifugo: its JSON protocol over WebSocket, channels with a short history.
//!
//! Debian has no package of it; it is compared where there is a Go compiler that can build it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Peer, Step, Subscriber, says_version};
use crate::websocket::{Opcode, client_frame};

const PATH: &str = "/connection/websocket";

pub(super) struct Centrifugo {
    program: PathBuf,
}

impl Centrifugo {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program }
    }
}

impl Peer for Centrifugo {
    fn name(&self) -> &'static str {
        "centrifugo"
    }

    fn version(&self) -> anyhow::Result<String> {
        says_version(&self.program, "version")
    }

    fn manner(&self) -> &'static str {
        "WebSocket, JSON; 256 messages for 5 minutes, in memory"
    }

    fn command(&self, folder: &Path, port: u16) -> anyhow::Result<Command> {
        let path = folder.join("centrifugo.json");
        let config = serde_json::json!({
            "http_server": { "address": "127.0.0.1", "port": port.to_string() },
            "log": { "level": "error" },
            "client": {
                "allow_anonymous_connect_without_token": true,
            },
            "channel": {
                // As many, for as long, as XPUSH's `recent` keeps.
                "without_namespace": {
                    "allow_subscribe_for_client": true,
                    "allow_subscribe_for_anonymous": true,
                    "allow_publish_for_client": true,
                    "allow_publish_for_anonymous": true,
                    "history_size": 256,
                    "history_ttl": "300s",
                },
            },
        });
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(path);
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        let mut steps = self.publisher(client.port, client.channel);
        let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#, client.channel);
        steps.push(Step::says(text(&subscribe), br#""subscribe""#));
        steps
    }

    fn publisher(&self, port: u16, _channel: &str) -> Vec<Step> {
        vec![Step::upgrade(port, PATH), Step::says(text(r#"{"id":1,"connect":{}}"#), br#""connect""#)]
    }

    fn publication(&self, channel: &str, number: u64, payload: &[u8]) -> Vec<u8> {
        // Behind the ids of the greeting; it answers each.
        let (id, payload) = (number + 3, String::from_utf8_lossy(payload));
        text(&format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":"{payload}"}}}}"#))
    }

    fn answer(&self, said: &[u8]) -> Option<Vec<u8>> {
        // Its own ping and pong.
        (said == b"{}").then(|| text("{}"))
    }
}

fn text(command: &str) -> Vec<u8> {
    client_frame(Opcode::TEXT, command.as_bytes())
}
