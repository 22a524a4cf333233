//! What webhooks could not deliver, to be seen and sent again.

use axum::Router;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
}
