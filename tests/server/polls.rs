//! Any node can answer any poll: here the same one, which was killed in between and knows nothing of the client.

use serde_json::{Value, json};

use super::{http, process::ServerProcess};

/// One poll; gives the state for the next, and the frames.
async fn poll(server: &ServerProcess, state: Option<&str>, frames: Value) -> (String, Vec<Value>) {
    let mut body = json!({ "frames": frames, "wait": 1 });
    if let Some(state) = state {
        body["state"] = state.into();
    }
    let answer = http::request(server.http, "POST", "/v1/poll", &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    (answer["state"].as_str().unwrap().to_owned(), answer["frames"].as_array().unwrap().clone())
}

async fn publish(server: &ServerProcess, data: &str) {
    let body = json!({ "channels": ["room:a"], "data": data }).to_string();
    let headers = [("content-type", "application/json")];
    let answer = http::request(server.http, "POST", "/v1/publish", &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_poll_goes_on_where_it_was_after_one_restart_upon_another() {
    let mut server = ServerProcess::start().await;
    let connect = json!([{ "connect": { "id": 1, "subscriptions": [{ "channel": "room:a" }] } }]);
    let (mut state, mut frames) = poll(&server, None, connect).await;
    while !frames.iter().any(|frame| frame.get("subscribed").is_some()) {
        (state, frames) = poll(&server, Some(&state), json!([])).await;
    }
    for round in 0..4 {
        publish(&server, &format!("missed {round}")).await;
        server.kill9();
        server.restart().await;
        // One answer only, whatever it holds: if the greeting alone, its state must still have the subscription.
        let (next, frames) = poll(&server, Some(&state), json!([])).await;
        let taken = frames.iter().filter(|frame| frame.get("publication").is_some()).count();
        server.kill9();
        server.restart().await;
        state = next;
        let mut got = taken;
        while got == 0 {
            let (next, frames) = poll(&server, Some(&state), json!([])).await;
            got += frames.iter().filter(|frame| frame.get("publication").is_some()).count();
            state = next;
        }
        assert_eq!(got, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_page_from_elsewhere_is_not_anonymous_whatever_name_it_calls_the_server_by() {
    let server = ServerProcess::start().await;
    let connect = json!({ "frames": [{ "connect": { "id": 1 } }] }).to_string();
    // As after DNS rebinding: the page's own name leads to this machine.
    for (host, origin, let_in) in [
        ("evil.example:8080", "http://evil.example:8080", false),
        ("localhost:8080", "http://localhost:8080", true),
        ("127.0.0.1:8080", "http://localhost:3000", true),
    ] {
        let headers = [("host", host), ("origin", origin)];
        let answer = http::request(server.http, "POST", "/v1/poll", &headers, &connect).await;
        let frames = answer.json()["frames"].clone();
        let name = frames[0].as_object().unwrap().keys().next().unwrap().clone();
        assert_eq!(name, if let_in { "connected" } else { "error" }, "{origin}: {frames}");
    }
    let headers = [("host", "evil.example:8080")];
    let answer = http::request(server.http, "GET", "/v1/channels/room:a/history", &headers, "").await;
    assert_eq!(answer.status, 401);
}
