//! Nothing crosses an app's border, whichever endpoint is asked. Which there are is read from the API's own description:
//! one that is added there is called here, and one that needs a body needs a line in `BODIES`.
//!
//! The app `shop` has everything that can be had, each thing with a secret in it. Then a backend and a user of `game`
//! call every endpoint with the names of those things. What comes back has no secret in it, and the shop is afterwards
//! what it was before. Sessions are held to the same by `tests/session/apps.rs`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use xpush::{
    auth::{Algorithm, ApiKey, Claims, Signer},
    client::Via,
};
use xpush_protocol::{ClientFrame, ErrorCode, Json, Send, ServerFrame, SessionId, Target};

use super::{
    client::{Session, code},
    http::{Response, request},
    process::{ServerProcess, until},
};

/// In everything that the shop has.
const SECRET: &str = "known-to-the-shop-alone";
const PASSWORD: &str = "a password of the shop's ann";

/// What the body of each operation is, when somebody of `game` asks.
fn bodies() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("POST /v1/apps", json!({ "app": "another" })),
        ("PATCH /v1/apps/{app}", json!({ "name": "taken over" })),
        ("POST /v1/apps/{app}/keys", json!({})),
        ("POST /v1/users", json!({ "user": "ann", "password": "the password of a stranger" })),
        ("PATCH /v1/users/{user}", json!({ "name": "somebody else" })),
        (
            "PUT /v1/users/{user}/password",
            json!({ "old": "the password of a stranger", "new": "another password of a stranger" }),
        ),
        ("POST /v1/login", json!({ "user": "ann", "password": "the password of a stranger" })),
        ("POST /v1/login/refresh", json!({ "refresh_token": "none" })),
        ("POST /v1/logout", json!({ "all": true })),
        ("POST /v1/users/{user}/devices", json!({ "device": "phone", "name": "another" })),
        ("PATCH /v1/users/{user}/devices/{device}", json!({ "name": "another" })),
        ("POST /v1/users/{user}/groups", json!({ "name": "others", "users": ["bob"] })),
        ("PUT /v1/users/{user}/groups/{group}", json!({ "name": "others", "users": [] })),
        ("POST /v1/channels", json!({ "channel": "chat:team", "title": "ours", "members": ["bob"] })),
        ("PATCH /v1/channels/{channel}", json!({ "title": "ours" })),
        ("POST /v1/channels/{channel}/join", json!({})),
        ("PUT /v1/channels/{channel}/members/{member}", json!({ "role": "admin" })),
        ("PATCH /v1/channels/{channel}/members/{member}", json!({ "role": "owner" })),
        ("PUT /v1/channels/{channel}/bans/{member}", json!({})),
        ("PUT /v1/channels/{channel}/read", json!({ "offset": 1 })),
        ("PUT /v1/channels/{channel}/received", json!({ "offset": 1, "device": "phone" })),
        ("POST /v1/publish", json!({ "channels": ["chat:team", "room:a"], "data": "ours" })),
        ("POST /v1/tickets", json!({})),
    ])
}

/// Wires, which are sessions': they need more than one request.
const WIRES: [&str; 2] = ["GET /v1/connect", "POST /v1/poll"];
/// Nobody is that user again: it is called last, in the last round, and by the user itself before a backend.
const USER_DELETE: &str = "DELETE /v1/users/{user}";
/// Of no app; but they are called too.
const OF_NO_APP: [&str; 7] = [
    "GET /v1/transports",
    "GET /v1/nodes",
    "GET /v1/openapi.json",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/jwks.json",
];
/// What goes on changes by itself.
const VOLATILE: [&str; 1] = ["last_seen"];

/// One operation of the document.
struct Operation {
    /// As in `POST /v1/publish`.
    name: String,
    method: String,
    path: String,
    /// The names in the body's schema, if there is one.
    body: Option<BTreeSet<String>>,
    query: BTreeSet<String>,
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            document.pointer(reference.trim_start_matches('#')).expect("it refers to something")
        }
        None => value,
    }
}

fn properties(document: &Value, schema: &Value) -> BTreeSet<String> {
    let schema = resolve(document, schema);
    let own = schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys().cloned());
    let parts = ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
    own.chain(parts.flat_map(|part| properties(document, part))).collect()
}

