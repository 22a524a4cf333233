//! The directory is one: what is written through a node is read through any other at once, whichever node dies, and
//! what MongoDB has is there when MongoDB is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use xpush_test_servers::{Mongo, Redis, ZooKeeper, until};

use crate::nodes::{self, Node, OPERATOR_KEY, Shared};

/// Refused is refused soon: a server is looked for during 3 s, and a busy machine takes its time too.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    async fn ask(
        &self,
        node: &Node,
        credential: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", node.url()))
            .header("authorization", format!("Bearer {credential}"))
            .header("content-type", "application/json")
            .body(Full::from(if body.is_null() { String::new() } else { body.to_string() }))
            .unwrap();
        let answer = self.0.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_through_one_node_is_read_through_another_and_outlives_both() {
    let (redis, mut mongo, zookeeper) = tokio::join!(Redis::start(), Mongo::start(1), ZooKeeper::start(1));
    let shared = Shared { redis: redis.url(), mongodb: mongo.url(), zookeeper: zookeeper.connect_string() };
    let (mut nodes, _doors) = nodes::start(&[shared.clone(), shared]).await;
    let http = Http(Client::builder(TokioExecutor::new()).build_http());

    let ann = json!({"user": "ann", "password": "a long one of hers", "name": "Ann"});
    let (status, tokens) = http.ask(&nodes[0], OPERATOR_KEY, "POST", "/v1/users", ann.clone()).await;
    assert_eq!(status, 201, "{tokens}");
    let (status, twice) = http.ask(&nodes[1], OPERATOR_KEY, "POST", "/v1/users", ann).await;
    assert_eq!((status, &twice["code"]), (409, &json!("already_exists")));
    // The token of one node's key is good at the other, and so is what it changes.
    let token = tokens["access_token"].as_str().unwrap();
    for (n, name) in ["Ann B", "Ann C", "Ann D", "Ann E"].into_iter().enumerate() {
        let (here, there) = (&nodes[n % 2], &nodes[(n + 1) % 2]);
        let (status, answer) = http.ask(here, token, "PATCH", "/v1/users/ann", json!({"name": name})).await;
        assert_eq!(status, 200, "{answer}");
        let (_, read) = http.ask(there, token, "GET", "/v1/users/ann", Value::Null).await;
        assert_eq!(read["name"], name);
    }

    // Killed, not stopped.
    nodes[0].kill9();
    let (status, read) = http.ask(&nodes[1], token, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!((status, &read["name"]), (200, &json!("Ann E")));
    nodes[0].start().await;
    let (status, read) = http.ask(&nodes[0], token, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!((status, &read["name"]), (200, &json!("Ann E")));

    // Without MongoDB it is said soon that nothing is known; with it, all is there.
    mongo.kill_all();
    let begun = Instant::now();
    let (status, refused) = http.ask(&nodes[0], OPERATOR_KEY, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!(
        (status, &refused["code"], &refused["retry"]),
        (503, &json!("directory_unavailable"), &json!(true))
    );
    assert!(begun.elapsed() < REFUSED_WITHIN, "it took {:?}", begun.elapsed());
    mongo.restart_all().await;
    for node in &nodes {
        until("the directory to be there again", async || {
            let (status, read) = http.ask(node, OPERATOR_KEY, "GET", "/v1/users/ann", Value::Null).await;
            status == 200 && read["name"] == "Ann E"
        })
        .await;
    }
}
