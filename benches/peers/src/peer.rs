//! The servers that are compared: how each is started, and how its clients speak to it.
//!
//! Invariant: what differs between two peers is in their two files here; the load and the workloads are the same for
//! all. No peer checks tokens but XPUSH, and none encrypts.

mod centrifugo;
mod floor;
mod mosquitto;
mod nats;
mod nchan;
mod socket_io;
mod ws;
mod xpush;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    framing::Framing,
    websocket::{Opcode, client_frame, upgrade},
};

pub(crate) trait Peer {
    fn name(&self) -> &'static str;

    /// As it says itself. An error: it is not on this machine.
    fn version(&self) -> anyhow::Result<String>;

    /// What it is asked to do, so that a reader can tell how like the others it is.
    fn manner(&self) -> &'static str;

    /// What serves at a port of loopback until it is told to end, in the foreground, with its files in `folder`.
    fn command(&self, folder: &Path, port: u16) -> anyhow::Result<Command>;

    fn framing(&self) -> Framing {
        Framing::WebSocket
    }

    /// How a client becomes a subscriber. Behind the last step it misses nothing.
    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step>;

    fn publisher(&self, port: u16, channel: &str) -> Vec<Step>;

    /// What publishes a message, as it goes over the wire; without an answer where the peer can do without.
    fn publication(&self, channel: &str, number: u64, payload: &[u8]) -> Vec<u8> {
        let _ = (channel, number);
        client_frame(Opcode::BINARY, payload)
    }

    /// What a client has to answer to something that is no message; pings of the wire itself are no matter of a peer.
    fn answer(&self, said: &[u8]) -> Option<Vec<u8>> {
        let _ = said;
        None
    }
}

pub(crate) struct Subscriber<'a> {
    pub(crate) port: u16,
    pub(crate) number: usize,
    pub(crate) channel: &'a str,
    /// Says who it is and proves it, where the peer is set up to ask.
    pub(crate) named: bool,
}

/// Something that a client says, and what it then waits for.
pub(crate) struct Step {
    pub(crate) send: Vec<u8>,
    pub(crate) until: Until,
}

pub(crate) enum Until {
    /// It is a WebSocket now.
    Upgraded,
    /// A frame has these bytes in it.
    Says(&'static [u8]),
}

impl Step {
    fn upgrade(port: u16, path: &str) -> Self {
        Self { send: upgrade(port, path, None), until: Until::Upgraded }
    }

    fn says(send: impl Into<Vec<u8>>, words: &'static [u8]) -> Self {
        Self { send: send.into(), until: Until::Says(words) }
    }
}

/// All, in the order of the table; the floor and XPUSH first.
pub(crate) fn all(xpush: PathBuf, centrifugo: PathBuf, node_folder: &Path) -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(floor::Floor),
        Box::new(xpush::Xpush::new(xpush)),
        Box::new(nchan::Nchan),
        Box::new(nats::Nats),
        Box::new(mosquitto::Mosquitto),
        Box::new(centrifugo::Centrifugo::new(centrifugo)),
        Box::new(ws::Ws::in_folder(node_folder)),
        Box::new(socket_io::SocketIo::in_folder(node_folder)),
    ]
}

/// Debian puts servers where not every user's PATH goes.
fn program(name: &str) -> PathBuf {
    let places = [format!("/usr/sbin/{name}"), format!("/usr/bin/{name}"), format!("/usr/local/bin/{name}")];
    places.into_iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// The line with a version in it, of what a program says when it is asked.
fn says_version(program: &Path, argument: &str) -> anyhow::Result<String> {
    let said = Command::new(program).arg(argument).output();
    let said = said.with_context(|| format!("{} can't be run", program.display()))?;
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version = text
        .split_whitespace()
        .find(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_digit()));
    Ok(version
        .context("it does not say its version")?
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .to_owned())
}

/// The version of an npm package that is installed beside the peers on Node, and Node's own.
fn npm_version(folder: &Path, package: &str) -> anyhow::Result<String> {
    let path = folder.join("node_modules").join(package).join("package.json");
    let text = std::fs::read(&path).context("it is not installed: run `npm ci` in benches/peers")?;
    let package: serde_json::Value = serde_json::from_slice(&text)?;
    let version = package["version"].as_str().context("a package without a version")?;
    ensure!(!version.is_empty(), "a package with an empty version");
    Ok(format!("{version} on Node {}", says_version(&program("node"), "--version")?))
}
