//! `ws`, the WebSocket library of Node, with the few lines that make it fan out (`ws.mjs`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Peer, Step, Subscriber, npm_version, program};

pub(super) struct Ws {
    folder: PathBuf,
}

impl Ws {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Peer for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn version(&self) -> anyhow::Result<String> {
        npm_version(&self.folder, "ws")
    }

    fn manner(&self) -> &'static str {
        "WebSocket; nothing kept"
    }

    fn command(&self, _folder: &Path, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(program("node"));
        command.arg(self.folder.join("ws.mjs")).arg(port.to_string());
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        vec![Step::upgrade(client.port, &format!("/sub/{}", client.channel))]
    }

    fn publisher(&self, port: u16, channel: &str) -> Vec<Step> {
        vec![Step::upgrade(port, &format!("/pub/{channel}"))]
    }
}
