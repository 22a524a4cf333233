//! Apps, users, logins and devices over HTTP, and what becomes of somebody who may not.

use std::{
    net::SocketAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use xpush::{
    auth::{Algorithm, Signer},
    client::Via,
};
use xpush_protocol::ErrorCode;

use super::{
    client::{Session, code},
    http::{Response, get, request},
    process::{ServerProcess, run, until},
};

const PASSWORD: &str = "correct horse";

/// A call with a token or a key; an empty one is none.
async fn call(address: SocketAddr, method: &str, path: &str, credential: &str, body: Value) -> Response {
    with(address, method, path, credential, &[], body).await
}

async fn with(
    address: SocketAddr,
    method: &str,
    path: &str,
    credential: &str,
    more: &[(&str, &str)],
    body: Value,
) -> Response {
    let bearer = format!("Bearer {credential}");
    let mut headers = more.to_vec();
    if !credential.is_empty() {
        headers.push(("authorization", &bearer));
    }
    let text = if body.is_null() { String::new() } else { body.to_string() };
    if !body.is_null() {
        headers.push(("content-type", "application/json"));
    }
    request(address, method, path, &headers, text).await
}

/// A new user, who is logged in.
async fn register(server: &ServerProcess, user: &str) -> Value {
    let body = json!({ "user": user, "password": PASSWORD, "device": { "device": "phone" } });
    let answer = call(server.http, "POST", "/v1/users", "", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

async fn login(server: &ServerProcess, user: &str, device: Option<&str>) -> Value {
    let mut body = json!({ "user": user, "password": PASSWORD });
    if let Some(device) = device {
        body["device"] = json!({ "device": device, "platform": "web" });
    }
    let answer = call(server.http, "POST", "/v1/login", "", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn token(tokens: &Value) -> &str {
    tokens["access_token"].as_str().unwrap()
}

async fn refresh(server: &ServerProcess, tokens: &Value) -> Response {
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    call(server.http, "POST", "/v1/login/refresh", "", body).await
}

/// Whether a token lets its user see itself.
async fn lets_in(server: &ServerProcess, user: &str, tokens: &Value) -> bool {
    let answer = call(server.http, "GET", &format!("/v1/users/{user}"), token(tokens), Value::Null).await;
    match answer.status {
        200 => true,
        401 => false,
        _ => panic!("{answer:?}"),
    }
}

fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
}

#[tokio::test]
async fn a_user_signs_up_logs_in_and_comes_in_by_every_wire() {
    let server = ServerProcess::start().await;
    let tokens = register(&server, "ann").await;
    assert_eq!((&tokens["user"], &tokens["app"]), (&json!("ann"), &json!("default")));
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(600)));
    assert_eq!(tokens["device"], "phone");
    for via in super::client::WIRES {
        let mut session = Session::user(&server, via, token(&tokens)).await.unwrap();
        assert_eq!(session.connected.user.as_ref().map(|user| user.as_str()), Some("ann"));
        // The token says who somebody is, and grants no channel.
        assert_eq!(code(&session.subscribe("room:a").await.unwrap_err()), ErrorCode::PermissionDenied);
        session.client.close().await;
    }
    let again = json!({ "user": "ann", "password": PASSWORD });
    refused(&call(server.http, "POST", "/v1/users", "", again).await, 409, "already_exists");
    let refreshed = refresh(&server, &login(&server, "ann", None).await).await;
    assert_eq!(refreshed.status, 200);
    assert!(lets_in(&server, "ann", &refreshed.json()).await);
    let keys = get(server.http, "/v1/jwks.json").await.json();
    let key = &keys["keys"][0];
    assert_eq!((&key["kty"], &key["alg"], &key["crv"]), (&json!("OKP"), &json!("EdDSA"), &json!("Ed25519")));
    assert!(key.get("d").is_none());
}

#[tokio::test]
async fn a_login_does_not_tell_whether_there_is_such_a_user() {
    const TRIES: usize = 15;
    let server = ServerProcess::start().await;
    register(&server, "ann").await;
    let mut times = [Vec::new(), Vec::new()];
    let mut bodies = Vec::new();
    // By turns: whatever else the machine does, it does to both.
    for _ in 0..TRIES {
        for (user, times) in ["ann", "nobody"].iter().zip(&mut times) {
            let began = Instant::now();
            let body = json!({ "user": user, "password": "wrong horse" });
            let answer = call(server.http, "POST", "/v1/login", "", body).await;
            times.push(began.elapsed());
            refused(&answer, 401, "invalid_credentials");
            bodies.push(answer.text().to_owned());
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let [known, unknown] = times.map(|mut times| {
        times.sort();
        times[TRIES / 2].as_secs_f64()
    });
    // Without a hash to compare with it would be some hundred times faster.
    assert!((0.3..3.0).contains(&(known / unknown)), "{known} s, {unknown} s");
}

#[tokio::test]
async fn a_flood_of_logins_is_told_to_come_again_and_messages_go_on() {
    const LOGINS: usize = 200;
    let server = ServerProcess::start().await;
    register(&server, "ann").await;
    let mut session = Session::open(&server, Via::Websocket).await;
    let address = server.http;
    let logins = (0..LOGINS).map(|_| {
        let body = json!({ "user": "ann", "password": "wrong horse" });
        tokio::spawn(async move { call(address, "POST", "/v1/login", "", body).await })
    });
    let logins: Vec<_> = logins.collect();
    for n in 0..20 {
        session.publish("room:a", n).await.unwrap();
    }
    let mut busy = 0;
    for login in logins {
        let answer = login.await.unwrap();
        if answer.status == 503 {
            assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("busy", Some("1")));
            busy += 1;
        } else {
            refused(&answer, 401, "invalid_credentials");
        }
    }
    assert!(busy > 0 && busy < LOGINS, "{busy}");
    login(&server, "ann", None).await;
}

#[tokio::test]
async fn a_token_of_an_apps_issuer_lets_its_user_in() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    let pem = include_str!("../../src/auth/token/keys/ed25519.pub.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = STANDARD.decode(body).unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x5t": "of no concern",
        "x": URL_SAFE_NO_PAD.encode(&spki[spki.len() - 32..]) });
    let issuer = json!({ "issuer": "https://id.example", "audience": "shop", "jwks": { "keys": [jwk] } });
    let app = json!({ "app": "shop", "policy": { "issuers": [issuer] } });
    assert_eq!(call(server.http, "POST", "/v1/apps", &key, app).await.status, 201);
    let private = include_bytes!("../../src/auth/token/keys/ed25519.pem");
    let signer = Signer::new(Algorithm::EdDsa, Some("k1".into()), private).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let said =
        json!({ "iss": "https://id.example", "aud": "shop", "sub": "ann", "iat": now, "exp": now + 60 });
    let token = signer.sign(&said).unwrap();
    let mut session = Session::user(&server, Via::Websocket, &token).await.unwrap();
    session.ping().await;
    // Such a user has a record once it is asked for, by its backend say.
    let made = json!({ "user": "ann", "password": null });
    let in_shop = [("x-xpush-app", "shop")];
    assert_eq!(with(server.http, "POST", "/v1/users", &key, &in_shop, made).await.status, 201);
    let seen = call(server.http, "GET", "/v1/users/ann", &token, Value::Null).await;
    assert_eq!((seen.status, &seen.json()["has_password"]), (200, &json!(false)));
    let revoked = with(server.http, "POST", "/v1/users/ann/revoke", &key, &in_shop, Value::Null).await;
    assert_eq!(revoked.status, 204);
    refused(&call(server.http, "GET", "/v1/users/ann", &token, Value::Null).await, 401, "invalid_token");
    until("the session has ended", async || session.client.event().await.is_err()).await;
    for wrong in [json!({ "aud": "other" }), json!({ "exp": 1 }), json!({ "iss": "https://other.example" })] {
        let mut claims = said.clone();
        claims.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let token = signer.sign(&claims).unwrap();
        assert_eq!(
            call(server.http, "GET", "/v1/users/ann", &token, Value::Null).await.status,
            401,
            "{wrong}"
        );
    }
    // Whom nobody but the issuer knows is taken back as well, and all of them go with the app.
    let of = |user: &str| {
        let mut claims = said.clone();
        claims["sub"] = json!(user);
        signer.sign(&claims).unwrap()
    };
    let mut bob = Session::user(&server, Via::Websocket, &of("bob")).await.unwrap();
    let mut eve = Session::user(&server, Via::Websocket, &of("eve")).await.unwrap();
    let revoked = with(server.http, "POST", "/v1/users/bob/revoke", &key, &in_shop, Value::Null).await;
    assert_eq!(revoked.status, 204, "{revoked:?}");
    until("bob's session has ended", async || bob.client.event().await.is_err()).await;
    eve.ping().await;
    assert_eq!(call(server.http, "DELETE", "/v1/apps/shop", &key, Value::Null).await.status, 204);
    until("eve's session has ended", async || eve.client.event().await.is_err()).await;
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_its_login_and_its_session() {
    let server = ServerProcess::start().await;
    let first = register(&server, "ann").await;
    let other = login(&server, "ann", None).await;
    let second = refresh(&server, &first).await.json();
    let mut session = Session::user(&server, Via::Websocket, token(&second)).await.unwrap();
    session.ping().await;
    refused(&refresh(&server, &first).await, 401, "invalid_token");
    refused(&refresh(&server, &second).await, 401, "invalid_token");
    assert!(!lets_in(&server, "ann", &second).await && lets_in(&server, "ann", &other).await);
    until("the session has ended", async || session.client.event().await.is_err()).await;
    for text in ["", "xpr_", token(&other), r#"{"$ne":null}"#] {
        let body = json!({ "refresh_token": text });
        refused(&call(server.http, "POST", "/v1/login/refresh", "", body).await, 401, "invalid_token");
    }
}

#[tokio::test]
async fn what_is_taken_back_is_gone_at_once() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    register(&server, "ann").await;
    let logout = ("POST", "/v1/logout", json!({}));
    let device = ("DELETE", "/v1/users/ann/devices/tablet", Value::Null);
    let revoke = ("POST", "/v1/users/ann/revoke", Value::Null);
    let deactivate = ("POST", "/v1/users/ann/deactivate", Value::Null);
    let all = ("POST", "/v1/logout", json!({ "all": true }));
    for (method, path, body) in [logout, device, revoke, all, deactivate] {
        let tokens = login(&server, "ann", Some("tablet")).await;
        let mut session = Session::user(&server, Via::Websocket, token(&tokens)).await.unwrap();
        session.ping().await;
        let answer = call(server.http, method, path, token(&tokens), body).await;
        assert_eq!(answer.status, 204, "{path} {answer:?}");
        assert!(!lets_in(&server, "ann", &tokens).await, "{path}");
        assert_eq!(refresh(&server, &tokens).await.status, 401, "{path}");
        let refused = Session::user(&server, Via::Websocket, token(&tokens)).await.err().unwrap();
        assert_eq!(code(&refused), ErrorCode::InvalidToken, "{path}");
        until("the session has ended", async || session.client.event().await.is_err()).await;
    }
    let body = json!({ "user": "ann", "password": PASSWORD });
    refused(&call(server.http, "POST", "/v1/login", "", body).await, 403, "permission_denied");
    assert_eq!(call(server.http, "POST", "/v1/users/ann/activate", &key, Value::Null).await.status, 204);
    login(&server, "ann", None).await;
}

#[tokio::test]
async fn a_new_password_leaves_this_login_alone() {
    let server = ServerProcess::start().await;
    let here = register(&server, "ann").await;
    let there = login(&server, "ann", None).await;
    let path = "/v1/users/ann/password";
    let wrong = json!({ "old": "wrong horse", "new": "a better horse" });
    refused(&call(server.http, "PUT", path, token(&here), wrong).await, 401, "invalid_credentials");
    let short = json!({ "old": PASSWORD, "new": "short" });
    refused(&call(server.http, "PUT", path, token(&here), short).await, 400, "invalid_field");
    let right = json!({ "old": PASSWORD, "new": "a better horse" });
    assert_eq!(call(server.http, "PUT", path, token(&here), right).await.status, 204);
    assert!(lets_in(&server, "ann", &here).await && !lets_in(&server, "ann", &there).await);
}

#[tokio::test]
async fn nobody_sees_or_sets_what_is_not_its_own() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (register(&server, "ann").await, register(&server, "bob").await);
    let profile = json!({ "name": "Ann", "locale": "de", "data": { "size": 3 } });
    let answer = call(server.http, "PATCH", "/v1/users/ann", token(&ann), profile).await;
    assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("Ann")));
    let seen = call(server.http, "GET", "/v1/users/ann", token(&bob), Value::Null).await.json();
    assert_eq!(seen, json!({ "user": "ann", "name": "Ann" }));
    for (method, path, body) in [
        ("PATCH", "/v1/users/ann", json!({ "name": "Bob" })),
        ("DELETE", "/v1/users/ann", Value::Null),
        ("GET", "/v1/users/ann/export", Value::Null),
        ("PUT", "/v1/users/ann/password", json!({ "new": "a better horse" })),
        ("POST", "/v1/users/ann/deactivate", Value::Null),
        ("POST", "/v1/users/ann/activate", Value::Null),
        ("POST", "/v1/users/ann/revoke", Value::Null),
        ("GET", "/v1/users/ann/devices", Value::Null),
        ("POST", "/v1/users/ann/devices", json!({})),
        ("GET", "/v1/users/ann/devices/phone", Value::Null),
        ("PATCH", "/v1/users/ann/devices/phone", json!({ "name": "mine" })),
        ("DELETE", "/v1/users/ann/devices/phone", Value::Null),
        ("GET", "/v1/users/ann/presence", Value::Null),
        ("POST", "/v1/apps", json!({ "app": "shop" })),
        ("GET", "/v1/apps", Value::Null),
        ("GET", "/v1/apps/default", Value::Null),
        ("PATCH", "/v1/apps/default", json!({})),
        ("DELETE", "/v1/apps/default", Value::Null),
        ("GET", "/v1/apps/default/keys", Value::Null),
        ("POST", "/v1/apps/default/keys", json!({})),
        ("DELETE", "/v1/apps/default/keys/x", Value::Null),
    ] {
        let answer = call(server.http, method, path, token(&bob), body).await;
        refused(&answer, 403, "permission_denied");
    }
    let as_ann = json!({ "all": true, "as": "ann" });
    refused(&call(server.http, "POST", "/v1/logout", token(&bob), as_ann).await, 400, "invalid_field");
    // What is no field of it can't be set, whoever asks.
    let key = server.dev_key("api_key");
    for credential in [token(&ann), key.as_str()] {
        for field in
            ["role", "app", "verified", "password", "deactivated", "created", "valid_from", "user", "$set"]
        {
            let answer = call(server.http, "PATCH", "/v1/users/ann", credential, json!({ field: 1 })).await;
            refused(&answer, 422, "invalid_field");
            assert!(answer.text().contains(field), "{answer:?}");
        }
        for field in ["created", "last_seen", "user", "connected"] {
            let answer =
                call(server.http, "PATCH", "/v1/users/ann/devices/phone", credential, json!({ field: 1 }))
                    .await;
            refused(&answer, 422, "invalid_field");
        }
    }
    assert!(lets_in(&server, "ann", &ann).await);
}

