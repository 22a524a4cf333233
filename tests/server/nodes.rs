//! The look-up of a node alone: tickets, the list of nodes, roles, and leaving on request.

use serde_json::json;
use xpush::client::Via;
use xpush_protocol::{Connect, ErrorCode, Ticket};

use super::{
    client::{Session, WIRES, code},
    http::{get, post, post_as, request},
    process::{ServerProcess, run, the_line},
};

async fn ann(server: &ServerProcess) -> String {
    let data = server.data.to_str().unwrap();
    let output = run(&["token", "--data", data, "--user", "ann"]).await;
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_ticket_stands_for_the_token_on_every_wire() {
    let server = ServerProcess::with(&["--name", "n1"]).await;
    let answer = post(server.http, "/v1/tickets", &json!({"token": ann(&server).await})).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let ticket: Ticket = serde_json::from_value(answer.json()).unwrap();
    assert_eq!((ticket.node.as_str(), ticket.expires_in), ("n1", 60));
    assert_eq!(ticket.nodes, [server.url()]);
    let wires = get(server.http, "/v1/transports").await.json();
    assert_eq!(serde_json::to_value(&ticket.wires).unwrap(), wires);
    for via in WIRES {
        let connect = Connect { ticket: Some(ticket.ticket.clone()), ..Connect::default() };
        let session = Session::with(&server, via, connect).await.unwrap();
        assert_eq!(session.connected.user.as_ref().map(|user| user.as_str()), Some("ann"), "{via}");
    }
}

#[tokio::test]
async fn what_is_no_ticket_is_refused() {
    let server = ServerProcess::with(&["--set", "auth.anonymous=false"]).await;
    for (body, status) in [
        (json!({}), 401),
        (json!({"token": "a.b.c"}), 401),
        (json!({"token": 7}), 400),
        (json!({"user": "ann"}), 400),
        (json!("ann"), 400),
    ] {
        assert_eq!(post(server.http, "/v1/tickets", &body).await.status, status, "{body}");
    }
    let token = ann(&server).await;
    let given = post(server.http, "/v1/tickets", &json!({"token": token})).await.json();
    let forged = given["ticket"].as_str().unwrap().replacen(['b', 'c', 'd', 'e'], "f", 1);
    for ticket in [forged, token, String::new()] {
        let connect = Connect { ticket: Some(ticket), ..Connect::default() };
        let refused = Session::with(&server, Via::Websocket, connect).await.err().unwrap();
        assert_eq!(code(&refused), ErrorCode::InvalidToken);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_needs_no_preflight_for_a_ticket() {
    let server = ServerProcess::with(&["--set", "origins=https://app.example"]).await;
    let headers = [("content-type", "text/plain;charset=UTF-8"), ("origin", "https://app.example")];
    let body = json!({"token": ann(&server).await}).to_string();
    let answer = request(server.http, "POST", "/v1/tickets", &headers, &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let headers = [("content-type", "text/plain"), ("origin", "https://evil.example")];
    assert_eq!(request(server.http, "POST", "/v1/tickets", &headers, &body).await.status, 403);
}

#[tokio::test]
async fn an_operator_lists_the_nodes_and_has_one_leave() {
    let mut server = ServerProcess::with(&["--name", "n1", "--set", "auth.anonymous=false"]).await;
    assert_eq!(get(server.http, "/v1/nodes").await.status, 401);
    let of_ann = format!("Bearer {}", ann(&server).await);
    assert_eq!(
        post_as(server.http, "/v1/drain", &[("authorization", &of_ann)], &json!({})).await.status,
        403
    );

    let (url, key) = (server.url(), server.dev_key("api_key"));
    let listed = run(&["node", "list", "--json", "--server", &url, "--api-key", &key]).await;
    let node: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&node["id"], &node["url"]), (&json!("n1"), &json!(url)));
    assert_eq!((&node["roles"], &node["draining"]), (&json!(["session", "channel"]), &json!(false)));
    let listed = run(&["node", "list", "--server", &url, "--api-key", &key]).await;
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with("n1 "));

    let line = the_line(&run(&["node", "drain", "n2", "--server", &url, "--api-key", &key]).await);
    assert!(line.contains("there is no node `n2`; there are: n1"), "{line}");
    let left = run(&["node", "drain", "n1", "--server", &url, "--api-key", &key]).await;
    assert_eq!(String::from_utf8(left.stdout).unwrap(), "n1 has left\n");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_node_does_what_its_role_says() {
    let session = ServerProcess::with(&["--role", "session"]).await;
    // It has nobody to send clients to.
    let answer = post(session.http, "/v1/tickets", &json!({})).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_node"));
    assert_eq!(request(session.http, "POST", "/v1/poll", &[], "{}").await.status, 404);
    assert_eq!(get(session.http, "/v1/channels/room:a/history").await.status, 200);

    let channel = ServerProcess::with(&["--role", "channel"]).await;
    assert_eq!(post(channel.http, "/v1/tickets", &json!({})).await.status, 404);
    assert_eq!(get(channel.http, "/v1/channels/room:a/history").await.status, 404);
    for via in WIRES {
        Session::open(&channel, via).await.publish("room:a", 1).await.unwrap();
    }
}

#[tokio::test]
async fn half_a_cluster_is_no_configuration() {
    for (set, missing) in [
        ("redis.url=redis://127.0.0.1:1", "`mongodb.url` is missing"),
        ("mongodb.url=mongodb://127.0.0.1:1", "`redis.url` is missing"),
        ("node.name=a b", "`node.name` is \"a b\""),
        ("node.roles=[]", "`node.roles` is empty"),
    ] {
        let line = the_line(&run(&["config", "check", "--set", set]).await);
        assert!(line.contains(missing), "{line}");
    }
}

#[tokio::test]
async fn an_operator_sees_which_channels_and_users_are_active() {
    let server = ServerProcess::with(&["--name", "n1"]).await;
    let nobody = get(server.http, "/v1/active/channels").await.json();
    assert_eq!(nobody, json!({ "node": "n1", "total": 0, "items": [] }));
    let token = run(&["token", "--data", server.data.to_str().unwrap(), "--user", "ann"]).await;
    let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
    let connect = || Connect { token: Some(token.clone()), ..Connect::default() };
    let mut one = Session::with(&server, Via::Websocket, connect()).await.unwrap();
    let mut other = Session::with(&server, Via::Quic, connect()).await.unwrap();
    for channel in ["room:a", "room:b", "room:c"] {
        one.subscribe(channel).await.unwrap();
    }
    other.subscribe("room:b").await.unwrap();

    let users = get(server.http, "/v1/active/users").await.json();
    assert_eq!(users, json!({ "node": "n1", "total": 1, "items": [{ "user": "ann", "sessions": 2 }] }));
    // By pages: each channel once, in the order of the names.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(server.http, &format!("/v1/active/channels?limit=1{cursor}")).await.json();
        assert!(page["items"].as_array().unwrap().len() <= 1);
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page.get("next") else { break };
        cursor = format!("&cursor={}", next.as_str().unwrap());
    }
    let rooms: Vec<_> =
        seen.iter().filter(|item| item["channel"].as_str().unwrap().starts_with("room:")).collect();
    let active = |channel, subscribers: u32| json!({ "channel": channel, "subscribers": subscribers });
    assert_eq!(rooms, [&active("room:a", 1), &active("room:b", 2), &active("room:c", 1)]);

    for query in ["limit=0", "limit=201", "cursor=%21", "of=users"] {
        let answer = get(server.http, &format!("/v1/active/users?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"), "{query}");
    }
    let as_ann = [("authorization", &*format!("Bearer {token}"))];
    let refused = request(server.http, "GET", "/v1/active/users", &as_ann, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "permission_denied"));
    super::process::until("the node tells the counts", async || {
        let node = get(server.http, "/v1/nodes").await.json()["nodes"][0].clone();
        node["users"] == 1 && node["channels"].as_u64() >= Some(3)
    })
    .await;
}
