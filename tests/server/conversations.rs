//! Channels with members, cursors and receipts over HTTP, and from the command line.

use serde_json::{Value, json};

use super::{
    http::request,
    person::Person,
    process::{ServerProcess, run, the_line, until},
};

/// A channel of ann with bob in it.
async fn team(ann: &Person<'_>) {
    let body = json!({ "channel": "chat:team", "title": "Team", "members": ["bob"], "state": "active" });
    let made = ann.send("POST", "/v1/channels", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
}

async fn say(person: &Person<'_>, channel: &str, text: &str) -> Value {
    let body = json!({ "channels": [channel], "data": { "text": text } });
    person.send("POST", "/v1/publish", &body).await.json()["results"][0].clone()
}

#[tokio::test]
async fn a_channel_lives_from_its_making_to_its_end() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let made = ann.send("POST", "/v1/channels", &json!({ "title": "Tea", "data": { "$gt": "" } })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let channel = made.json();
    let name = channel["channel"].as_str().unwrap();
    assert!(name.starts_with("chat:"));
    assert_eq!(
        (&channel["role"], &channel["creator"], &channel["members"]),
        (&json!("owner"), &json!("ann"), &json!(1))
    );
    assert_eq!(channel["data"], json!({ "$gt": "" }));
    let path = format!("/v1/channels/{name}");
    assert_eq!(made.header("location"), Some(path.as_str()));
    // To others there is none.
    assert_eq!(bob.get(&path).await.code(), "not_found");

    let read = ann.get(&path).await;
    let etag = read.header("etag").unwrap();
    let change = json!({ "title": "Coffee", "data": null });
    let changed = ann.send_if("PATCH", &path, Some(etag), &change).await;
    assert_eq!((changed.status, &changed.json()["title"]), (200, &json!("Coffee")), "{changed:?}");
    assert_eq!(changed.json()["data"], Value::Null);
    let stale = ann.send_if("PATCH", &path, Some(etag), &change).await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "precondition_failed"));
    let foreign = ann.send_if("PATCH", &path, Some("\"nonsense\""), &change).await;
    assert_eq!(foreign.status, 412);

    assert_eq!(ann.delete(&path).await.status, 204);
    assert_eq!(ann.get(&path).await.code(), "not_found");
    let again = ann.send("POST", "/v1/channels", &json!({ "channel": name })).await;
    assert_eq!((again.status, again.code().as_str()), (409, "already_exists"));
}

#[tokio::test]
async fn an_invitation_is_accepted_and_what_was_said_is_read() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let made = ann.send("POST", "/v1/channels", &json!({ "channel": "chat:team", "members": ["bob"] })).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(say(&ann, "chat:team", "hello").await["cursor"]["offset"], 1);
    assert_eq!(say(&ann, "chat:team", "anybody?").await["cursor"]["offset"], 2);
    // Who is invited sees that, and no more.
    let list = bob.get("/v1/users/bob/channels").await.json();
    assert_eq!((&list["items"][0]["state"], &list["items"][0]["last"]), (&json!("invited"), &Value::Null));
    assert_eq!(bob.get("/v1/channels/chat:team/history").await.status, 403);
    assert_eq!(bob.get("/v1/channels/chat:team/members").await.status, 403);
    assert_eq!(say(&bob, "chat:team", "hi").await["error"]["code"], "permission_denied");

    let joined = bob.send("POST", "/v1/channels/chat:team/join", &json!({})).await;
    assert_eq!((joined.status, &joined.json()["state"]), (200, &json!("active")), "{joined:?}");
    let list = bob.get("/v1/users/bob/channels").await.json();
    let channel = &list["items"][0];
    assert_eq!((&channel["unread"], &channel["top"], &channel["read"]), (&json!(2), &json!(2), &json!(0)));
    assert_eq!(channel["last"]["data"]["text"], "anybody?");

    let mark = |offset: u64| json!({ "offset": offset });
    assert_eq!(bob.send("PUT", "/v1/channels/chat:team/read", &mark(2)).await.status, 204);
    assert_eq!(bob.send("PUT", "/v1/channels/chat:team/read", &mark(1)).await.status, 204);
    let ahead = bob.send("PUT", "/v1/channels/chat:team/read", &mark(3)).await;
    assert_eq!((ahead.status, ahead.code().as_str()), (409, "cursor_ahead"));
    let received = json!({ "offset": 2, "device": "phone" });
    assert_eq!(bob.send("PUT", "/v1/channels/chat:team/received", &received).await.status, 204);
    assert_eq!(bob.get("/v1/users/bob/channels").await.json()["items"][0]["unread"], 0);
    let receipts = ann.get("/v1/channels/chat:team/receipts").await.json();
    assert_eq!(receipts["items"][1], json!({ "user": "bob", "read": 2, "received": { "phone": 2 } }));
}

