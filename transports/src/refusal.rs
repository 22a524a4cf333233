//! How the wires over HTTP say no: a status and problem details, as the HTTP API does.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header, uri::Authority};
use http_body_util::Full;
use xpush_protocol::{Codec, Error, ErrorCode, Problem};

use crate::Refused;

/// What is refused, and why.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    code: ErrorCode,
    message: String,
    retry: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry: code.may_retry() }
    }

    pub(crate) fn bad_request(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn origin(origin: &str) -> Self {
        let message = format!("pages of {origin} may not connect here; the server's `origins` say which may");
        Self::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message)
    }

    pub(crate) fn shut_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Busy, "the node takes no more connections")
    }

    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let error = Error {
            id: None,
            code: self.code,
            message: self.message.clone(),
            channel: None,
            retry: self.retry,
            retry_after: None,
        };
        let title = self.status.canonical_reason().unwrap_or_default();
        let problem = Problem::new(self.status.as_u16(), title, error);
        let mut response = Response::new(Full::new(Codec::Json.encode(&problem)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        // Places become free again.
        Self { retry: true, ..Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitReached, message) }
    }
}

/// The page's origin, if the request comes from one.
pub(crate) fn origin<B>(request: &http::Request<B>) -> Option<String> {
    // Bytes that are no text are an origin that nobody allowed.
    request
        .headers()
        .get(header::ORIGIN)
        .map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned())
}

/// The host that the request was sent to: HTTP/1.1's Host, HTTP/2's `:authority`.
#[must_use]
pub fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| uri.authority().map(Authority::as_str)).unwrap_or_default()
}
