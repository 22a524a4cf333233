//! The requests as HTTP: what is refused, who may ask, and over which versions.

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use xpush_transports::{Admission, Origins, Reader as _, Settings};

use crate::{
    CONNECT, Node, accept, body, connect, post, refused, request, respond, server, state, within, write,
};

#[tokio::test]
async fn what_is_no_poll_is_refused_with_a_reason() {
    let node = Node::new();
    let id = "0123456789abcdef0123456789abcdef";
    for (text, status, code) in [
        (String::new(), 400, "malformed"),
        ("{".into(), 400, "malformed"),
        ("\u{1F980}".into(), 400, "malformed"),
        ("frames=1".into(), 400, "malformed"),
        (r#"{"frames":[1],"x":1}"#.into(), 400, "malformed"),
        (r#"{"frames":[1,]}"#.into(), 400, "malformed"),
        (r#"{"frames":[1],"wait":1000}"#.into(), 400, "malformed"),
        (r#"{"frames":[1]}}"#.into(), 400, "malformed"),
        ("{}".into(), 400, "out_of_order"),
        (r#"{"send":true,"frames":[1]}"#.into(), 400, "invalid_field"),
        (r#"{"state":"x"}"#.into(), 400, "invalid_state"),
        (format!(r#"{{"state":"{id}.1."}}"#), 400, "invalid_state"),
        (format!(r#"{{"state":"{id}.1.","send":true,"frames":[1]}}"#), 400, "invalid_state"),
        (json!({"frames": vec![1; 65]}).to_string(), 413, "too_large"),
        (json!({"frames": ["x".repeat(64 * 1024)]}).to_string(), 413, "too_large"),
        (" ".repeat(2 * 1024 * 1024), 413, "too_large"),
    ] {
        let shown = text[..text.len().min(60)].to_owned();
        assert_eq!(refused(&node.poller, text).await, (status, code.into()), "{shown}");
    }
    assert_eq!(refused(&node.poller, vec![0xff, 0xfe]).await, (400, "malformed".into()));
}

#[tokio::test]
async fn connections_beyond_the_limits_and_after_shutdown_are_refused() {
    let mut node = Node::start(Settings::default(), Admission::new(10, 1));
    let (reader, writer, first) = node.connect().await;
    let poll = json!({"frames": [connect()], "wait": 0}).to_string();
    assert_eq!(refused(&node.poller, poll.clone()).await, (429, "limit_reached".into()));
    node.cancel.cancel();
    assert_eq!(refused(&node.poller, poll).await, (503, "busy".into()));
    // Those that there are go on, to be told.
    assert_eq!(post(&node.poller, &json!({"state": first, "wait": 0})).await["frames"], json!([]));
    drop((reader, writer));
}

#[tokio::test]
async fn an_allowed_page_may_read_the_answer_and_another_may_not_ask() {
    let origins = Origins::List(vec!["https://app.example".into()]);
    let node = Node::start(Settings { origins, ..Settings::default() }, Admission::new(10, 10));
    let ask = async |method: Method, origin: &'static str| {
        let mut request = request(json!({"frames": [connect()], "wait": 0}).to_string());
        *request.method_mut() = method;
        request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
        respond(&node.poller, request).await
    };
    for origin in ["https://app.example", "https://chat.example:8443"] {
        let preflight = ask(Method::OPTIONS, origin).await;
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
        assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "content-type");
        let answer = ask(Method::POST, origin).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        assert_eq!(answer.headers()[header::VARY], "origin");
    }
    for method in [Method::OPTIONS, Method::POST] {
        let refusal = ask(method, "https://evil.example").await;
        assert_eq!(refusal.status(), StatusCode::FORBIDDEN);
        assert!(!refusal.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(body(refusal).await["code"], "permission_denied");
    }
    let get = ask(Method::GET, "https://app.example").await;
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.headers()[header::ALLOW], "POST, OPTIONS");
}

#[tokio::test]
async fn a_body_is_json_whatever_it_is_called() {
    let node = Node::new();
    for name in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", ""] {
        let mut request = request(json!({"frames": [connect()], "wait": 0}).to_string());
        if !name.is_empty() {
            request.headers_mut().insert(header::CONTENT_TYPE, name.parse().unwrap());
        }
        assert_eq!(respond(&node.poller, request).await.status(), StatusCode::OK, "{name}");
    }
}

#[tokio::test]
async fn polls_share_one_http_2_connection() {
    let mut node = Node::new();
    let poller = node.poller.clone();
    let server = server::Server::start(move |peer, request| {
        let poller = poller.clone();
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            poller.poll(peer, request).await
        }
    })
    .await;
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let url = format!("http://{}/v1/poll", server.address);
    let post = async |poll: Value| -> Value {
        let response = http.request(Request::post(&url).body(Full::<Bytes>::from(poll.to_string())).unwrap());
        let body = response.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    };
    let (first, (mut reader, mut writer)) = tokio::join!(post(json!({"frames": [connect()]})), async {
        let (reader, mut writer) = accept(&mut node.listener).await;
        write(&mut writer, &["\"welcome\""], "c1").await;
        (reader, writer)
    });
    assert_eq!(reader.read().await.unwrap(), CONNECT);
    let (hung, sent, ()) = tokio::join!(
        post(json!({"state": state(&first)})),
        post(json!({"state": state(&first), "send": true, "frames": [2]})),
        async {
            assert_eq!(reader.read().await.unwrap(), "2");
            write(&mut writer, &["3"], "c2").await;
        }
    );
    assert_eq!((hung["frames"].clone(), sent), (json!([3]), json!({"frames": []})));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_seen_to_poll_no_more() {
    let mut node = Node::new();
    let poller = node.poller.clone();
    let server = server::Server::start(move |peer, request| {
        let poller = poller.clone();
        async move { poller.poll(peer, request).await }
    })
    .await;
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    let text = poll.to_string();
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /v1/poll HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", text.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    drop(socket);
    // Whether the answer finds the poll still hanging, or none: the next one gets it.
    let (answer, ()) =
        within(async { tokio::join!(post(&node.poller, &poll), write(&mut writer, &["1"], "c2")) }).await;
    let answer = if answer["frames"] == json!([]) { within(post(&node.poller, &poll)).await } else { answer };
    assert_eq!(answer["frames"], json!([1]));
}
