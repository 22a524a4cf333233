//! What a failed request gets: a status for the machine, and the same error object that sessions get.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use xpush_protocol::{ChannelName, Error, ErrorCode};

use crate::session::Refusal;

/// `{"error": {"code", "message", "retry", …}}` with a status.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(skip)]
    status: StatusCode,
    error: Error,
}

impl Problem {
    #[must_use]
    pub fn new(refusal: Refusal, channel: Option<ChannelName>) -> Self {
        Self { status: status(refusal.code), error: refusal.into_frame(None, channel) }
    }

    fn with_status(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, ..Self::new(Refusal::new(code, message), None) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal, None)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let message = rejection.body_text();
        // A body has no better way to tell them apart than a frame has (`Codec::decode_command`).
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
            StatusCode::BAD_REQUEST => ErrorCode::Malformed,
            _ if message.contains("; expected ") => ErrorCode::InvalidName,
            _ if message.contains("nested deeper") => ErrorCode::TooDeep,
            _ => ErrorCode::InvalidField,
        };
        Self::with_status(rejection.status(), code, message)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::with_status(rejection.status(), ErrorCode::InvalidField, rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after = self.error.retry_after.map(|millis| millis.div_ceil(1000).to_string());
        let mut response = (self.status, Json(&self)).into_response();
        if let Some(seconds) = retry_after.and_then(|seconds| seconds.parse().ok()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// RFC 9110's status for a code.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Unauthenticated | ErrorCode::InvalidToken | ErrorCode::TokenExpired => {
            StatusCode::UNAUTHORIZED
        }
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::InvalidCredentials => StatusCode::UNAUTHORIZED,
        ErrorCode::Refused => StatusCode::FORBIDDEN,
        ErrorCode::AlreadyExists => StatusCode::CONFLICT,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::NotFound | ErrorCode::UnknownNamespace | ErrorCode::NotConnected => StatusCode::NOT_FOUND,
        ErrorCode::CursorAhead => StatusCode::CONFLICT,
        ErrorCode::RateLimited | ErrorCode::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Busy | ErrorCode::NoNode | ErrorCode::DirectoryUnavailable | ErrorCode::LogUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

pub(super) async fn not_found(uri: Uri) -> Problem {
    let message = format!("nothing is at {}; GET /v1/openapi.json tells what there is", uri.path());
    Problem::with_status(StatusCode::NOT_FOUND, ErrorCode::UnknownCommand, message)
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}", uri.path());
    Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::UnknownCommand, message)
}
