//! Channels and their members, cursors and receipts, for users and their backends.

mod channels;
mod cursors;
mod list;
mod members;
mod view;

use axum::{
    Router,
    routing::{get, post, put},
};
use xpush_protocol::ChannelName;

use super::Api;
use crate::{
    namespace::{Access, Policy},
    session::Refusal,
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/channels", post(channels::create))
        .route("/v1/channels/{channel}", get(channels::read).patch(channels::update).delete(channels::delete))
        .route("/v1/channels/{channel}/join", post(members::join))
        .route("/v1/channels/{channel}/members", get(members::list))
        .route(
            "/v1/channels/{channel}/members/{user}",
            put(members::put).patch(members::change).delete(members::remove),
        )
        .route("/v1/channels/{channel}/bans", get(members::bans))
        .route("/v1/channels/{channel}/bans/{user}", put(members::ban).delete(members::unban))
        .route("/v1/channels/{channel}/read", put(cursors::read))
        .route("/v1/channels/{channel}/received", put(cursors::received))
        .route("/v1/channels/{channel}/receipts", get(cursors::receipts))
        .route("/v1/users/{user}/channels", get(list::mine))
        .route("/v1/users/{user}/direct/{other}", put(channels::open_direct))
}

/// What holds for a channel in its app.
async fn rules(api: &Api, channel: &ChannelName) -> Result<Policy, Refusal> {
    api.node.rules(channel).await
}

/// Whether every user, or everybody, may be in the channels of a namespace with this access.
fn is_open(access: Access) -> bool {
    matches!(access, Access::Public | Access::Anonymous)
}