#[tokio::test]
async fn an_operator_of_a_query_language_is_a_text_or_refused() {
    let server = ServerProcess::start().await;
    let ann = register(&server, "ann").await;
    let operator = json!({ "$gt": "" });
    for (method, path, body) in [
        ("POST", "/v1/login", json!({ "user": operator, "password": PASSWORD })),
        ("POST", "/v1/login", json!({ "user": "ann", "password": operator })),
        ("POST", "/v1/login", json!({ "user": "ann", "password": PASSWORD, "app": operator })),
        ("POST", "/v1/login", json!({ "user": "ann", "password": PASSWORD, "device": operator })),
        ("POST", "/v1/login", json!({ "user": "ann", "password": PASSWORD, "$where": "1" })),
        ("POST", "/v1/login/refresh", json!({ "refresh_token": operator })),
        ("POST", "/v1/users", json!({ "user": operator, "password": PASSWORD })),
        ("POST", "/v1/users", json!({ "user": "eve", "password": PASSWORD, "role": "admin" })),
        ("POST", "/v1/users", json!({ "user": "eve", "password": PASSWORD, "name": operator })),
        ("PATCH", "/v1/users/ann", json!({ "name": operator })),
        ("PUT", "/v1/users/ann/password", json!({ "old": operator, "new": "a better horse" })),
        ("POST", "/v1/users/ann/devices", json!({ "device": operator })),
        ("POST", "/v1/logout", json!({ "all": operator })),
    ] {
        let answer = call(server.http, method, path, token(&ann), body.clone()).await;
        assert_eq!(answer.status, 422, "{path} {body} {answer:?}");
    }
    for text in [r#"{"$gt":""}"#, "a.b", "$where", "ann\" || \"1"] {
        let body = json!({ "user": text, "password": text });
        refused(&call(server.http, "POST", "/v1/login", "", body).await, 401, "invalid_credentials");
    }
    // Free data is whatever JSON it is, and comes back as it was.
    let data = json!({ "$where": "sleep(1)", "a.b": { "$gt": "" } });
    let answer = call(server.http, "PATCH", "/v1/users/ann", token(&ann), json!({ "data": data })).await;
    assert_eq!(answer.json()["data"], data);
    let large = json!({ "data": { "x": "y".repeat(9000) } });
    refused(&call(server.http, "PATCH", "/v1/users/ann", token(&ann), large).await, 400, "invalid_field");
}

