//! Users and their devices: to register, to log in and out, profiles.

use axum::Router;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
}
