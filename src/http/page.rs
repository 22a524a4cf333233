//! The demo page and the browser client, in the binary: a fresh clone needs nothing but Rust.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::Api;

/// Nothing but our own script and style; connections to any server that somebody self-hosts.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' https: wss: ws: http:; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

macro_rules! asset {
    ($path:literal, $type:literal, $file:literal) => {
        ($path, $type, include_bytes!(concat!("../../client-js/dist/", $file)) as &'static [u8])
    };
}

/// Path, content type and bytes of each file; built by `npm run build` in client-js and committed.
const ASSETS: &[(&str, &str, &[u8])] = &[
    asset!("/", "text/html; charset=utf-8", "demo/index.html"),
    asset!("/style.css", "text/css; charset=utf-8", "demo/style.css"),
    asset!("/app.js", "text/javascript; charset=utf-8", "demo/app.js"),
    asset!("/xpush.js", "text/javascript; charset=utf-8", "xpush.js"),
    asset!("/xpush-platform.js", "text/javascript; charset=utf-8", "xpush-platform.js"),
    asset!("/xpush.classic.js", "text/javascript; charset=utf-8", "xpush.classic.js"),
];

pub(super) fn router() -> Router<Api> {
    ASSETS.iter().fold(Router::new(), |router, (path, content_type, bytes)| {
        router.route(path, get(move || async move { asset(content_type, bytes) }))
    })
}

fn asset(content_type: &'static str, bytes: &'static [u8]) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
