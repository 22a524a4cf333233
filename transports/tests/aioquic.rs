//! A client in another language, `tests/python/webtransport_client.py`, against this crate's WebTransport and a server of three
//! answers. Runs where `XPUSH_AIOQUIC_PYTHON` names a Python that has aioquic 1.7.2.

#![cfg(all(feature = "webtransport", feature = "dial"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::{path::Path, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use xpush_protocol::{CloseCode, Codec};
use xpush_transports::{
    Admission, Closed, Connection as _, Lane, Outgoing, Reader as _, Settings, Transport as _, Writer as _,
};

#[path = "contract/port.rs"]
mod port;

use port::Port;

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_receives_its_own_publication() {
    let Some(python) = std::env::var_os("XPUSH_AIOQUIC_PYTHON") else {
        eprintln!("skipped: XPUSH_AIOQUIC_PYTHON names no Python with aioquic");
        return;
    };
    let (mut udp, port) = Port::open(Settings::default(), Admission::new(10, 10));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/webtransport_client.py");
    let mut client = Command::new(python);
    client.arg(script).arg(udp.local_addr.to_string());
    client.args(["--certificate-hash", &STANDARD.encode(port.hash)]);
    let client = async {
        let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    };
    let serve = async {
        let (peer, mut reader, mut writer) = udp.webtransport.accept().await.unwrap().split();
        assert_eq!(peer.codec, Some(Codec::Json));
        loop {
            match reader.read().await {
                Ok(frame) => writer.write(&mut answers(&frame)).await.unwrap(),
                Err(closed) => return Ok::<_, ()>(closed),
            }
        }
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::try_join!(client, serve) });
    let (output, closed) = both.await.unwrap().unwrap();
    assert_eq!(closed, Closed::ByPeer { code: CloseCode::Normal, reason: "done".into() });
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 4, "{lines}");
}

/// What a server of the protocol says, as far as this client looks.
fn answers(frame: &[u8]) -> Vec<Outgoing> {
    let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
    let (command, body) = frame.as_object().unwrap().iter().next().unwrap();
    let outgoing = |lane, value: serde_json::Value| Outgoing { bytes: value.to_string().into(), lane };
    let id = &body["id"];
    match command.as_str() {
        "connect" => vec![outgoing(Lane::Control, serde_json::json!({"connected": {"id": id}}))],
        "subscribe" => vec![outgoing(Lane::Control, serde_json::json!({"subscribed": {"id": id}}))],
        "publish" => vec![
            outgoing(Lane::Live(7), serde_json::json!({"publication": {"message_id": body["message_id"]}})),
            outgoing(Lane::Control, serde_json::json!({"published": {"id": id}})),
        ],
        other => panic!("an unexpected {other}"),
    }
}