#[tokio::test]
async fn what_was_said_before_is_not_unread_to_who_comes_and_not_told_to_who_is_not_in() {
    let server = ServerProcess::start().await;
    let (ann, cid) = (Person::new(&server, "ann").await, Person::new(&server, "cid").await);
    let (dan, eve) = (Person::new(&server, "dan").await, Person::new(&server, "eve").await);
    let _bob = Person::new(&server, "bob").await;
    team(&ann).await;
    for text in ["one", "two"] {
        say(&ann, "chat:team", text).await;
    }
    let member = |name: &str| format!("/v1/channels/chat:team/members/{name}");
    assert_eq!(ann.send("PUT", &member("cid"), &json!({ "state": "active" })).await.status, 201);
    assert_eq!(ann.send("PUT", &member("dan"), &json!({})).await.status, 201);
    // Neither who is invited nor who is nobody there learns how much was said.
    for (person, offset) in [(&dan, 0), (&dan, 99), (&eve, 0), (&eve, 99)] {
        let bodies =
            [("read", json!({ "offset": offset })), ("received", json!({ "offset": offset, "device": "a" }))];
        for (what, body) in bodies {
            let refused = person.send("PUT", &format!("/v1/channels/chat:team/{what}"), &body).await;
            assert_eq!((refused.status, refused.code().as_str()), (404, "not_found"), "{refused:?}");
        }
    }
    let list = async |person: &Person<'_>, name: &str| {
        let list = person.get(&format!("/v1/users/{name}/channels")).await.json();
        let channel = &list["items"][0];
        (channel["read"].clone(), channel["unread"].clone())
    };
    assert_eq!(list(&cid, "cid").await, (json!(2), json!(0)));
    say(&ann, "chat:team", "three").await;
    assert_eq!(list(&cid, "cid").await, (json!(2), json!(1)));
    assert_eq!(dan.send("POST", "/v1/channels/chat:team/join", &json!({})).await.status, 200);
    assert_eq!(list(&dan, "dan").await, (json!(2), json!(1)));
}

