//! What an operator does wrong is told in one line that says what to do; and a disk that fills up is survived.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use serde_json::json;
use xpush::client::Via;
use xpush_protocol::{ErrorCode, MessageId};

use super::{
    client::{Session, code},
    http::{get, post},
    process::{ServerProcess, run, the_line, until},
};

/// Starts a server that has to refuse, and gives its line.
async fn refused(data: &Path, arguments: &[&str]) -> String {
    let any = ["--http", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let arguments = if arguments.contains(&"--http") { [&any[4..], arguments] } else { [&any, arguments] };
    the_line(&run(&arguments.concat()).await)
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().to_string();
    let line = refused(folder.path(), &["--http", &taken, "--tls", "127.0.0.1:0"]).await;
    assert!(
        line.contains(&taken) && line.contains("TCP") && line.contains("Another program uses it"),
        "{line}"
    );
    let line = refused(folder.path(), &["--http", "127.0.0.1:0", "--tls", &taken]).await;
    assert!(line.contains(&taken) && line.contains("TCP"), "{line}");

    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken: SocketAddr = udp.local_addr().unwrap();
    let line = refused(folder.path(), &["--http", "127.0.0.1:0", "--tls", &taken.to_string()]).await;
    assert!(line.contains(&taken.port().to_string()) && line.contains("UDP"), "{line}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (missing, garbage) = (folder.path().join("missing.pem"), folder.path().join("garbage.pem"));
    fs::write(&garbage, "not a certificate").unwrap();
    for (file, what) in [(&missing, "can't be read"), (&garbage, "garbage.pem")] {
        let file = file.to_str().unwrap();
        let (cert, key) = (format!("tls.cert={file}"), format!("tls.key={file}"));
        let line = refused(&data, &["--set", &cert, "--set", &key]).await;
        assert!(line.contains(file) && line.contains(what), "{line}");
    }
    // A directory opens, and can't be read.
    let directory = folder.path().to_str().unwrap();
    let (cert, key) = (format!("tls.cert={directory}"), format!("tls.key={directory}"));
    let line = refused(&data, &["--set", &cert, "--set", &key]).await;
    assert!(line.contains(directory), "{line}");
    let line = refused(&data, &["--set", &cert]).await;
    assert!(line.contains("tls.key"), "{line}");
}

#[tokio::test]
async fn a_store_that_is_not_for_this_server_is_left_alone() {
    let mut server = ServerProcess::start().await;
    Session::open(&server, Via::Websocket).await.publish("room:a", 1).await.unwrap();
    let line = refused(&server.data, &[]).await;
    let pid = server.pid().to_string();
    assert!(line.contains("another xpush has it open") && line.contains(&pid), "{line}");

    server.kill9();
    let marker = server.data.join("log/STORE");
    let ours = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, ours.replace("format = 1", "format = 2")).unwrap();
    let line = refused(&server.data, &[]).await;
    assert!(line.contains("has format 2") && line.contains("Start a version that is as new"), "{line}");
    fs::write(&marker, "nonsense").unwrap();
    let line = refused(&server.data, &[]).await;
    assert!(line.contains("doesn't say what `format` is"), "{line}");
    fs::write(&marker, ours).unwrap();
    server.restart().await;
    let page = get(server.http, "/v1/channels/room:a/history").await.json();
    assert_eq!(page["publications"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_configuration_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("xpush.toml");
    let data = folder.path().join("data");
    let path = file.to_str().unwrap();
    for (text, wanted) in [
        ("[limits]\nfram = 1\n", "did you mean `limits.frame`"),
        ("[limits]\nframe = \"big\"\n", "line 2"),
        ("[limits\n", "line 1"),
        ("[namespaces.chat]\nretention = \"forever\"\n", "line 2"),
    ] {
        fs::write(&file, text).unwrap();
        let line = refused(&data, &["--config", path]).await;
        assert!(line.contains(wanted) && line.contains(path), "{line}");
        let line = the_line(&run(&["config", "check", "--config", path]).await);
        assert!(line.contains(wanted), "{line}");
    }
    let line = refused(&data, &["--config", "/nowhere/xpush.toml"]).await;
    assert!(line.contains("/nowhere/xpush.toml"), "{line}");
    for (set, wanted) in [
        ("nonsense", "expected KEY=VALUE"),
        ("limit.frame=1", "did you mean"),
        ("limits.frame=-1", "limits.frame"),
        ("limits.connections=0", "limits.connections"),
        ("log.level=[[[", "log.level"),
        ("=1", "unknown key"),
        ("namespaces.Room.retention=none", "Room"),
    ] {
        let line = refused(&data, &["--set", set]).await;
        assert!(line.contains(wanted), "{set}: {line}");
    }
    fs::write(&data, "a file where a directory should be").unwrap();
    let line = refused(&data, &[]).await;
    assert!(line.contains(data.to_str().unwrap()), "{line}");
}

#[tokio::test]
async fn development_keys_are_not_for_the_public() {
    let folder = tempfile::tempdir().unwrap();
    for public in
        [["--http", "0.0.0.0:0", "--tls", "127.0.0.1:0"], ["--http", "127.0.0.1:0", "--tls", "[::]:0"]]
    {
        let line = refused(folder.path(), &public).await;
        assert!(line.contains("--insecure-public-development"), "{line}");
    }
    // Allowed by name; the loopback address is one of all of them.
    let mut child = super::process::xpush();
    child.args(["--http", "0.0.0.0:0", "--tls", "127.0.0.1:0", "--insecure-public-development", "--data"]);
    let mut child = child
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("runs as node"), "{line}");
}

/// A file system of its own, and small. Unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Fails where this user may not mount: a test that skips itself looks like one that passed.
    fn mount(mebibytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "a full disk needs the right to mount one: run as root"
        );
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// fjall reserves a journal of 64 MiB, sparse; beside it there has to be room for what is written.
const DISK_MEBIBYTES: u32 = 24;

#[tokio::test]
async fn a_full_disk_refuses_publishes_until_there_is_room() {
    let disk = SmallDisk::mount(DISK_MEBIBYTES);
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::in_directory(folder, disk.0.path().join("data"), &[]).await;
    let mut client = Session::open(&server, Via::Websocket).await;
    let mut reader = Session::open(&server, Via::Quic).await;
    reader.subscribe("room:a").await.unwrap();
    let data = "x".repeat(30_000);
    client.publish_as("room:a", id(0), &data).await.unwrap();

    // Something else fills the disk.
    let ballast = disk.0.path().join("ballast");
    let filled = Command::new("sh")
        .arg("-c")
        .arg(r#"cat /dev/zero > "$0" 2>/dev/null"#)
        .arg(&ballast)
        .status()
        .unwrap();
    assert!(!filled.success(), "the disk has an end");
    let mut acknowledged = 1;
    let error = loop {
        match client.publish_as("room:a", id(acknowledged), &data).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), ErrorCode::LogUnavailable);
    assert!(code(&error).may_retry());
    assert!(error.to_string().contains("disk is full"), "{error}");
    let answer = post(server.http, "/v1/publish", &json!({"channels": ["room:a"], "data": data})).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let refusal = answer.json()["results"][0]["error"].clone();
    assert_eq!((&refusal["code"], &refusal["retry"]), (&json!("log_unavailable"), &json!(true)));
    let metrics = get(server.http, "/metrics").await;
    let failures = metrics.text().lines().find_map(|line| line.strip_prefix("xpush_append_failures_total "));
    assert!(failures.unwrap().parse::<u64>().unwrap() >= 2);
    // Nobody else notices: what needs no disk goes on.
    client.publish("live:a", 1).await.unwrap();
    client.ping().await;
    assert!(server.is_running());
    for offset in 1..=acknowledged {
        assert_eq!(reader.publication().await.0, offset);
    }

    fs::remove_file(&ballast).unwrap();
    // What was refused may stand all the same, so it is sent again under its own id.
    until("publishes work again", async || {
        client.publish_as("room:a", id(acknowledged), &data).await.is_ok()
    })
    .await;
    until("it is ready", async || get(server.http, "/readyz").await.status == 200).await;
    client.publish_as("room:a", id(acknowledged + 1), "room again").await.unwrap();
    while reader.publication().await.1 != "\"room again\"" {}
    // And all of it holds.
    drop((client, reader));
    server.kill9();
    server.restart().await;
    let mut ids = Vec::new();
    let mut query = String::new();
    loop {
        let page = get(server.http, &format!("/v1/channels/room:a/history{query}")).await.json();
        let publications = page["publications"].as_array().unwrap();
        ids.extend(
            publications.iter().map(|publication| publication["message_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.get("next") else { break };
        query = format!("?cursor={}:{}", next["epoch"], next["offset"]);
    }
    ids.retain(|id| id.starts_with("message-"));
    assert_eq!(ids, (0..=acknowledged + 1).map(|number| id(number).to_string()).collect::<Vec<_>>());
}

fn id(number: u64) -> MessageId {
    format!("message-{number}").parse().unwrap()
}
