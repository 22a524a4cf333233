//! What an operator's machines ask: is it alive, may it get clients, how is it doing.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::Api;
use crate::node::Health;

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    /// A backend is missing: what needs it is refused, all else goes on.
    degraded: bool,
    /// For each backend: `ok`, or why it can't be used.
    log: String,
    broker: String,
    membership: String,
    sessions: usize,
}

/// `GET /readyz`: new clients may be sent here.
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let node = &api.node;
    let health = node.health().await;
    let ready = node.is_ready(&health);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let Health { log, broker, membership } = health;
    let degraded = log.is_err() || broker.is_err() || membership.is_err();
    let said = |checked: Result<(), String>| checked.err().unwrap_or_else(|| "ok".into());
    let (draining, sessions) = (node.is_draining(), node.sessions.count());
    let (log, broker, membership) = (said(log), said(broker), said(membership));
    (status, Json(Readiness { ready, draining, degraded, log, broker, membership, sessions }))
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], api.node.metrics.render())
}
