//! A user of the server, as its own HTTP client.

use serde_json::{Value, json};

use super::{
    http::{Response, post, request},
    process::ServerProcess,
};

pub(crate) struct Person<'a> {
    server: &'a ServerProcess,
    /// As a header has it.
    bearer: String,
}

impl<'a> Person<'a> {
    /// Registers.
    pub(crate) async fn new(server: &'a ServerProcess, name: &str) -> Self {
        let body = json!({ "user": name, "password": format!("the password of {name}") });
        let answer = post(server.http, "/v1/users", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
        Self { server, bearer }
    }

    /// Whose token the application signed; the server has not heard of him.
    pub(crate) fn with_token(server: &'a ServerProcess, token: &str) -> Self {
        Self { server, bearer: format!("Bearer {token}") }
    }

    /// The server's own backend.
    pub(crate) fn backend(server: &'a ServerProcess) -> Self {
        Self { server, bearer: server.api_key() }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        request(self.server.http, "GET", path, &[("authorization", &self.bearer)], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        request(self.server.http, "DELETE", path, &[("authorization", &self.bearer)], "").await
    }

    /// Without a body.
    pub(crate) async fn put(&self, path: &str) -> Response {
        request(self.server.http, "PUT", path, &[("authorization", &self.bearer)], "").await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        self.send_if(method, path, None, body).await
    }

    /// Only if it is still what this ETag was of.
    pub(crate) async fn send_if(
        &self,
        method: &str,
        path: &str,
        etag: Option<&str>,
        body: &Value,
    ) -> Response {
        let mut headers = vec![("authorization", self.bearer.as_str()), ("content-type", "application/json")];
        headers.extend(etag.map(|etag| ("if-match", etag)));
        request(self.server.http, method, path, &headers, body.to_string()).await
    }
}
