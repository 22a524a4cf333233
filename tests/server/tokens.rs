//! What `xpush token` signs is taken, and grants what it says for as long as it says.

use xpush::client::Via;
use xpush_protocol::{
    ClientFrame, Connect, ErrorCode, History, Refresh, Send, ServerFrame, Target, UnsubscribeReason,
};

use super::{
    client::{Session, WIRES, channel, code},
    http::{post_as, request},
    process::{ServerProcess, run, the_line},
};

pub(crate) async fn token(server: &ServerProcess, arguments: &[&str]) -> String {
    let data = server.data.to_str().unwrap();
    let output = run(&[&["token", "--data", data], arguments].concat()).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_token_says_who_it_is_on_every_wire() {
    let server = ServerProcess::start().await;
    let token = token(&server, &["--user", "ann"]).await;
    for via in WIRES {
        let mut session = Session::user(&server, via, &token).await.unwrap();
        assert_eq!(session.connected.user.as_ref().map(|user| user.as_str()), Some("ann"));
        let left = session.connected.expires_in.unwrap();
        assert!((3500..=3605).contains(&left), "{left}");
        session.subscribe("room:a").await.unwrap();
        session.publish("room:a", 1).await.unwrap();
        let publication = loop {
            if let ServerFrame::Publication(publication) = session.event().await {
                break publication;
            }
        };
        assert_eq!(publication.user.as_ref().map(|user| user.as_str()), Some("ann"));
        session.client.close().await;
    }
}

#[tokio::test]
async fn grants_hold_over_the_wire_and_over_http() {
    let server = ServerProcess::start().await;
    let grants =
        ["--user", "ann", "--channel", "room:*=subscribe,history", "--channel", "room:{user}=publish"];
    let token = token(&server, &grants).await;
    for via in WIRES {
        let mut session = Session::user(&server, via, &token).await.unwrap();
        session.subscribe("room:hall").await.unwrap();
        session.publish("room:ann", 1).await.unwrap();
        let denied = |error| assert_eq!(code(&error), ErrorCode::PermissionDenied, "{via}");
        denied(session.publish("room:hall", 1).await.unwrap_err());
        denied(session.subscribe("live:hall").await.unwrap_err());
        let history = |id| {
            ClientFrame::History(History {
                id,
                channel: channel("live:a"),
                cursor: None,
                backward: false,
                limit: None,
            })
        };
        denied(session.call(history).await.unwrap_err());
        let to = Target::Session(session.connected.session.clone());
        let data = Some(xpush_protocol::Json::parse("1").unwrap());
        let send = |id| ClientFrame::Send(Send { id, to, event: Default::default(), data, binary: None });
        denied(session.call(send).await.unwrap_err());
        session.client.close().await;
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let publish = |name: &str| serde_json::json!({ "channels": [name], "data": 1 });
    assert_eq!(post_as(server.http, "/v1/publish", &headers, &publish("room:ann")).await.status, 200);
    assert_eq!(post_as(server.http, "/v1/publish", &headers, &publish("room:hall")).await.status, 403);
    let answer = request(server.http, "GET", "/v1/channels/room:hall/history", &headers, "").await;
    assert_eq!(answer.status, 200);
    let answer = request(server.http, "GET", "/v1/channels/room:hall/presence", &headers, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "permission_denied"));
}

#[tokio::test]
async fn expiry_ends_the_rights_and_a_refresh_brings_them_back() {
    let server = ServerProcess::start().await;
    let mut sessions = Vec::new();
    // The server grants some seconds of leeway: at 0 it still lets in.
    let short = token(&server, &["--user", "ann", "--expires-in", "1"]).await;
    for via in WIRES {
        let mut session = Session::user(&server, via, &short).await.unwrap();
        session.subscribe("room:a").await.unwrap();
        sessions.push((via, session));
    }
    let long = token(&server, &["--user", "ann"]).await;
    for (via, session) in &mut sessions {
        let mut ended = None;
        loop {
            match session.event().await {
                ServerFrame::Unsubscribed(unsubscribed) => ended = Some(unsubscribed.reason),
                ServerFrame::Expired(_) => break,
                _ => {}
            }
        }
        assert_eq!(ended, Some(UnsubscribeReason::TokenExpired), "{via}");
        session.ping().await;
        assert_eq!(code(&session.publish("room:a", 1).await.unwrap_err()), ErrorCode::TokenExpired);
        assert_eq!(code(&session.subscribe("room:a").await.unwrap_err()), ErrorCode::TokenExpired);
        let token = long.clone();
        let refreshed = session.call(|id| ClientFrame::Refresh(Refresh { id, token })).await.unwrap();
        assert!(matches!(refreshed, ServerFrame::Refreshed(_)), "{refreshed:?}");
        session.subscribe("room:a").await.unwrap();
        session.publish("room:a", 2).await.unwrap();
    }
    let error =
        Session::with(&server, Via::Websocket, Connect { token: Some(short.clone()), ..Connect::default() });
    assert_eq!(code(&error.await.err().unwrap()), ErrorCode::TokenExpired);
    let bearer = format!("Bearer {short}");
    let answer =
        request(server.http, "GET", "/v1/channels/room:a/history", &[("authorization", &bearer)], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "token_expired"));
}

#[tokio::test]
async fn a_token_that_cannot_be_signed_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for (arguments, wanted) in [
        (["--user", "ann", "--channel", "room:*"], "expected PATTERN=PERMISSIONS"),
        (["--user", "ann", "--channel", "room:*=fly"], "fly"),
        (["--user", "ann", "--expires-in", "18446744073709551615"], "--expires-in"),
        (["--user", "ann", "--config", "/nowhere.toml"], "/nowhere.toml"),
    ] {
        let line = the_line(&run(&[&["token", "--data", data][..], &arguments].concat()).await);
        assert!(line.contains(wanted), "{line}");
    }
}