#[tokio::test]
async fn apps_have_users_keys_and_policies_of_their_own() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    let policy = json!({ "registration": "open", "login": "per_user", "access_token_ttl": 60 });
    let body = json!({ "app": "shop", "name": "The shop", "policy": policy });
    let created = call(server.http, "POST", "/v1/apps", &key, body.clone()).await;
    assert_eq!((created.status, created.header("location")), (201, Some("/v1/apps/shop")), "{created:?}");
    refused(&call(server.http, "POST", "/v1/apps", &key, body).await, 409, "already_exists");
    let made = call(server.http, "POST", "/v1/apps/shop/keys", &key, json!({ "name": "backend" })).await;
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let made = made.json();
    let (id, shop_key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(made.get("hash").is_none());
    let listed = call(server.http, "GET", "/v1/apps/shop/keys", &key, Value::Null).await;
    assert!(!listed.text().contains("hash") && !listed.text().contains(shop_key), "{listed:?}");

    // The same name is another user in each app.
    register(&server, "ann").await;
    let body = json!({ "user": "ann", "password": "another horse", "app": "shop" });
    let there = call(server.http, "POST", "/v1/users", "", body).await;
    assert_eq!(there.status, 201, "{there:?}");
    let there = there.json();
    assert_eq!((&there["app"], &there["expires_in"]), (&json!("shop"), &json!(60)));
    let wrong = json!({ "user": "ann", "password": PASSWORD, "app": "shop" });
    refused(&call(server.http, "POST", "/v1/login", "", wrong).await, 401, "invalid_credentials");
    let unknown = json!({ "user": "ann", "password": PASSWORD, "app": "nowhere" });
    refused(&call(server.http, "POST", "/v1/login", "", unknown).await, 401, "invalid_credentials");
    let users = call(server.http, "GET", "/v1/users", shop_key, Value::Null).await.json();
    assert_eq!(users["items"].as_array().unwrap().len(), 1);
    let as_operator =
        with(server.http, "GET", "/v1/users", &key, &[("x-xpush-app", "shop")], Value::Null).await.json();
    assert_eq!(as_operator, users);
    for credential in [shop_key, token(&there)] {
        let foreign =
            with(server.http, "GET", "/v1/users/ann", credential, &[("x-xpush-app", "default")], Value::Null);
        refused(&foreign.await, 403, "permission_denied");
    }
    let foreign = json!({ "user": "bob", "password": PASSWORD, "app": "default" });
    refused(&call(server.http, "POST", "/v1/users", shop_key, foreign).await, 403, "permission_denied");
    for path in ["/v1/apps", "/v1/apps/shop", "/v1/nodes"] {
        refused(&call(server.http, "GET", path, shop_key, Value::Null).await, 403, "permission_denied");
    }

    // One login at a time there.
    let body = json!({ "user": "ann", "password": "another horse", "app": "shop" });
    let second = call(server.http, "POST", "/v1/login", "", body).await.json();
    assert!(!lets_in(&server, "ann", &there).await && lets_in(&server, "ann", &second).await);

    let at = format!("/v1/apps/shop/keys/{id}");
    assert_eq!(call(server.http, "DELETE", &at, &key, Value::Null).await.status, 204);
    until("the key is over", async || {
        call(server.http, "GET", "/v1/users", shop_key, Value::Null).await.status == 401
    })
    .await;
    assert_eq!(call(server.http, "DELETE", "/v1/apps/shop", &key, Value::Null).await.status, 204);
    assert!(!lets_in(&server, "ann", &second).await);
    refused(&call(server.http, "GET", "/v1/apps/shop", &key, Value::Null).await, 404, "not_found");
    refused(
        &call(server.http, "DELETE", "/v1/apps/default", &key, Value::Null).await,
        403,
        "permission_denied",
    );
}

