//! The floor, which is this program itself (see `crate::floor`).

use std::{path::Path, process::Command};

use super::{Peer, Step, Subscriber};

pub(super) struct Floor;

impl Peer for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn manner(&self) -> &'static str {
        "WebSocket; one write a delivery, nothing kept"
    }

    fn command(&self, _folder: &Path, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", "--port", &port.to_string()]);
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        vec![Step::upgrade(client.port, &format!("/sub/{}", client.channel))]
    }

    fn publisher(&self, port: u16, channel: &str) -> Vec<Step> {
        vec![Step::upgrade(port, &format!("/pub/{channel}"))]
    }
}
