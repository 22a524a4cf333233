//! Friends, blocks and groups: what users are to each other.

use axum::Router;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
}