#[tokio::test]
async fn a_policy_is_changed_by_name_and_by_version() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    let app = call(server.http, "GET", "/v1/apps/default", &key, Value::Null).await;
    assert_eq!(app.json()["policy"]["registration"], "open");
    let closed = json!({ "policy": { "registration": "closed", "user_search": false } });
    let answer = call(server.http, "PATCH", "/v1/apps/default", &key, closed).await;
    assert_eq!((answer.status, &answer.json()["policy"]["registration"]), (200, &json!("closed")));
    let etag = answer.header("etag").unwrap().to_owned();
    let body = json!({ "user": "ann", "password": PASSWORD });
    until("nobody may register", async || {
        call(server.http, "POST", "/v1/users", "", body.clone()).await.status == 403
    })
    .await;
    // A backend still may, and its users need no password.
    let made = call(server.http, "POST", "/v1/users", &key, json!({ "user": "bob" })).await;
    assert_eq!(made.status, 201, "{made:?}");
    refused(
        &call(server.http, "GET", "/v1/users?q=a", token(&made.json()), Value::Null).await,
        403,
        "permission_denied",
    );

    let stale = [("if-match", "\"0\"")];
    let change = json!({ "name": "Mine" });
    let answer = with(server.http, "PATCH", "/v1/apps/default", &key, &stale, change.clone()).await;
    refused(&answer, 412, "precondition_failed");
    let fresh = [("if-match", etag.as_str())];
    assert_eq!(with(server.http, "PATCH", "/v1/apps/default", &key, &fresh, change).await.status, 200);
    for policy in [json!({ "role": 1 }), json!({ "quotas": { "x": 1 } }), json!({ "login": { "$gt": "" } })] {
        let body = json!({ "policy": policy });
        refused(&call(server.http, "PATCH", "/v1/apps/default", &key, body).await, 400, "invalid_field");
    }
    refused(
        &call(server.http, "PATCH", "/v1/apps/default", &key, json!({ "app": "x" })).await,
        422,
        "invalid_field",
    );
}

