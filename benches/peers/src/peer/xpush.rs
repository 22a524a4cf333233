//! XPUSH: MessagePack frames over WebSocket, a `recent` channel in memory for each channel.
//!
//! A publish asks for no answer and has no message id, as none of the peers has; and clients are anonymous, as the peers'
//! are. Where the connecting is what is measured, each has a user and shows a token of its own, since no server in
//! earnest does without.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::json;
use xpush_protocol::{Binary, ChannelName, ClientFrame, Codec, Connect, EventName, Publish, Subscribe};

use super::{Peer, Step, Subscriber, says_version};
use crate::{
    server::free_port,
    websocket::{Opcode, client_frame},
};

const PATH: &str = "/v1/connect";
const SECRET: &str = "a secret of the comparison, which is long enough";
/// The default namespace whose retention is `recent`: the last 256 messages for 5 minutes, in memory.
const NAMESPACE: &str = "live";

pub(super) struct Xpush {
    program: PathBuf,
    key: hmac::Key,
}

impl Xpush {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program, key: hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()) }
    }

    /// A JWT, HS256 (RFC 7519, RFC 7515).
    fn token(&self, user: &str) -> String {
        let claims = json!({"sub": user, "channels": {format!("{NAMESPACE}:*"): ["subscribe", "publish"]}});
        let [header, claims] = [json!({"alg": "HS256", "typ": "JWT"}), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

impl Peer for Xpush {
    fn name(&self) -> &'static str {
        "xpush"
    }

    fn version(&self) -> anyhow::Result<String> {
        says_version(&self.program, "--version")
    }

    fn manner(&self) -> &'static str {
        "WebSocket, MessagePack; retention `recent`: 256 messages for 5 minutes, in memory"
    }

    fn command(&self, folder: &Path, port: u16) -> anyhow::Result<Command> {
        let config = folder.join("xpush.toml");
        fs::write(
            &config,
            format!(
                "log.level = \"warn\"\nauth.keys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]\n\
                 auth.anonymous = true\nlimits.connections_per_address = 20000\n"
            ),
        )?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(config).arg("--data").arg(folder.join("data"));
        command.args([
            "--http",
            &format!("127.0.0.1:{port}"),
            "--tls",
            &format!("127.0.0.1:{}", free_port()?),
        ]);
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        let token = client.named.then(|| self.token(&format!("user-{}", client.number)));
        let connect = connect(token);
        let Some(channel) = name(client.channel) else { return Vec::new() };
        let subscribe = ClientFrame::Subscribe(Subscribe { id: 2, channel, cursor: None, last: None });
        // As clients do: both at once.
        let both = [frame(&connect), frame(&subscribe)].concat();
        vec![Step::upgrade(client.port, PATH), Step::says(both, b"subscribed")]
    }

    fn publisher(&self, port: u16, _channel: &str) -> Vec<Step> {
        vec![Step::upgrade(port, PATH), Step::says(frame(&connect(None)), b"connected")]
    }

    fn publication(&self, channel: &str, _number: u64, payload: &[u8]) -> Vec<u8> {
        let Some(channel) = name(channel) else { return Vec::new() };
        frame(&ClientFrame::Publish(Publish {
            id: 0,
            channel,
            message_id: None,
            event: EventName::default(),
            data: None,
            binary: Some(Binary(payload.to_vec().into())),
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        }))
    }
}

fn connect(token: Option<String>) -> ClientFrame {
    ClientFrame::Connect(Connect { id: 1, token, ..Connect::default() })
}

fn name(channel: &str) -> Option<ChannelName> {
    format!("{NAMESPACE}:{channel}").parse().ok()
}

fn frame(frame: &ClientFrame) -> Vec<u8> {
    client_frame(Opcode::BINARY, &Codec::MessagePack.encode(frame))
}
