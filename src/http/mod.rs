//! The HTTP API for backends and operators, and the page. The wires that need an HTTP server (WebSocket and
//! long-polling) are mounted beside these routes by who starts the server.

mod access;
mod accounts;
mod acting;
mod active;
mod api;
mod apps;
mod contacts;
mod conversations;
mod devices;
mod extract;
mod health;
mod idempotency;
mod logins;
mod messages;
mod nodes;
mod notices;
mod openapi;
mod page;
mod problem;
mod secret;
pub mod server;
mod webhooks;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use xpush_protocol::Transports;
use xpush_transports::Origins;

pub use access::PeerAddress;
pub use problem::Problem;
use secret::Secret;

use crate::{
    membership::Roles,
    node::{Limits, Node},
};

/// A publish may name this many channels.
pub const CHANNELS_PER_PUBLISH: usize = 100;
/// JSON around a message's data: the channels' names, escapes, base64.
const BODY_OVERHEAD: usize = 64 * 1024;

/// What the routes share.
#[derive(Clone)]
pub struct Api {
    pub node: Arc<Node>,
    pub roles: Roles,
    pub origins: Origins,
    pub transports: Arc<WiresOf>,
}

/// Answers `GET /v1/transports`, for the host by which the server was reached and whether that was over TLS.
pub type WiresOf = dyn Fn(&str, bool) -> Transports + Send + Sync;

/// Bytes of a request's body: a message's data, which base64 or escapes make longer.
fn body_limit(limits: &Limits) -> usize {
    limits.data * 2 + BODY_OVERHEAD
}

/// The routes of the API, the operator and the page.
pub fn router(api: Api) -> Router {
    let body_limit = body_limit(&api.node.limits);
    let roles = api.roles;
    let once = middleware::from_fn_with_state(api.clone(), idempotency::once);
    let guarded = middleware::from_fn_with_state(api.clone(), access::check_origin);
    let mut routes = Router::new()
        .route("/v1/transports", get(api::transports))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/active/channels", get(active::channels))
        .route("/v1/active/users", get(active::users))
        .route("/v1/drain", post(nodes::drain))
        .route("/v1/openapi.json", get(openapi::answer));
    if roles.session {
        routes = routes
            .route("/v1/tickets", post(nodes::ticket))
            .route("/v1/publish", post(api::publish))
            .route("/v1/channels/{channel}/history", get(api::history))
            .route("/v1/channels/{channel}/presence", get(api::presence))
            .merge(apps::routes())
            .merge(accounts::routes())
            .merge(logins::routes())
            .merge(devices::routes())
            .merge(contacts::routes())
            .merge(conversations::routes())
            .merge(messages::routes())
            .merge(webhooks::routes())
            .merge(page::router());
    }
    routes
        // Within the guard, which answers a page's OPTIONS before the route can refuse it.
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(once)
        .layer(guarded)
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(middleware::from_fn(access::keep_deadline))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(middleware::from_fn(problem::speak))
        .with_state(api)
}
