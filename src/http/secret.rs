//! Answers with something in them that nobody is told again: tokens and keys.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// An answer that no cache keeps. `idempotency` does, sealed by what only the installation has.
pub(super) struct Secret<T>(pub(super) StatusCode, pub(super) T);

impl<T: Serialize> IntoResponse for Secret<T> {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(self.1)).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
