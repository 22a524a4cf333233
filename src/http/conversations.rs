//! Channels and their members, cursors and receipts, for users and their backends.

use axum::Router;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
}
