//! The HTTP API, for backends and operators.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use xpush::client::Via;
use xpush_protocol::ErrorCode;

use super::{
    client::Session,
    http::{Response, get, post, post_as, request},
    process::{ServerProcess, run},
};

const FOREIGN: (&str, &str) = ("origin", "https://evil.example");

fn message(channels: &[&str], data: impl Into<Value>) -> Value {
    json!({ "channels": channels, "data": data.into() })
}

#[tokio::test]
async fn the_wires_are_named_by_the_host_that_was_called() {
    let server = ServerProcess::start().await;
    let answer = get(server.http, "/v1/transports").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let document = answer.json();
    let kinds: Vec<_> = document["transports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["webtransport", "quic", "websocket", "longpoll"]);
    let urls = document["transports"].to_string();
    assert!(urls.contains(&format!("ws://{}/v1/connect", server.http)), "{urls}");
    assert!(urls.contains(&format!("quic://{}", server.tls)), "{urls}");
    assert_eq!(document["certificate_hashes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_message_goes_to_many_channels_once() {
    let server = ServerProcess::start().await;
    let body =
        json!({ "channels": ["room:a", "room:b", "live:c"], "message_id": "order-17", "data": {"n": 1} });
    let first = post(server.http, "/v1/publish", &body).await;
    assert_eq!(first.status, 200, "{first:?}");
    let first = first.json();
    let results = first["results"].as_array().unwrap();
    let channels: Vec<_> = results.iter().map(|outcome| outcome["channel"].as_str().unwrap()).collect();
    assert_eq!(channels, ["room:a", "room:b", "live:c"]);
    assert!(
        results.iter().all(|outcome| outcome["cursor"]["offset"] == 1 && outcome.get("duplicate").is_none())
    );

    let retry = post(server.http, "/v1/publish", &body).await.json();
    for (retried, first) in retry["results"].as_array().unwrap().iter().zip(results) {
        assert_eq!((&retried["cursor"], &retried["duplicate"]), (&first["cursor"], &json!(true)));
    }
    let page = get(server.http, "/v1/channels/room:a/history").await.json();
    assert_eq!(page["publications"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_bad_channel_among_good_ones_has_its_own_outcome() {
    let server = ServerProcess::start().await;
    let body = message(&["room:a", "nowhere:b", "room:c"], 1);
    let answer = post(server.http, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].clone();
    assert_eq!(results[0]["cursor"]["offset"], 1);
    assert_eq!(results[1]["error"]["code"], "unknown_namespace");
    assert_eq!(results[1]["error"]["retry"], false);
    assert_eq!(results[2]["cursor"]["offset"], 1);

    let answer = post(server.http, "/v1/publish", &message(&["nowhere:b"], 1)).await;
    assert_eq!(
        (answer.status, &answer.json()["results"][0]["error"]["code"]),
        (404, &json!("unknown_namespace"))
    );
}

#[tokio::test]
async fn a_publish_that_is_none_is_refused_with_the_reason() {
    let server = ServerProcess::start().await;
    let many: Vec<String> = (0..101).map(|n| format!("room:{n}")).collect();
    for (body, status, code) in [
        (json!({ "channels": [], "data": 1 }), 400, "invalid_field"),
        (json!({ "channels": many, "data": 1 }), 400, "invalid_field"),
        (json!({ "channels": ["room:a"] }), 400, "invalid_field"),
        (json!({ "channels": ["room:a"], "data": 1, "binary": "AA==" }), 400, "invalid_field"),
        (json!({ "channels": ["room:a"], "binary": "not base64!" }), 422, "invalid_field"),
        (json!({ "channels": ["room:../etc"], "data": 1 }), 422, "invalid_name"),
        (json!({ "channels": ["room:a"], "data": 1, "dta": 2 }), 422, "invalid_field"),
        (json!({ "channels": "room:a", "data": 1 }), 422, "invalid_field"),
    ] {
        let answer = post(server.http, "/v1/publish", &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let json_type = [("content-type", "application/json")];
    let deep = format!(r#"{{"channels":["room:a"],"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let huge = message(&["room:a"], "x".repeat(1 << 20)).to_string();
    for (body, status, code) in [
        ("{".to_owned(), 400, "malformed"),
        (deep, 413, "too_large"),
        (
            format!(r#"{{"channels":["room:a"],"data":{}1{}}}"#, "[".repeat(100), "]".repeat(100)),
            422,
            "too_deep",
        ),
        (huge, 413, "too_large"),
    ] {
        let answer = request(server.http, "POST", "/v1/publish", &json_type, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{:.60}", body);
    }
    let answer = request(server.http, "POST", "/v1/publish", &[("content-type", "text/plain")], "{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (415, "invalid_field"));
    let large = message(&["room:a"], "x".repeat(40_000));
    let answer = post(server.http, "/v1/publish", &large).await;
    assert_eq!((answer.status, &answer.json()["results"][0]["error"]["code"]), (413, &json!("too_large")));
}

#[tokio::test]
async fn a_backend_shows_its_key_and_a_page_of_elsewhere_gets_nothing() {
    let server = ServerProcess::start().await;
    let body = message(&["room:a"], 1);
    let key = server.api_key();
    let answer = post_as(server.http, "/v1/publish", &[("authorization", &key)], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    for wrong in ["Bearer xpk_dev_nonsense", "Bearer nonsense", "Basic eHg6eHg=", "Bearer", "Bearer a.b.c"] {
        let answer = post_as(server.http, "/v1/publish", &[("authorization", wrong)], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"), "{wrong}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // With or without a key: a page of another origin may not even ask.
    for headers in [vec![FOREIGN], vec![FOREIGN, ("authorization", &key)]] {
        for (method, path) in [
            ("POST", "/v1/publish"),
            ("GET", "/v1/channels/room:a/history"),
            ("GET", "/v1/channels/room:a/presence"),
            ("GET", "/v1/transports"),
            ("POST", "/v1/poll"),
        ] {
            let answer = request(server.http, method, path, &headers, body.to_string()).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "permission_denied"), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    // A name that somebody points at this machine (DNS rebinding) lets nobody in without a key.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    let answer = post_as(server.http, "/v1/publish", &rebound, &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"));
}

#[tokio::test]
async fn history_is_read_in_pages_in_both_directions() {
    let server = ServerProcess::start().await;
    for n in 1..=10 {
        post(server.http, "/v1/publish", &message(&["room:a"], n)).await;
    }
    let pages = async |first: &str| {
        let (mut offsets, mut query) = (Vec::new(), first.to_owned());
        loop {
            let page = get(server.http, &format!("/v1/channels/room:a/history?limit=4&{query}")).await;
            assert_eq!(page.status, 200, "{page:?}");
            let page = page.json();
            assert_eq!(page["top"]["offset"], 10);
            let publications = page["publications"].as_array().unwrap();
            assert!(publications.len() <= 4);
            offsets.extend(publications.iter().map(|publication| publication["offset"].as_u64().unwrap()));
            let Some(next) = page.get("next") else { return offsets };
            query = format!("{first}&cursor={}:{}", next["epoch"], next["offset"]);
        }
    };
    assert_eq!(pages("").await, (1..=10).collect::<Vec<_>>());
    assert_eq!(pages("backward=true").await, (1..=10).rev().collect::<Vec<_>>());

    let top = get(server.http, "/v1/channels/room:a/history").await.json()["top"].clone();
    let epoch = top["epoch"].as_u64().unwrap();
    let history =
        async |query: String| get(server.http, &format!("/v1/channels/room:a/history?{query}")).await;
    let answer = history(format!("cursor={epoch}:99")).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "cursor_ahead"));
    // A place in another life of the channel is none in this one: everything is new, in either direction.
    let lost = epoch ^ 1;
    let answer = history(format!("cursor={lost}:5")).await.json();
    assert_eq!((&answer["gap"]["epoch"], &answer["gap"]["to"]), (&top["epoch"], &json!(0)));
    assert_eq!(answer["publications"][0]["offset"], 1);
    let answer = history(format!("backward=true&cursor={lost}:5")).await.json();
    assert_eq!((&answer["gap"]["epoch"], &answer["gap"]["to"]), (&top["epoch"], &json!(0)));
    assert_eq!(answer["publications"][0]["offset"], 10);

    for (query, code) in [
        ("limit=0", "invalid_field"),
        ("limit=257", "invalid_field"),
        ("limit=x", "invalid_field"),
        ("lmit=1", "invalid_field"),
        ("cursor=7", "invalid_name"),
    ] {
        let answer = history(query.into()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    for (path, status, code) in [
        ("/v1/channels/typing:a/history", 400, "not_supported"),
        ("/v1/channels/live:a/presence", 400, "not_supported"),
        ("/v1/channels/nowhere:a/history", 404, "unknown_namespace"),
        ("/v1/channels/room:%00/history", 400, "invalid_name"),
        ("/v1/channels/room:..%2fetc/history", 400, "invalid_name"),
        ("/v1/channels/room:a%0d%0ax/presence", 400, "invalid_name"),
        ("/v1/channels/room:%ff/history", 400, "invalid_name"),
        ("/v1/channels/room/history", 400, "invalid_name"),
    ] {
        let answer = get(server.http, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
}

#[tokio::test]
async fn a_message_is_deleted_by_a_backend_or_by_who_wrote_it() {
    let server = ServerProcess::with(&["--set", "auth.anonymous=false"]).await;
    let (backend, data) = (server.api_key(), server.data.to_str().unwrap());
    let mut tokens = Vec::new();
    for user in ["ann", "bob"] {
        let output = run(&["token", "--data", data, "--user", user]).await;
        tokens.push(format!("Bearer {}", String::from_utf8(output.stdout).unwrap().trim()));
    }
    let (ann, bob) = (tokens[0].as_str(), tokens[1].as_str());
    let as_ann = [("authorization", ann)];
    for said in ["first", "second"] {
        let said = post_as(server.http, "/v1/publish", &as_ann, &message(&["room:a"], said)).await;
        assert_eq!(said.status, 200, "{said:?}");
    }
    let delete = async |who: &str, place: &str| {
        let path = format!("/v1/channels/room:a/messages/{place}");
        request(server.http, "DELETE", &path, &[("authorization", who)], "").await
    };
    for (who, place, status, code) in [
        (bob, "1", 403, "permission_denied"),
        (ann, "9", 404, "not_found"),
        (ann, "0", 404, "not_found"),
        (ann, "1?as=bob", 400, "invalid_field"),
        (ann, "1?by=bob", 400, "invalid_field"),
        (&backend, "1?as=bob", 403, "permission_denied"),
        (ann, "-1", 400, "invalid_field"),
    ] {
        let refused = delete(who, place).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{place}: {refused:?}");
    }
    assert_eq!(delete(ann, "1").await.status, 204);
    assert_eq!(delete(&backend, "2?as=ann").await.status, 204);
    assert_eq!(delete(&backend, "2").await.status, 204);
    let path = "/v1/channels/room:a/history";
    let page = request(server.http, "GET", path, &as_ann, "").await.json();
    let said: Vec<_> = page["publications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|there| (there["event"].as_str().unwrap(), there["data"].clone(), there["user"].as_str()))
        .collect();
    let gone = "xpush.deleted";
    assert_eq!(
        said,
        [
            (gone, Value::Null, Some("ann")),
            (gone, Value::Null, Some("ann")),
            (gone, json!({"offset": 1}), Some("ann")),
            (gone, json!({"offset": 2}), Some("ann")),
        ]
    );
    let answer =
        json!({"channels": ["room:a"], "data": 1, "reply_to": 2, "mentions": ["bob"], "expires_in": 60_000});
    assert_eq!(post_as(server.http, "/v1/publish", &as_ann, &answer).await.status, 200);
    let page = request(server.http, "GET", path, &as_ann, "").await.json();
    let publications = page["publications"].as_array().unwrap();
    assert_eq!((publications.len(), &publications[4]["reply_to"]), (5, &json!(2)));
    let many = json!({"channels": ["room:a"], "data": 1, "mentions": vec!["bob"; 21]});
    let refused = post_as(server.http, "/v1/publish", &as_ann, &many).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_field"));
    let reserved = json!({"channels": ["room:a"], "event": "xpush.deleted", "data": {"offset": 1}});
    let refused = post_as(server.http, "/v1/publish", &[("authorization", &backend)], &reserved).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_field"));
}

#[tokio::test]
async fn presence_counts_sessions_and_users() {
    let server = ServerProcess::start().await;
    let mut one = Session::open(&server, Via::Websocket).await;
    let mut other = Session::open(&server, Via::Quic).await;
    one.subscribe("room:a").await.unwrap();
    other.subscribe("room:a").await.unwrap();
    let list = get(server.http, "/v1/channels/room:a/presence").await.json();
    assert_eq!((&list["sessions"], &list["users"]), (&json!(2), &json!(0)));
    let sessions: BTreeSet<_> = list["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["session"].as_str().unwrap().to_owned())
        .collect();
    assert!(sessions.contains(one.connected.session.as_str()) && sessions.len() == 2);
}

#[tokio::test]
async fn a_machine_asks_how_the_server_is() {
    let server = ServerProcess::start().await;
    let answer = get(server.http, "/healthz").await;
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    let answer = get(server.http, "/readyz").await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({
                "ready": true,
                "draining": false,
                "degraded": false,
                "log": "ok",
                "broker": "ok",
                "membership": "ok",
                "sessions": 0,
            })
        )
    );
}

/// The samples of an OpenMetrics text, which is checked line by line.
fn samples(answer: &Response) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (keyword, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&keyword), "{line}");
            assert!(name.starts_with("xpush_"), "{line}");
            if keyword == "TYPE" {
                types.insert(name.to_owned(), rest.to_owned());
            }
            if keyword == "UNIT" {
                assert!(name.ends_with(&format!("_{rest}")), "{line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family =
            ["_total", "_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let kind = types.get(family.unwrap_or(name)).unwrap_or_else(|| panic!("no type: {line}"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

#[tokio::test]
async fn metrics_are_open_metrics_and_move() {
    let server = ServerProcess::start().await;
    let before = samples(&get(server.http, "/metrics").await);
    let mut client = Session::open(&server, Via::Websocket).await;
    client.subscribe("room:a").await.unwrap();
    for n in 0..5 {
        client.publish("room:a", n).await.unwrap();
    }
    for _ in 0..5 {
        client.publication().await;
    }
    let after = samples(&get(server.http, "/metrics").await);
    let moved = |name: &str| after[name] - before.get(name).copied().unwrap_or_default();
    assert_eq!(moved("xpush_publications_total"), 5.0);
    assert_eq!(moved("xpush_deliveries_total"), 5.0);
    assert_eq!(moved("xpush_append_seconds_count"), 5.0);
    assert_eq!(moved(r#"xpush_connected_total{wire="websocket"}"#), 1.0);
    assert_eq!(after[r#"xpush_connections{wire="websocket"}"#], 1.0);
    client.client.close().await;
    super::process::until("the connection is counted out", async || {
        samples(&get(server.http, "/metrics").await)[r#"xpush_connections{wire="websocket"}"#] == 0.0
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_that_can_be_read() {
    let server = ServerProcess::start().await;
    for path in ["/nothing", "/v1", "/v1/channel", "/v1/publish/", "/..%2f..%2fetc/passwd", "//"] {
        let answer = get(server.http, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_command"), "{path}");
        assert_eq!(answer.json()["title"], "Not Found");
    }
    for (method, path) in [
        ("GET", "/v1/publish"),
        ("DELETE", "/v1/channels/room:a/history"),
        ("POST", "/healthz"),
        ("PUT", "/metrics"),
        ("POST", "/"),
    ] {
        let answer = request(server.http, method, path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "unknown_command"), "{method} {path}");
        assert!(answer.header("allow").is_some(), "{answer:?}");
    }
    let answer = get(server.http, "/v1/poll").await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "not_supported"));
    let answer = get(server.http, "/v1/connect").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call() {
    let server = ServerProcess::with(&["--set", "origins=https://app.example"]).await;
    let origin = ("origin", "https://app.example");
    let ask = [origin, ("access-control-request-method", "POST")];
    for path in ["/v1/publish", "/v1/transports", "/v1/channels/room:a/history"] {
        let answer = request(server.http, "OPTIONS", path, &ask, "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    }
    let answer = post_as(server.http, "/v1/publish", &[origin], &message(&["room:a"], 1)).await;
    assert_eq!((answer.status, answer.header("vary")), (200, Some("origin")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    // The page reads refusals as well.
    let answer = post_as(server.http, "/v1/publish", &[origin], &json!({})).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (422, Some("https://app.example"))
    );
    let answer = request(server.http, "OPTIONS", "/v1/publish", &[FOREIGN], "").await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn the_page_runs_its_own_script_and_nothing_else() {
    let server = ServerProcess::start().await;
    let page = get(server.http, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = page.text().to_owned();
    assert!(!html.contains("onclick=") && !html.contains("style=\""), "the policy would stop it");
    for path in ["/", "/app.js", "/style.css", "/xpush.js", "/xpush.classic.js"] {
        let asset = get(server.http, path).await;
        assert_eq!(asset.status, 200, "{path}");
        let policy = asset.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(asset.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn the_openapi_document_has_exactly_the_routes_that_there_are() {
    let server = ServerProcess::start().await;
    let answer = get(server.http, "/v1/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));

    // A variable may be called otherwise within.
    let shape = |path: &str| {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    let documented: BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().map(|path| shape(path)).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let served = std::fs::read_to_string(root.join("src/serve.rs")).unwrap();
    let rooms = super::parity::texts(root.join("src/http")).into_iter().chain([served]);
    let sources: Vec<String> = rooms.map(|source| source.split_whitespace().collect()).collect();
    let routes: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| source.split(".route(\"").skip(1))
        .map(|rest| shape(rest.split('"').next().unwrap()))
        .collect();
    assert_eq!(documented, routes);

    // Asked to leave, the server does.
    let (last, first): (Vec<_>, Vec<_>) =
        document["paths"].as_object().unwrap().iter().partition(|(path, _)| *path == "/v1/drain");
    for (path, operations) in first.into_iter().chain(last) {
        let named = |path: String, (name, value): (&str, &str)| path.replace(&format!("{{{name}}}"), value);
        let there = [("channel", "room:a"), ("user", "ann"), ("offset", "1")];
        let there = there.into_iter().fold(path.clone(), named).replace(['{', '}'], "");
        for (method, operation) in operations.as_object().unwrap() {
            let answer = request(server.http, &method.to_uppercase(), &there, &[], "").await;
            assert_ne!(answer.status, 405, "{method} {path}: {answer:?}");
            assert!(
                answer.status != 404 || answer.code() != "unknown_command",
                "{method} {path}: {answer:?}"
            );
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.contains_key(&answer.status.to_string()),
                "{method} {path} answers {}",
                answer.status
            );
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{path}");
        }
    }
    check_references(&document, &document);
    for code in document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap() {
        let known: ErrorCode = serde_json::from_value(code.clone()).unwrap();
        assert_eq!(known.as_str(), code.as_str().unwrap());
    }
    let codes = include_str!("../../protocol/src/code.rs").matches(" => \"").count();
    assert_eq!(document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap().len(), codes);
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|field| check_references(document, field));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| check_references(document, entry)),
        _ => {}
    }
}

#[tokio::test]
async fn a_post_with_an_idempotency_key_is_done_once() {
    let server = ServerProcess::start().await;
    let key = |key: &'static str| [("idempotency-key", key)];
    let first = post_as(server.http, "/v1/publish", &key("order-17"), &message(&["room:a"], 1)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    let again = post_as(server.http, "/v1/publish", &key("order-17"), &message(&["room:a"], 1)).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!((again.header("content-type"), again.json()), (first.header("content-type"), first.json()));

    // Another request may not take its place.
    let other = post_as(server.http, "/v1/publish", &key("order-17"), &message(&["room:a"], 2)).await;
    assert_eq!((other.status, other.code().as_str()), (422, "invalid_field"));
    // What was refused was not done, and may be tried again.
    let refused = post_as(server.http, "/v1/publish", &key("order-18"), &message(&["nowhere:a"], 1)).await;
    assert_eq!((refused.status, refused.header("idempotency-replayed")), (404, None));
    let done = post_as(server.http, "/v1/publish", &key("order-18"), &message(&["nowhere:a"], 1)).await;
    assert_eq!((done.status, done.header("idempotency-replayed")), (404, None));
    // A key of one caller is none of another's.
    let bearer = server.api_key();
    let headers = [("idempotency-key", "order-17"), ("authorization", &bearer)];
    let of_another = post_as(server.http, "/v1/publish", &headers, &message(&["room:a"], 1)).await;
    assert_eq!((of_another.status, of_another.header("idempotency-replayed")), (200, None));
    // It is the user's, whichever of its tokens is shown; and not another user's.
    for (user, expires_in, is_replayed) in
        [("ann", "600", false), ("ann", "900", true), ("bob", "600", false)]
    {
        let data = server.data.to_str().unwrap();
        let output = run(&["token", "--data", data, "--user", user, "--expires-in", expires_in]).await;
        let bearer = format!("Bearer {}", String::from_utf8(output.stdout).unwrap().trim());
        let headers = [("idempotency-key", "order-17"), ("authorization", bearer.as_str())];
        let answer = post_as(server.http, "/v1/publish", &headers, &message(&["room:b"], 1)).await;
        let replayed = answer.header("idempotency-replayed").is_some();
        assert_eq!((answer.status, replayed), (200, is_replayed), "{user} {expires_in}");
    }
    for wrong in ["", "two words", "\u{e9}"] {
        let headers = [("idempotency-key", wrong)];
        let answer = post_as(server.http, "/v1/publish", &headers, &message(&["room:a"], 1)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"), "{wrong:?}");
    }
    let page = get(server.http, "/v1/channels/room:a/history").await.json();
    assert_eq!(page["publications"].as_array().unwrap().len(), 2);
}