/// Those that only read first, those that take something away last.
fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            let parameters = [&item["parameters"], &operation["parameters"]];
            let parameters = parameters.into_iter().filter_map(Value::as_array).flatten();
            let query = parameters
                .map(|parameter| resolve(document, parameter))
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            let body = operation.get("requestBody").map(|body| {
                let content = resolve(document, body)["content"].as_object().unwrap();
                properties(document, &content.values().next().unwrap()["schema"])
            });
            let method = method.to_uppercase();
            let name = format!("{method} {path}");
            operations.push(Operation { name, method, path: path.clone(), body, query });
        }
    }
    let rank = |operation: &Operation| match operation.method.as_str() {
        "GET" => 0,
        "DELETE" if operation.name == USER_DELETE => 3,
        "DELETE" => 2,
        _ => 1,
    };
    operations.sort_by_key(|operation| (rank(operation), operation.path.len(), operation.name.clone()));
    operations
}

/// A server with two apps, and who may do what.
struct World {
    server: ServerProcess,
    operator: String,
    shop: String,
    game: String,
    /// What stands for the variables of paths: names of things of the shop.
    names: BTreeMap<String, String>,
    /// By path, the `Idempotency-Key` of the last POST of the shop's.
    once: RefCell<BTreeMap<String, String>>,
}

fn secret_of(app: &str) -> String {
    format!("what signs the tokens of {app}, in these tests")
}

/// An application's own token. It is made a little later than now: what ended the user's tokens just before has ended
/// those of the same second.
fn token(app: &str, user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let all = json!(["subscribe", "publish", "history", "presence", "send"]);
    let claims = json!({ "sub": user, "iat": now + 5, "exp": now + 3600, "channels": { "**": all } });
    let claims: Claims = serde_json::from_value(claims).unwrap();
    Signer::new(Algorithm::Hs256, None, secret_of(app).as_bytes()).unwrap().sign(&claims).unwrap()
}

