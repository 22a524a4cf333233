//! Each wire into the real server: by the client as a library, and by the commands that people type.

use std::process::Stdio;

use serde_json::Value;
use xpush::client::Via;

use super::{
    client::{Session, WIRES},
    process::{PATIENCE, ServerProcess, run, the_line, xpush},
};

#[tokio::test]
async fn every_wire_publishes_and_receives() {
    let server = ServerProcess::start().await;
    for (from, to) in WIRES.into_iter().zip(WIRES.into_iter().cycle().skip(1)) {
        for name in ["room:a", "live:a", "typing:a"] {
            let mut writer = Session::open(&server, from).await;
            let mut reader = Session::open(&server, to).await;
            let subscribed = reader.subscribe(name).await.unwrap();
            let text = format!("from {from} to {to}");
            let published = writer.publish(name, &text).await.unwrap();
            assert_eq!(published.cursor.offset, subscribed.cursor.offset + 1);
            assert_eq!(reader.publication().await, (published.cursor.offset, format!("\"{text}\"")));
            writer.client.close().await;
            reader.client.close().await;
        }
    }
}

#[tokio::test]
async fn the_commands_publish_and_read_over_every_wire() {
    let server = ServerProcess::start().await;
    let url = server.url();
    let token = run(&["token", "--user", "ann", "--data", server.data.to_str().unwrap()]).await.stdout;
    let token = String::from_utf8(token).unwrap().trim().to_owned();
    for via in WIRES.map(|via| via.to_string()) {
        let channel = format!("room:{via}");
        let at = ["--server", &url, "--via", &via];
        let command = |words: &[&str]| {
            let words: Vec<String> = words.iter().chain(&at).map(|&word| word.to_owned()).collect();
            async move { run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        let publish = ["publish", &channel, r#"{"n":1}"#, "--message-id", "first", "--token", &token];
        let first = String::from_utf8(command(&publish).await.stdout).unwrap();
        assert!(first.trim().ends_with(":1"), "{first}");
        let again = String::from_utf8(command(&publish).await.stdout).unwrap();
        assert_eq!(again.trim(), format!("{} (was there already)", first.trim()));
        let output = command(&["publish", &channel, "--text", "later", "--event", "greeting"]).await;
        assert!(output.status.success(), "{output:?}");

        let output = command(&["subscribe", &channel, "--last", "9", "--count", "2"]).await;
        assert!(output.status.success(), "{output:?}");
        let received = lines(&output.stdout);
        assert_eq!((&received[0]["data"]["n"], &received[1]["data"]), (&1.into(), &"later".into()), "{via}");
        assert_eq!((received.len(), &received[1]["event"]), (2, &"greeting".into()));

        let output = command(&["history", &channel, "--backward", "-n", "1"]).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(lines(&output.stdout)[0]["data"], "later");
        assert!(String::from_utf8_lossy(&output.stderr).contains("xpush: there is more: --cursor"));
        let output = command(&["history", &channel, "-n", "1", "--all"]).await;
        assert_eq!((lines(&output.stdout).len(), output.stderr.len()), (2, 0));
    }
}

fn lines(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect()
}

#[tokio::test]
async fn a_stream_of_lines_is_published_in_order() {
    let server = ServerProcess::start().await;
    let url = server.url();
    let mut command = xpush();
    command.args(["publish", "room:lines", "-", "--server", &url]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text: String = (1..=100).map(|n| format!("{n}\n\n")).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 100);
    let line = the_line(&run(&["publish", "room:lines", "-", "--message-id", "one", "--server", &url]).await);
    assert!(line.contains("--message-id names one message"), "{line}");
    let output = run(&["history", "room:lines", "--all", "--server", &url]).await;
    let numbers: Vec<_> = lines(&output.stdout).iter().map(|line| line["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let server = ServerProcess::start().await;
    let mut client = Session::open(&server, Via::Websocket).await;
    // More than a pipe holds.
    for _ in 0..200 {
        client.publish("room:pipe", "x".repeat(1000)).await.unwrap();
    }
    for words in [&["history", "room:pipe", "--all"][..], &["subscribe", "room:pipe", "--last", "200"]] {
        let mut command = xpush();
        command.args(words).args(["--server", &server.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
            std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
            drop(stdout);
            child.wait_with_output().unwrap()
        });
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_one_line() {
    let server = ServerProcess::start().await;
    let url = server.url();
    for via in WIRES.map(|via| via.to_string()) {
        let at = ["--server", &url, "--via", &via];
        let refused = async |words: &[&str]| the_line(&run(&[words, &at].concat()).await);
        assert!(refused(&["publish", "nowhere:a", "1"]).await.contains("unknown_namespace"), "{via}");
        assert!(refused(&["publish", "room:a", "{"]).await.contains("is not JSON"), "{via}");
        assert!(refused(&["subscribe", "nowhere:a"]).await.contains("unknown_namespace"), "{via}");
        assert!(refused(&["history", "typing:a"]).await.contains("not_supported"), "{via}");
        assert!(refused(&["history", "room:a", "--token", "a.b.c"]).await.contains("invalid_token"), "{via}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_one_line() {
    // Bound, so that nobody else takes it, and not listened on.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    for words in [&["publish", "room:a", "1"][..], &["subscribe", "room:a"], &["history", "room:a"]] {
        for via in WIRES.map(|via| via.to_string()) {
            let line = the_line(&run(&[words, &["--server", &url, "--via", &via]].concat()).await);
            assert!(line.contains("no XPUSH server answers at") && line.contains(&url), "{line}");
        }
    }
    let line = the_line(&run(&["history", "room:a", "--server", "nonsense"]).await);
    assert!(line.contains("is no http: or https: URL"), "{line}");
}

#[tokio::test]
async fn a_subscriber_outlives_its_server() {
    let mut server = ServerProcess::start().await;
    let url = server.url();
    let mut client = Session::open(&server, Via::Websocket).await;
    let cursor = client.publish("room:a", 1).await.unwrap().cursor.to_string();
    let mut command = xpush();
    command.args(["subscribe", "room:a", "--cursor", &cursor, "--count", "2", "--via", "websocket"]);
    command.args(["--server", &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    super::process::until("it is subscribed", async || {
        super::http::get(server.http, "/v1/channels/room:a/presence").await.json()["sessions"] == 1
    })
    .await;
    client.publish("room:a", 2).await.unwrap();
    server.kill9();
    server.restart().await;
    let mut client = Session::open(&server, Via::Websocket).await;
    client.publish("room:a", 3).await.unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let numbers: Vec<_> = lines(&output.stdout).iter().map(|line| line["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 3]);
}