#[tokio::test]
async fn nobody_makes_himself_the_owner_of_a_channel_that_others_use() {
    let open = ["--set", "namespaces.hall.access=public", "--set", "namespaces.hall.retention=recent"];
    let server = ServerProcess::with(&open).await;
    let (ann, backend) = (Person::new(&server, "ann").await, Person::backend(&server));
    // Where everybody may be in a channel without anybody's record, also while nobody said anything.
    let claim = ann.send("POST", "/v1/channels", &json!({ "channel": "hall:main" })).await;
    assert_eq!((claim.status, claim.code().as_str()), (403, "permission_denied"), "{claim:?}");
    let new = ann.send("POST", "/v1/channels", &json!({ "namespace": "hall" })).await;
    assert_eq!(new.status, 201, "{new:?}");
    // What was said by tokens alone is no new user's to read.
    assert_eq!(say(&backend, "chat:old", "secret").await["cursor"]["offset"], 1);
    let claim = ann.send("POST", "/v1/channels", &json!({ "channel": "chat:old" })).await;
    assert_eq!((claim.status, claim.code().as_str()), (403, "permission_denied"), "{claim:?}");
    assert_eq!(ann.get("/v1/channels/chat:old/history").await.status, 403);
    // A backend knows what it does.
    for channel in ["hall:main", "chat:old"] {
        let made = backend.send("POST", "/v1/channels", &json!({ "channel": channel, "as": "ann" })).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let again = ann.send("POST", "/v1/channels", &json!({ "channel": "chat:old" })).await;
    assert_eq!((again.status, again.code().as_str()), (409, "already_exists"));
}

#[tokio::test]
async fn roles_say_who_may_do_what() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let (cid, eve) = (Person::new(&server, "cid").await, Person::new(&server, "eve").await);
    team(&ann).await;
    let member = |name: &str| format!("/v1/channels/chat:team/members/{name}");
    let active = json!({ "state": "active" });
    assert_eq!(bob.send("PUT", &member("cid"), &active).await.code(), "permission_denied");
    assert_eq!(ann.send("PUT", &member("cid"), &active).await.status, 201);
    assert_eq!(ann.send("PATCH", &member("bob"), &json!({ "role": "admin" })).await.status, 200);
    // Of his own rank, or to it: nobody but an owner.
    assert_eq!(
        bob.send("PATCH", &member("cid"), &json!({ "role": "admin" })).await.code(),
        "permission_denied"
    );
    assert_eq!(
        bob.send("PATCH", &member("bob"), &json!({ "role": "owner" })).await.code(),
        "permission_denied"
    );
    assert_eq!(
        bob.send("PATCH", &member("ann"), &json!({ "role": "guest" })).await.code(),
        "permission_denied"
    );
    assert_eq!(bob.send("PATCH", &member("cid"), &json!({ "role": "guest" })).await.status, 200);
    until("a guest only reads", async || {
        say(&cid, "chat:team", "hi").await["error"]["code"] == "permission_denied"
    })
    .await;
    assert_eq!(cid.get("/v1/channels/chat:team/history").await.status, 200);
    assert_eq!(eve.put("/v1/channels/chat:team/bans/bob").await.code(), "not_found");

    assert_eq!(say(&bob, "chat:team", "before").await["cursor"]["offset"], 1);
    let mute = json!({ "muted_until": 4_102_444_800_000_u64 });
    assert_eq!(ann.send("PATCH", &member("bob"), &mute).await.status, 200);
    until("who is muted does not speak", async || {
        say(&bob, "chat:team", "hi").await["error"]["code"] == "permission_denied"
    })
    .await;
    assert_eq!(ann.put("/v1/channels/chat:team/bans/bob").await.status, 201);
    until("who is banned does not read", async || {
        bob.get("/v1/channels/chat:team/history").await.status == 403
    })
    .await;
    assert_eq!(ann.get("/v1/channels/chat:team/bans").await.json()["items"][0]["user"], "bob");
    assert_eq!(cid.get("/v1/channels/chat:team/bans").await.code(), "permission_denied");
    assert_eq!(ann.delete("/v1/channels/chat:team/bans/bob").await.status, 204);
    assert_eq!(ann.delete(&member("cid")).await.status, 204);
    let alone = ann.get("/v1/channels/chat:team/members").await.json();
    assert_eq!(alone["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_direct_channel_has_the_other_in_it() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let (one, other) = tokio::join!(ann.put("/v1/users/ann/direct/bob"), bob.put("/v1/users/bob/direct/ann"));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{one:?} {other:?}");
    assert_eq!(one.json()["channel"], other.json()["channel"]);
    assert_eq!((&one.json()["user"], &other.json()["user"]), (&json!("bob"), &json!("ann")));
    let channel = one.json()["channel"].as_str().unwrap().to_owned();
    assert_eq!(say(&bob, &channel, "hi").await["cursor"]["offset"], 1);
    let list = ann.get("/v1/users/ann/channels").await.json();
    assert_eq!((&list["items"][0]["user"], &list["items"][0]["unread"]), (&json!("bob"), &json!(1)));
    assert_eq!(ann.put("/v1/users/bob/direct/ann").await.code(), "permission_denied");
    let claim = ann.send("POST", "/v1/channels", &json!({ "channel": "dm:mine" })).await;
    assert_eq!((claim.status, claim.code().as_str()), (400, "not_supported"));
    let path = format!("/v1/channels/{channel}");
    assert_eq!(ann.send("PATCH", &path, &json!({ "title": "Us" })).await.code(), "not_supported");
}

#[tokio::test]
async fn what_has_no_place_in_a_body_is_refused_by_name() {
    let server = ServerProcess::start().await;
    let (ann, _bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    team(&ann).await;
    let (channel, member) = ("/v1/channels/chat:team", "/v1/channels/chat:team/members/bob");
    for (method, path, body, named) in [
        ("POST", "/v1/channels", json!({ "creator": "eve" }), "creator"),
        ("POST", "/v1/channels", json!({ "owners": 3 }), "owners"),
        ("POST", "/v1/channels", json!({ "role": "owner" }), "role"),
        ("PATCH", channel, json!({ "members": 0 }), "members"),
        ("PATCH", channel, json!({ "creator": "eve" }), "creator"),
        ("PATCH", channel, json!({ "kind": "direct" }), "kind"),
        ("PATCH", channel, json!({ "title": { "$set": "x" } }), "title"),
        ("PATCH", channel, json!({ "title.x": "y" }), "title.x"),
        ("PATCH", member, json!({ "state": "active" }), "state"),
        ("PATCH", member, json!({ "read": 9 }), "read"),
        ("PATCH", member, json!({ "role": { "$gt": "" } }), "role"),
        ("PATCH", member, json!({ "role": "root" }), "role"),
        ("PUT", member, json!({ "muted_until": 1 }), "muted_until"),
        ("PUT", "/v1/channels/chat:team/read", json!({ "offset": { "$gt": 0 } }), "offset"),
        ("PUT", "/v1/channels/chat:team/read", json!({ "offset": -1 }), "offset"),
        ("PUT", "/v1/channels/chat:team/read", json!({ "offset": 1, "user": "bob" }), "user"),
    ] {
        let refused = ann.send(method, path, &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "invalid_field"), "{path} {body}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{path} {body}: {detail}");
    }
    let lie = ann.send("POST", "/v1/channels", &json!({ "as": "bob" })).await;
    assert_eq!((lie.status, lie.code().as_str()), (400, "invalid_field"));
    let both = ann.send("POST", "/v1/channels", &json!({ "channel": "chat:x", "namespace": "chat" })).await;
    assert_eq!((both.status, both.code().as_str()), (400, "invalid_field"));
    for (path, code) in [
        ("/v1/channels/chat:team/members?limit=0", "invalid_field"),
        ("/v1/channels/chat:team/members?cursor=%25%25", "invalid_field"),
        ("/v1/channels/chat:team/members?sort=%24where", "invalid_field"),
        ("/v1/channels/nothing", "invalid_name"),
        ("/v1/channels/nowhere:x", "unknown_namespace"),
    ] {
        assert_eq!(ann.get(path).await.code(), code, "{path}");
    }
    let members = ann.send("POST", "/v1/channels", &json!({ "channel": "room:a" })).await;
    assert_eq!(members.code(), "not_supported");
}

#[tokio::test]
async fn a_backend_acts_for_itself_or_in_the_name_of_a_user() {
    let server = ServerProcess::start().await;
    let (backend, ann) = (Person::backend(&server), Person::new(&server, "ann").await);
    let body = json!({ "channel": "chat:own", "members": ["ann", "new"] });
    let own = backend.send("POST", "/v1/channels", &body).await;
    assert_eq!((own.status, &own.json()["creator"], &own.json()["role"]), (201, &Value::Null, &Value::Null));
    let named = backend.send("POST", "/v1/channels", &json!({ "channel": "chat:hers", "as": "ann" })).await;
    assert_eq!((named.status, &named.json()["role"]), (201, &json!("owner")), "{named:?}");
    let hers = backend.get("/v1/users/ann/channels").await.json();
    let names: Vec<&str> =
        hers["items"].as_array().unwrap().iter().map(|item| item["channel"].as_str().unwrap()).collect();
    assert_eq!(names, ["chat:hers", "chat:own"]);
    assert_eq!(hers["items"][1]["state"], "active");
    assert_eq!(ann.delete("/v1/channels/chat:own").await.code(), "permission_denied");
    // In her name, it may what she may.
    assert_eq!(backend.delete("/v1/channels/chat:own?as=ann").await.code(), "permission_denied");
    assert_eq!(backend.delete("/v1/channels/chat:own").await.status, 204);
    let read = backend.send("PUT", "/v1/channels/chat:hers/read", &json!({ "offset": 0 })).await;
    assert_eq!(read.code(), "invalid_field");
    assert_eq!(
        backend.get("/v1/channels/chat:hers/members?limit=1").await.json()["items"][0]["notify"],
        "all"
    );
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let server = ServerProcess::start().await;
    let (backend, ann) = (Person::backend(&server), Person::new(&server, "ann").await);
    for n in 0..5 {
        let body = json!({ "channel": format!("chat:c{n}"), "members": ["ann", "u1", "u2"] });
        assert_eq!(backend.send("POST", "/v1/channels", &body).await.status, 201);
    }
    for (path, all) in [("/v1/users/ann/channels", 5), ("/v1/channels/chat:c1/members", 3)] {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = ann.get(&format!("{path}?limit=2{cursor}")).await.json();
            assert!(page["items"].as_array().unwrap().len() <= 2);
            items.extend(page["items"].as_array().unwrap().iter().map(Value::to_string));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        items.dedup();
        assert_eq!(items.len(), all, "{path}");
    }
}

#[tokio::test]
async fn an_operator_makes_and_changes_channels() {
    let server = ServerProcess::start().await;
    let key = server.api_key();
    let key = key.trim_start_matches("Bearer ");
    let (url, ann) = (server.url(), Person::new(&server, "ann").await);
    let xpush = async |arguments: &[&str]| {
        run(&[&["channel"], arguments, &["--server", &url, "--api-key", key]].concat()).await
    };
    let done = async |arguments: &[&str]| {
        let output = xpush(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    done(&["create", "chat:ops", "--title", "Ops", "--owner", "ann", "--member", "bob c"]).await;
    assert!(done(&["show", "chat:ops"]).await.contains(r#""title":"Ops""#));
    done(&["role", "chat:ops", "bob c", "guest"]).await;
    done(&["add", "chat:ops", "dan", "--role", "admin"]).await;
    let members = done(&["members", "chat:ops"]).await;
    assert_eq!(members, "ann  owner  active\nbob c  guest  active\ndan  admin  active\n");
    done(&["ban", "chat:ops", "bob c"]).await;
    assert_eq!(done(&["bans", "chat:ops"]).await, "bob c\n");
    done(&["unban", "chat:ops", "bob c"]).await;
    done(&["remove", "chat:ops", "dan"]).await;
    assert_eq!(done(&["list", "ann"]).await, "chat:ops  group  owner  active  0  Ops\n");
    done(&["delete", "chat:ops"]).await;
    assert!(the_line(&xpush(&["show", "chat:ops"]).await).contains("404"));
    assert_eq!(ann.get("/v1/users/ann/channels").await.json()["items"], json!([]));
}

#[tokio::test]
async fn who_has_no_credential_gets_nothing_of_channels() {
    let server = ServerProcess::with(&["--set", "auth.anonymous=false"]).await;
    for path in ["/v1/channels/chat:a", "/v1/channels/chat:a/members", "/v1/users/ann/channels"] {
        let refused = request(server.http, "GET", path, &[], "").await;
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
    }
}
