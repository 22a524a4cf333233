//! What a failed request gets: RFC 9457's problem details, whoever refuses it. A status for the machine, and beside it
//! the fields of the error that sessions get.

use axum::{
    body::Body,
    extract::{
        Request,
        path::ErrorKind,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use xpush_protocol::{ChannelName, Error, ErrorCode, Problem as Details};

use crate::{directory::DirectoryError, session::Refusal};

/// Axum's own refusals are a line of text; a longer one is not told.
const FOREIGN_DETAIL_LIMIT: usize = 4096;

/// A status, and why.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    error: Error,
}

impl Problem {
    #[must_use]
    pub fn new(refusal: Refusal, channel: Option<ChannelName>) -> Self {
        Self { status: status(refusal.code), error: refusal.into_frame(None, channel) }
    }

    /// Where the status is not the code's usual one.
    pub(super) fn with_status(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, ..Self::new(Refusal::new(code, message), None) }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal, None)
    }
}

impl From<DirectoryError> for Problem {
    fn from(error: DirectoryError) -> Self {
        Refusal::from(error).into()
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
        let message = rejection.body_text();
        let is_name = message.contains("; expected ");
        let code = if is_name { ErrorCode::InvalidName } else { ErrorCode::InvalidField };
        Self::with_status(rejection.status(), code, message)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        let code = match &rejection {
            _ if rejection.status().is_server_error() => ErrorCode::Internal,
            PathRejection::FailedToDeserializePathParams(inner)
                if matches!(
                    inner.kind(),
                    ErrorKind::ParseErrorAtKey { .. }
                        | ErrorKind::ParseErrorAtIndex { .. }
                        | ErrorKind::ParseError { .. }
                ) =>
            {
                ErrorCode::InvalidField
            }
            // Names, and percent-encoded bytes that are no text.
            _ => ErrorCode::InvalidName,
        };
        Self::with_status(rejection.status(), code, rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        let retry_after = error.retry_after.map(|millis| millis.div_ceil(1000));
        let title = status.canonical_reason().unwrap_or_default();
        // Strings and numbers are always written.
        let body = serde_json::to_vec(&Details::new(status.as_u16(), title, error)).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Details::CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Has the framework's refusals be problems too: those of its extractors come as text, or as nothing.
pub(super) async fn speak(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    let is_ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.to_str().is_ok_and(|text| text.starts_with("application/")));
    if !is_refusal || is_ours {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = text(body).await.filter(|text| !text.is_empty());
    let detail = said.unwrap_or_else(|| status.canonical_reason().unwrap_or("refused").to_owned());
    let mut problem = Problem::with_status(status, code(status), detail).into_response();
    for (name, value) in &parts.headers {
        if !problem.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            problem.headers_mut().append(name, value.clone());
        }
    }
    problem
}

async fn text(body: Body) -> Option<String> {
    let bytes = axum::body::to_bytes(body, FOREIGN_DETAIL_LIMIT).await.ok()?;
    String::from_utf8(bytes.into()).ok()
}

/// The code of a refusal that says no more than its status.
fn code(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorCode::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ErrorCode::UnknownCommand,
        StatusCode::PRECONDITION_FAILED => ErrorCode::PreconditionFailed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        StatusCode::REQUEST_TIMEOUT => ErrorCode::Malformed,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::Busy,
        _ if status.is_server_error() => ErrorCode::Internal,
        _ => ErrorCode::InvalidField,
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
