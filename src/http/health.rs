//! What an operator's machines ask: is it alive, may it get clients, how is it doing.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::Api;

/// A channel that nobody writes to: reading where it stands asks the store and nothing more.
const PROBE: &str = "probe:readiness";

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    /// Whether the durable log answers, or why not.
    log: String,
    sessions: usize,
}

/// `GET /readyz`: new clients may be sent here.
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let node = &api.node;
    let log = match PROBE.parse() {
        Ok(channel) => node.durable_log().extent(&channel).await.map(drop).map_err(|error| error.to_string()),
        Err(_) => Ok(()),
    };
    let draining = node.is_draining();
    let ready = log.is_ok() && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let log = log.err().unwrap_or_else(|| "ok".into());
    (status, Json(Readiness { ready, draining, log, sessions: node.sessions.count() }))
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], api.node.metrics.render())
}