#[tokio::test]
async fn users_and_devices_come_page_by_page() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    for n in 0..5 {
        let body = json!({ "user": format!("u{n}"), "name": format!("Ann {n}") });
        assert_eq!(call(server.http, "POST", "/v1/users", &key, body).await.status, 201);
    }
    for list in ["/v1/users?limit=2", "/v1/users?q=ann&limit=2", "/v1/users?q=u&field=user&limit=2"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = call(server.http, "GET", &format!("{list}{cursor}"), &key, Value::Null).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|user| user["user"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ["u0", "u1", "u2", "u3", "u4"], "{list}");
    }
    for bad in ["limit=0", "limit=1000", "limit=x", "cursor=*", "field=password&q=a", "q=", "x=1", "$where=1"]
    {
        let answer = call(server.http, "GET", &format!("/v1/users?{bad}"), &key, Value::Null).await;
        refused(&answer, 400, "invalid_field");
    }
    let ann = register(&server, "ann").await;
    let body = json!({ "name": "Tablet", "platform": "android", "push": { "kind": "fcm", "token": "t" } });
    let device = call(server.http, "POST", "/v1/users/ann/devices", token(&ann), body).await;
    assert_eq!(device.status, 201, "{device:?}");
    let id = device.json()["device"].as_str().unwrap().to_owned();
    let at = format!("/v1/users/ann/devices/{id}");
    let renamed = call(server.http, "PATCH", &at, token(&ann), json!({ "name": "Old", "push": null })).await;
    let renamed_body = renamed.json();
    assert_eq!((&renamed_body["name"], renamed_body.get("push")), (&json!("Old"), None));
    let stale = [("if-match", device.header("etag").unwrap())];
    let answer = with(server.http, "DELETE", &at, token(&ann), &stale, Value::Null).await;
    refused(&answer, 412, "precondition_failed");
    let fresh = [("if-match", renamed.header("etag").unwrap())];
    assert_eq!(with(server.http, "DELETE", &at, token(&ann), &fresh, Value::Null).await.status, 204);
    let devices = call(server.http, "GET", "/v1/users/ann/devices", token(&ann), Value::Null).await.json();
    assert_eq!(devices["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_user_takes_its_data_along_and_is_gone() {
    let server = ServerProcess::start().await;
    let ann = register(&server, "ann").await;
    let export = call(server.http, "GET", "/v1/users/ann/export", token(&ann), Value::Null).await;
    assert_eq!((export.status, &export.json()["devices"][0]["device"]), (200, &json!("phone")));
    assert!(!export.text().contains("argon2") && !export.text().contains("hash"), "{export:?}");
    let key = server.dev_key("api_key");
    let bob = register(&server, "bob").await;
    let asks = call(server.http, "PUT", "/v1/users/bob/friends/ann", token(&bob), Value::Null).await;
    assert_eq!(asks.status, 200, "{asks:?}");
    let inbox = async || {
        let page = call(server.http, "GET", "/v1/channels/inbox:ann/history", &key, Value::Null).await;
        assert_eq!(page.status, 200, "{page:?}");
        page.json()["publications"].as_array().unwrap().clone()
    };
    until("ann is told", async || inbox().await.iter().any(|told| told["data"].to_string().contains("bob")))
        .await;
    assert_eq!(call(server.http, "DELETE", "/v1/users/ann", token(&ann), Value::Null).await.status, 204);
    assert!(!lets_in(&server, "ann", &ann).await);
    for told in inbox().await {
        assert_eq!((&told["event"], &told["data"]), (&json!("xpush.deleted"), &Value::Null), "{told}");
    }
    let body = json!({ "user": "ann", "password": PASSWORD });
    refused(&call(server.http, "POST", "/v1/login", "", body.clone()).await, 401, "invalid_credentials");
    // Nobody else becomes her.
    refused(&call(server.http, "POST", "/v1/users", "", body.clone()).await, 409, "already_exists");
    refused(&call(server.http, "POST", "/v1/users", &key, body).await, 409, "already_exists");
    refused(&call(server.http, "GET", "/v1/users/ann", &key, Value::Null).await, 404, "not_found");
}

#[tokio::test]
async fn a_registration_that_is_sent_again_is_done_once() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    let once = [("idempotency-key", "sign-up-1")];
    let body = json!({ "user": "ann", "password": PASSWORD });
    let first = with(server.http, "POST", "/v1/users", &key, &once, body.clone()).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = with(server.http, "POST", "/v1/users", &key, &once, body).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    let other = json!({ "user": "bob", "password": PASSWORD });
    refused(&with(server.http, "POST", "/v1/users", &key, &once, other).await, 422, "invalid_field");
}

