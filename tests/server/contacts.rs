//! Friends, blocks and groups over HTTP.

use serde_json::json;

use super::{person::Person, process::ServerProcess, tokens::token};

#[tokio::test]
async fn friends_are_asked_and_accept() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let asked = ann.put("/v1/users/ann/friends/bob").await;
    assert_eq!((asked.status, &asked.json()["state"]), (200, &json!("requested")), "{asked:?}");
    let incoming = bob.get("/v1/users/bob/friends?state=incoming").await.json();
    assert_eq!(
        (&incoming["items"][0]["user"], &incoming["items"][0]["state"]),
        (&json!("ann"), &json!("incoming"))
    );
    assert_eq!(bob.put("/v1/users/bob/friends/ann").await.json()["state"], "friends");
    assert_eq!(ann.get("/v1/users/ann/friends?state=friends").await.json()["items"][0]["user"], "bob");
    assert_eq!(ann.delete("/v1/users/ann/friends/bob").await.status, 204);
    let again = ann.delete("/v1/users/ann/friends/bob").await;
    assert_eq!((again.status, again.code().as_str()), (404, "not_found"));
    let unknown = ann.put("/v1/users/ann/friends/nobody").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
    // Whoever it is, a list is its owner's.
    let foreign = bob.get("/v1/users/ann/friends").await;
    assert_eq!((foreign.status, foreign.code().as_str()), (403, "permission_denied"));
}

#[tokio::test]
async fn who_is_blocked_can_not_tell_it_from_no_answer() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let cid = Person::new(&server, "cid").await;
    let direct = bob.put("/v1/users/bob/direct/ann").await;
    assert_eq!(direct.status, 201, "{direct:?}");
    let channel = direct.json()["channel"].as_str().unwrap().to_owned();
    let say = json!({ "channels": [channel], "data": "hello" });
    assert_eq!(bob.send("POST", "/v1/publish", &say).await.status, 200);

    assert_eq!(ann.put("/v1/users/ann/blocks/bob").await.status, 200);
    assert_eq!(ann.get("/v1/users/ann/blocks").await.json()["items"][0]["user"], "bob");
    let (blocked, other) =
        (bob.put("/v1/users/bob/friends/ann").await, bob.put("/v1/users/bob/friends/cid").await);
    assert_eq!(blocked.status, other.status);
    assert_eq!(blocked.json()["state"], other.json()["state"]);
    assert_eq!(ann.get("/v1/users/ann/friends").await.json()["items"], json!([]));
    assert_eq!(cid.get("/v1/users/cid/friends").await.json()["items"][0]["state"], "incoming");

    // What holds within a second is looked at until it does.
    super::process::until("the direct channel is shut", async || {
        let answer = bob.send("POST", "/v1/publish", &say).await;
        answer.json()["results"][0]["error"]["code"] == "permission_denied"
    })
    .await;
    let new = cid.put("/v1/users/cid/direct/ann").await;
    assert_eq!(new.status, 201, "{new:?}");
    assert_eq!(ann.delete("/v1/users/ann/blocks/bob").await.status, 204);
    assert_eq!(ann.get("/v1/users/ann/friends").await.json()["items"][0]["state"], "incoming");
}

#[tokio::test]
async fn a_group_is_read_and_written_by_its_owner() {
    let server = ServerProcess::start().await;
    let (ann, bob) = (Person::new(&server, "ann").await, Person::new(&server, "bob").await);
    let body = json!({ "name": "Family", "users": ["bob", "cid", "bob"] });
    let made = ann.send("POST", "/v1/users/ann/groups", &body).await;
    assert_eq!((made.status, &made.json()["users"]), (201, &json!(["bob", "cid"])), "{made:?}");
    let path = format!("/v1/users/ann/groups/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(ann.get(&path).await.json(), made.json());
    assert_eq!(bob.get(&path).await.status, 403);
    assert_eq!(ann.send("PUT", "/v1/users/ann/groups/work", &json!({ "name": "Work" })).await.status, 201);
    assert_eq!(ann.send("PUT", "/v1/users/ann/groups/work", &json!({ "name": "Jobs" })).await.status, 200);
    assert_eq!(ann.get("/v1/users/ann/groups").await.json()["items"].as_array().unwrap().len(), 2);
    for (body, status, code) in [
        (json!({ "name": "" }), 400, "invalid_field"),
        (json!({ "name": {"$gt": ""} }), 422, "invalid_field"),
        (json!({ "name": "a", "owner": "bob" }), 422, "invalid_field"),
        (json!({ "name": "a", "users": ["a\u{0}"] }), 422, "invalid_name"),
    ] {
        let refused = ann.send("PUT", "/v1/users/ann/groups/work", &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{body}");
    }
    let refused = ann.send("PUT", "/v1/users/ann/groups/a%2Fb", &json!({ "name": "a" })).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_field"));
    assert_eq!(ann.delete("/v1/users/ann/groups/work").await.status, 204);
    assert_eq!(ann.get("/v1/users/ann/groups/work").await.code(), "not_found");
}

#[tokio::test]
async fn whom_the_applications_tokens_name_are_users_once_they_do_something() {
    let server = ServerProcess::start().await;
    let ann = Person::with_token(&server, &token(&server, &["--user", "ann"]).await);
    let bob = Person::with_token(&server, &token(&server, &["--user", "bob"]).await);
    let early = ann.put("/v1/users/ann/friends/bob").await;
    assert_eq!((early.status, early.code().as_str()), (404, "not_found"));
    // Ann is known by that, and bob by what he asks for.
    assert_eq!(bob.put("/v1/users/bob/friends/ann").await.json()["state"], "requested");
    assert_eq!(ann.put("/v1/users/ann/friends/bob").await.json()["state"], "friends");
    assert_eq!(ann.put("/v1/users/ann/direct/bob").await.status, 201);
}