impl World {
    async fn begin() -> Self {
        let operator = ApiKey::generate("root").unwrap();
        let api_key = format!(r#"{{ id = "root", sha256 = "{}" }}"#, ApiKey::hash(&operator));
        let keys = ["shop", "game"]
            .map(|app| format!(r#"{{ algorithm = "HS256", app = "{app}", secret = "{}" }}"#, secret_of(app)));
        let server = ServerProcess::with(&[
            "--set",
            "auth.anonymous=false",
            "--set",
            &format!("auth.api_keys=[{api_key}]"),
            "--set",
            &format!("auth.keys=[{}]", keys.join(", ")),
        ])
        .await;
        let (shop, game, names) = (String::new(), String::new(), BTreeMap::new());
        let mut world = Self { server, operator, shop, game, names, once: RefCell::default() };
        for app in ["shop", "game"] {
            world.made(&world.operator, "POST", "/v1/apps", json!({ "app": app, "name": app })).await;
            let key = world.made(&world.operator, "POST", &format!("/v1/apps/{app}/keys"), json!({})).await;
            let text = key["key"].as_str().unwrap().to_owned();
            match app {
                "shop" => {
                    world.names.insert("key".into(), key["id"].as_str().unwrap().into());
                    world.shop = text;
                }
                _ => world.game = text,
            }
        }
        world.fill_the_shop().await;
        world
    }

    /// Everything that can be had, with a secret in all that has room for one.
    async fn fill_the_shop(&mut self) {
        let key = self.shop.clone();
        for user in ["ann", "bob", "eve"] {
            let body = json!({
                "user": user,
                "name": SECRET,
                "password": PASSWORD,
                "data": { "note": SECRET },
                "device": { "device": "phone", "name": SECRET },
            });
            self.made(&key, "POST", "/v1/users", body).await;
        }
        for (by, other) in [("ann", "bob"), ("bob", "ann")] {
            self.made(&key, "PUT", &format!("/v1/users/{by}/friends/{other}"), Value::Null).await;
        }
        self.made(&key, "PUT", "/v1/users/ann/blocks/eve", Value::Null).await;
        let group = json!({ "name": SECRET, "users": ["bob"] });
        let group = self.made(&key, "POST", "/v1/users/ann/groups", group).await;
        let channel = json!({ "channel": "chat:team", "title": SECRET, "members": ["bob"], "as": "ann" });
        self.made(&key, "POST", "/v1/channels", channel).await;
        let member = json!({ "state": "active" });
        self.made(&key, "PUT", "/v1/channels/chat:team/members/bob", member).await;
        self.made(&key, "PUT", "/v1/channels/chat:team/bans/eve", Value::Null).await;
        self.made(&key, "PUT", "/v1/users/ann/direct/bob", Value::Null).await;
        let message = json!({ "channels": ["chat:team", "room:a", "live:a"], "data": SECRET });
        self.made(&key, "POST", "/v1/publish", message).await;
        self.made(&key, "PUT", "/v1/channels/chat:team/read", json!({ "offset": 1, "as": "bob" })).await;
        self.names.extend(
            [
                ("app", "shop"),
                ("user", "ann"),
                ("other", "bob"),
                ("member", "bob"),
                ("channel", "chat:team"),
                ("offset", "1"),
                ("device", "phone"),
                ("group", group["id"].as_str().unwrap()),
                ("id", "AAAAAAAAAAAAAAAAAAAAAA"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
    }

    async fn call(
        &self,
        credential: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&Value>,
        more: &[(&str, &str)],
    ) -> Response {
        let bearer = credential.map(|credential| format!("Bearer {credential}"));
        let mut headers = more.to_vec();
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(body.map(|_| ("content-type", "application/json")));
        let body = body.map_or_else(String::new, Value::to_string);
        request(self.server.http, method, path, &headers, body).await
    }

    async fn made(&self, key: &str, method: &str, path: &str, body: Value) -> Value {
        let body = Some(&body).filter(|body| !body.is_null());
        // A stranger will use the same key for its own request.
        let once = SessionId::random().to_string();
        self.once.borrow_mut().insert(path.to_owned(), once.clone());
        let more = [("idempotency-key", once.as_str())];
        let more = if method == "POST" { &more[..] } else { &[] };
        let answer = self.call(Some(key), method, path, body, more).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    fn path(&self, operation: &Operation) -> String {
        let mut path = String::new();
        for part in operation.path.split('/').skip(1) {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let value = name.map(|name| {
                let known = self.names.get(name);
                known.unwrap_or_else(|| panic!("{}: no `{name}` of the shop is known", operation.name))
            });
            write!(path, "/{}", value.map_or(part, String::as_str)).unwrap();
        }
        path
    }

    /// All that the shop's own backend can see of it.
    async fn shop_as_it_is(&self, operations: &[Operation]) -> BTreeMap<String, Value> {
        let mut seen = BTreeMap::new();
        for operation in operations.iter().filter(|operation| operation.method == "GET") {
            let name = operation.name.as_str();
            if OF_NO_APP.contains(&name) || WIRES.contains(&name) {
                continue;
            }
            let credential = if name.starts_with("GET /v1/apps") { &self.operator } else { &self.shop };
            let path = self.path(operation);
            let users: &[&str] =
                if operation.path.contains("{user}") { &["ann", "bob", "eve"] } else { &["ann"] };
            for user in users {
                let path = path.replacen("/users/ann", &format!("/users/{user}"), 1);
                let answer = self.call(Some(credential), "GET", &path, None, &[]).await;
                assert!(answer.status == 200 || *user != "ann", "{name}: {answer:?}");
                let mut body = answer.json();
                forget_volatile(&mut body);
                seen.insert(path, body);
            }
        }
        for channel in ["room:a", "live:a"] {
            let path = format!("/v1/channels/{channel}/history");
            let history = self.call(Some(&self.shop), "GET", &path, None, &[]).await.json();
            assert!(history.to_string().contains(SECRET));
            seen.insert(path, history);
        }
        seen
    }
}

fn forget_volatile(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(forget_volatile);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_volatile),
        _ => {}
    }
}

fn assert_says_nothing(what: &str, answer: &Response) {
    let text = String::from_utf8_lossy(&answer.body);
    for word in [SECRET, "shop\u{1f}", "shop\\u001f"] {
        assert!(!text.contains(word), "{what} has {word:?}: {text}");
    }
    assert!(answer.status < 500, "{what}: {answer:?}");
}

/// A request that could not have got anything from anybody shows nothing.
fn is_sensible(answer: &Response) -> bool {
    let is_there = answer.status != 404 || answer.code() != "unknown_command";
    is_there && ![400, 405, 415, 422].contains(&answer.status)
}

/// What somebody of `game` may send: as it is in the table, and with the words that would lead to the shop.
fn requests(operation: &Operation, body: Option<&Value>, is_backend: bool) -> Vec<(String, Option<Value>)> {
    let acts = |names: &BTreeSet<String>| is_backend && names.contains("as");
    let query = if acts(&operation.query) { "?as=ann" } else { "" };
    let mut requests = vec![(String::new(), body.cloned())];
    if let (Some(body), Some(names)) = (body, &operation.body) {
        if acts(names) {
            let mut acting = body.clone();
            acting["as"] = "ann".into();
            requests.push((String::new(), Some(acting)));
        }
        if names.contains("app") && body.get("app").is_none() {
            let mut elsewhere = body.clone();
            elsewhere["app"] = "shop".into();
            requests.push((String::new(), Some(elsewhere)));
        }
    }
    if !query.is_empty() {
        requests.push((query.into(), body.cloned()));
    }
    if operation.query.contains("q") {
        requests.push((format!("?q={SECRET}"), body.cloned()));
        requests.push(("?q=ann".into(), body.cloned()));
    }
    requests
}

#[tokio::test]
async fn nobody_of_one_app_sees_or_changes_anything_of_another() {
    let world = World::begin().await;
    let document = world.call(None, "GET", "/v1/openapi.json", None, &[]).await.json();
    let (operations, bodies) = (operations(&document), bodies());
    // Inboxes are told a little later.
    until("the inbox has heard of the message", async || {
        let history = world.call(Some(&world.shop), "GET", "/v1/channels/inbox:ann/history", None, &[]).await;
        history.text().contains("\"message\"")
    })
    .await;
    for known in bodies.keys() {
        assert!(operations.iter().any(|operation| operation.name == *known), "there is no {known} any more");
    }
    let mut ann = Session::user(&world.server, Via::Websocket, &token("shop", "ann")).await.unwrap();
    for channel in ["chat:team", "room:a", "live:a", "inbox:ann"] {
        ann.subscribe(channel).await.unwrap();
    }
    let before = world.shop_as_it_is(&operations).await;
    assert_eq!(before, world.shop_as_it_is(&operations).await, "nothing goes on by itself");
    let secrets = before.values().filter(|body| body.to_string().contains(SECRET)).count();
    assert!(secrets > 10, "{secrets} answers of the shop have a secret");

    // In the second round the game has things of the same names.
    for round in 0..2 {
        if round == 1 {
            for user in ["ann", "bob"] {
                let body = json!({ "user": user, "password": "the password of a stranger" });
                let answer = world.call(Some(&world.game), "POST", "/v1/users", Some(&body), &[]).await;
                assert!([201, 409].contains(&answer.status), "{answer:?}");
            }
        }
        for operation in operations.iter().filter(|operation| !WIRES.contains(&operation.name.as_str())) {
            let body = operation.body.as_ref().map(|_| {
                bodies.get(operation.name.as_str()).unwrap_or_else(|| {
                    panic!("{} takes a body, and `bodies` of {} has none for it", operation.name, file!())
                })
            });
            let is_farewell = operation.name == USER_DELETE;
            if is_farewell && round == 0 {
                continue;
            }
            let (path, mut sensible) = (world.path(operation), false);
            for is_backend in [!is_farewell, is_farewell] {
                for (query, body) in requests(operation, body, is_backend) {
                    // Whatever ended the user's tokens in the request before this one.
                    world.call(Some(&world.game), "POST", "/v1/users/ann/activate", None, &[]).await;
                    let user = token("game", "ann");
                    let credential = if is_backend { &world.game } else { &user };
                    let path = format!("{path}{query}");
                    let what = format!("{} {path} {body:?} of a backend: {is_backend}", operation.method);
                    let once =
                        world.once.borrow().get(&path).cloned().filter(|_| round == 0).unwrap_or_default();
                    let same = [("idempotency-key", once.as_str())];
                    let more = if operation.method == "POST" && !once.is_empty() { &same[..] } else { &[] };
                    // By the operator's way into another app nobody else gets there. First: the request itself may end
                    // the user's tokens.
                    let there = [("x-xpush-app", "shop")];
                    let call = world.call(Some(credential), &operation.method, &path, body.as_ref(), &there);
                    let answer = call.await;
                    assert_says_nothing(&format!("{what} as one of the shop"), &answer);
                    let is_open = OF_NO_APP.contains(&operation.name.as_str())
                        || matches!(operation.name.as_str(), "POST /v1/tickets" | "POST /v1/login/refresh");
                    assert!(is_open || answer.status == 403, "{what} as one of the shop: {answer:?}");
                    let call = world.call(Some(credential), &operation.method, &path, body.as_ref(), more);
                    let answer = call.await;
                    assert_says_nothing(&what, &answer);
                    sensible |= is_sensible(&answer);
                }
            }
            assert!(sensible, "{} was asked for nothing sensible", operation.name);
        }
    }

    let after = world.shop_as_it_is(&operations).await;
    for (path, was) in &before {
        assert_eq!(after.get(path), Some(was), "{path}");
    }
    // Whoever is of the shop has heard nothing, and is still there.
    let last = json!({ "channels": ["room:a"], "data": "the last word" });
    world.made(&world.shop, "POST", "/v1/publish", last).await;
    loop {
        match ann.event().await {
            ServerFrame::Publication(heard) => {
                assert_eq!(heard.data.unwrap().as_str(), "\"the last word\"");
                break;
            }
            ServerFrame::Join(join) => assert_eq!(join.member.session, ann.connected.session),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_page_of_one_app_goes_on_in_another_with_nothing() {
    let world = World::begin().await;
    let document = world.call(None, "GET", "/v1/openapi.json", None, &[]).await.json();
    let mut pages = 0;
    for operation in operations(&document) {
        if operation.method != "GET"
            || !operation.query.contains("cursor")
            || !operation.query.contains("limit")
        {
            continue;
        }
        let first = format!("{}?limit=1", world.path(&operation));
        let answer = world.call(Some(&world.shop), "GET", &first, None, &[]).await;
        let Some(next) = answer.json()["next"].as_str().map(str::to_owned) else { continue };
        pages += 1;
        let there = world.call(Some(&world.game), "GET", &format!("{first}&cursor={next}"), None, &[]).await;
        assert_says_nothing(&operation.name, &there);
        assert!(there.json()["next"].is_null(), "{}: {there:?}", operation.name);
    }
    assert!(pages >= 2, "{pages} lists have more than one page");
}

#[tokio::test]
async fn who_is_of_one_app_comes_into_no_other() {
    let world = World::begin().await;
    // A right password is one in its own app alone.
    let login = json!({ "user": "ann", "password": PASSWORD, "app": "game" });
    let answer = world.call(None, "POST", "/v1/login", Some(&login), &[]).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_credentials"));
    let login = json!({ "user": "ann", "password": PASSWORD, "app": "shop" });
    let own = world.call(None, "POST", "/v1/login", Some(&login), &[]).await.json();
    let access = own["access_token"].as_str().unwrap();
    let answer = world.call(Some(access), "GET", "/v1/users/ann", None, &[("x-xpush-app", "game")]).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "permission_denied"));
    // A token that names another app than its key's is none.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": "ann", "app": "shop", "exp": now + 60 });
    let claims: Claims = serde_json::from_value(claims).unwrap();
    let signer = Signer::new(Algorithm::Hs256, None, secret_of("game").as_bytes()).unwrap();
    let answer = world.call(Some(&signer.sign(&claims).unwrap()), "GET", "/v1/users/ann", None, &[]).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"));

    // A session of the shop, and its state, are nothing to the game's.
    let ann = Session::user(&world.server, Via::Websocket, access).await.unwrap();
    let state = Some(ann.connected.state.clone());
    let connect =
        |token| xpush_protocol::Connect { token: Some(token), state: state.clone(), ..Default::default() };
    let mut other = Session::with(&world.server, Via::Quic, connect(token("game", "ann"))).await.unwrap();
    assert_ne!(other.connected.session, ann.connected.session);
    let (to, data) = (Target::Session(ann.connected.session.clone()), Some(Json::parse("1").unwrap()));
    let sent =
        other.call(|id| ClientFrame::Send(Send { id, to, event: Default::default(), data, binary: None }));
    assert_eq!(code(&sent.await.unwrap_err()), ErrorCode::NotConnected);
    // It may hear what its own inbox is told, which is nothing so far; the shop's ann was told something.
    assert_eq!(other.subscribe("inbox:ann").await.unwrap().top, 0);
    let foreign = other.subscribe("inbox:bob").await.unwrap_err();
    assert_eq!(code(&foreign), ErrorCode::PermissionDenied);

    // The operator may act in each, and in none that there isn't.
    let path = "/v1/users/ann";
    let answer = world.call(Some(&world.operator), "GET", path, None, &[("x-xpush-app", "shop")]).await;
    assert_eq!(answer.json()["name"], SECRET);
    for (app, status) in
        [("game", 404), ("default", 404), ("nowhere", 404), ("Shop", 400), ("shop\u{1f}", 400)]
    {
        let answer = world.call(Some(&world.operator), "GET", path, None, &[("x-xpush-app", app)]).await;
        assert_eq!(answer.status, status, "{app:?}: {answer:?}");
        assert_says_nothing(app, &answer);
    }
    let twice = [("x-xpush-app", "game"), ("x-xpush-app", "shop")];
    let answer = world.call(Some(&world.operator), "GET", path, None, &twice).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"));
}