#[tokio::test]
async fn friends_see_who_is_there_and_who_is_blocked_does_not() {
    let server = ServerProcess::start().await;
    let key = server.dev_key("api_key");
    let (ann, bob) = (register(&server, "ann").await, register(&server, "bob").await);
    let eve = register(&server, "eve").await;
    let seen = async |tokens: &Value| {
        call(server.http, "GET", "/v1/users/ann/presence", token(tokens), Value::Null).await
    };
    refused(&seen(&bob).await, 403, "permission_denied");
    for (tokens, path) in [(&bob, "/v1/users/bob/friends/ann"), (&ann, "/v1/users/ann/friends/bob")] {
        assert_eq!(call(server.http, "PUT", path, token(tokens), Value::Null).await.status, 200);
    }
    assert_eq!(seen(&bob).await.json()["state"], "offline");
    let mut session = Session::user(&server, Via::Websocket, token(&ann)).await.unwrap();
    session.subscribe("inbox:ann").await.unwrap();
    assert_eq!(seen(&bob).await.json()["state"], "online");
    until("ann was seen", async || seen(&bob).await.json()["last_seen"].is_u64()).await;
    refused(&seen(&eve).await, 403, "permission_denied");
    let nobody = json!({ "policy": { "presence": "nobody" } });
    assert_eq!(call(server.http, "PATCH", "/v1/apps/default", &key, nobody).await.status, 200);
    until("nobody sees it", async || seen(&bob).await.status == 403).await;
    let everyone = json!({ "policy": { "presence": "everyone" } });
    assert_eq!(call(server.http, "PATCH", "/v1/apps/default", &key, everyone).await.status, 200);
    until("everybody sees it", async || seen(&eve).await.status == 200).await;
    let block = call(server.http, "PUT", "/v1/users/ann/blocks/eve", token(&ann), Value::Null).await;
    assert_eq!(block.status, 200, "{block:?}");
    refused(&seen(&eve).await, 403, "permission_denied");
    assert_eq!((seen(&ann).await.status, seen(&bob).await.status), (200, 200));
}

#[tokio::test]
async fn an_app_says_which_pages_may_use_it() {
    let server = ServerProcess::with(&["--set", "origins=any"]).await;
    let key = server.dev_key("api_key");
    let policy = json!({ "registration": "open", "origins": ["https://shop.example"] });
    let made = call(server.http, "POST", "/v1/apps", &key, json!({ "app": "shop", "policy": policy })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let body = json!({ "user": "ann", "password": PASSWORD, "app": "shop" });
    let there = call(server.http, "POST", "/v1/users", "", body).await.json();
    let here = register(&server, "ann").await;
    for (origin, tokens, status) in [
        (None, &there, 200),
        (Some("https://shop.example"), &there, 200),
        (Some("https://evil.example"), &there, 403),
        (Some("https://evil.example"), &here, 200),
    ] {
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        let answer = with(server.http, "GET", "/v1/users/ann", token(tokens), &headers, Value::Null).await;
        assert_eq!(answer.status, status, "{origin:?} {answer:?}");
    }
}

#[tokio::test]
async fn the_operator_has_commands_for_apps_users_and_devices() {
    let server = ServerProcess::start().await;
    let url = server.url();
    let xpush = async |arguments: &[&str]| {
        let output = run(&[arguments, &["--server", &url]].concat()).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    xpush(&["app", "create", "shop", "--name", "The shop", "--policy", r#"{"registration":"open"}"#]).await;
    assert!(xpush(&["app", "list"]).await.contains("The shop"));
    assert!(xpush(&["app", "show", "shop"]).await.contains("\"registration\":\"open\""));
    xpush(&["app", "set", "shop", r#"{"login":"per_user"}"#]).await;
    let key = xpush(&["app", "key", "create", "shop", "--name", "backend"]).await;
    let key = key.trim();
    assert!(key.starts_with("xpk_"), "{key}");
    let id = key.split('_').nth(1).unwrap();
    assert!(xpush(&["app", "key", "list", "shop"]).await.contains(id));

    xpush(&["user", "create", "ann", "--app", "shop", "--password", PASSWORD]).await;
    assert!(xpush(&["user", "list", "--app", "shop"]).await.contains("ann"));
    assert!(!xpush(&["user", "list"]).await.contains("ann"));
    let body = json!({ "user": "ann", "password": PASSWORD, "app": "shop", "device": { "device": "phone" } });
    let tokens = call(server.http, "POST", "/v1/login", "", body).await.json();
    assert!(xpush(&["device", "list", "ann", "--app", "shop"]).await.contains("phone"));
    xpush(&["device", "revoke", "ann", "phone", "--app", "shop"]).await;
    assert!(!lets_in(&server, "ann", &tokens).await);
    xpush(&["user", "deactivate", "ann", "--app", "shop"]).await;
    assert!(xpush(&["user", "show", "ann", "--app", "shop"]).await.contains("\"deactivated\":true"));
    xpush(&["user", "activate", "ann", "--app", "shop"]).await;
    xpush(&["user", "export", "ann", "--app", "shop"]).await;
    xpush(&["user", "delete", "ann", "--app", "shop"]).await;
    xpush(&["app", "key", "delete", "shop", id]).await;
    xpush(&["app", "delete", "shop"]).await;
    let line = super::process::the_line(&run(&["app", "show", "shop", "--server", &url]).await);
    assert!(line.contains("404"), "{line}");
}
