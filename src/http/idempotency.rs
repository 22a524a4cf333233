//! `Idempotency-Key` on a POST: sent again with the same key, the request is done once and gets the first answer again
//! (after draft-ietf-httpapi-idempotency-key-header-07).
//!
//! A caller whose connection broke does not know whether it was heard. So what was begun is done to its end without the
//! caller, and whichever node is asked next finds the answer in the directory. It is the caller's whatever credential it
//! shows then: a token may have been renewed meanwhile. It lies there sealed by a key that is made of the installation's
//! secret: a leaked store gives no token away. Only a success is kept: what was refused changed nothing, and may be tried
//! again.

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request, response},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{Context, Digest, SHA256},
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use tracing::warn;
use xpush_protocol::{AppId, ErrorCode};

use super::{
    Api, Problem,
    access::{Caller, PeerAddress},
    body_limit,
};
use crate::{directory::Known, session::Refusal};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Bytes of a key.
const KEY_LIMIT: usize = 128;
/// A longer answer is not kept: what a POST makes is described in much less.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Of the first answer's headers, those that are part of what it says.
const HEADERS_KEPT: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::ETAG, header::LOCATION, header::CACHE_CONTROL];

/// In front of what the key of an answer is made of: nothing else that the installation's secret signs begins so.
const PURPOSE: &[u8] = b"xpush kept answer\0";

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// What the caller calls its request, made into names that tell the store nothing.
struct Name {
    id: String,
    seal: LessSafeKey,
}

/// A layer around all routes.
pub(super) async fn once(State(api): State<Api>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    only_once(api, request, next).await.unwrap_or_else(Problem::into_response)
}

async fn only_once(api: Api, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    // Who is nobody is refused, or calls what needs no credential: then there is nobody whose key it would be.
    let caller = Caller::from_request_parts(&mut parts, &api).await;
    let Some(caller) = caller.ok().filter(|caller| caller.is_backend || caller.user().is_some()) else {
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let key = parts.headers.get(HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
    if key.is_empty() || key.len() > KEY_LIMIT || !key.iter().all(u8::is_ascii_graphic) {
        let message = format!("`Idempotency-Key` is 1 to {KEY_LIMIT} visible ASCII characters");
        return Err(Refusal::new(ErrorCode::InvalidField, message).into());
    }
    // What is kept of a client costs it as much as a message.
    if !caller.is_backend {
        api.node.admit_publish(&api.node.allowance(&caller.publisher))?;
    }
    let app = caller.rights.app().clone();
    let name = Name::new(&app, &who(&caller, &parts), key, |purpose| api.node.key_of(purpose))?;
    let body = to_bytes(body, body_limit(&api.node.limits)).await.map_err(|error| {
        Problem::from(Refusal::new(ErrorCode::TooLarge, format!("the body can't be read: {error}")))
    })?;
    let fingerprint = hex(&digest(&[b"request", parts.uri.to_string().as_bytes(), &body]));
    match api.node.directory.begin(&app, &name.id, &fingerprint).await.map_err(Refusal::from)? {
        Known::Done(sealed) => name.open(&sealed).map(Answer::into_response).ok_or_else(|| {
            Refusal::new(ErrorCode::Internal, "the answer that was kept can't be read").into()
        }),
        Known::Underway => {
            let message = "a request with this `Idempotency-Key` is under way: ask again in a moment";
            Err(Problem::with_status(StatusCode::CONFLICT, ErrorCode::Busy, message))
        }
        Known::Another => {
            let message = "another request had this `Idempotency-Key` within 24 hours: take a new one";
            Err(Problem::with_status(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::InvalidField, message))
        }
        Known::New => {
            let request = Request::from_parts(parts, Body::from(body));
            let node = std::sync::Arc::clone(&api.node);
            let done = node.see_through(do_and_keep(api, app, name, fingerprint, request, next)).await;
            done.map_err(|error| {
                Refusal::new(ErrorCode::Internal, format!("the request was not finished: {error}")).into()
            })
        }
    }
}

async fn do_and_keep(
    api: Api,
    app: AppId,
    name: Name,
    fingerprint: String,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    let directory = &api.node.directory;
    let mut kept = Ok(());
    // Answers of the API are whole; what can't be collected is none.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    if parts.status.is_success() && body.len() <= ANSWER_LIMIT {
        // All answers are texts.
        let text = std::str::from_utf8(&body).ok();
        match text.and_then(|text| name.seal(&Answer::of(&parts, text))) {
            Some(sealed) => kept = directory.keep_answer(&app, &name.id, &fingerprint, sealed).await,
            None => warn!("an answer could not be sealed; it is not kept"),
        }
    } else {
        kept = directory.forget_answer(&app, &name.id).await;
    }
    if let Err(error) = kept {
        warn!(%error, "an answer is not kept; its request would be done again");
    }
    Response::from_parts(parts, Body::from(body))
}

/// The user, the API key by its id, or who needs no credential by where it is.
fn who(caller: &Caller, parts: &request::Parts) -> String {
    match parts.extensions.get() {
        Some(PeerAddress(peer)) if !parts.headers.contains_key(header::AUTHORIZATION) => {
            format!("peer:{}", peer.ip())
        }
        _ => caller.publisher.as_str().to_owned(),
    }
}

impl Name {
    /// `secret`: gives a key of the installation.
    fn new(
        app: &AppId,
        who: &str,
        key: &[u8],
        secret: impl FnOnce(&[u8]) -> [u8; 32],
    ) -> Result<Self, Refusal> {
        let id = digest(&[b"name", app.as_str().as_bytes(), who.as_bytes(), key]);
        let seal = UnboundKey::new(&AES_256_GCM, &secret(&[PURPOSE, id.as_ref()].concat()))
            .map_err(|_| Refusal::new(ErrorCode::Internal, "no key to seal an answer with"))?;
        Ok(Self { id: hex(&id), seal: LessSafeKey::new(seal) })
    }

    /// `None`: the machine gave no random number.
    fn seal(&self, answer: &Answer) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = rmp_serde::to_vec(answer).ok()?;
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.seal.seal_in_place_append_tag(nonce_of, Aad::empty(), &mut sealed).ok()?;
        Some(STANDARD_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    fn open(&self, sealed: &str) -> Option<Answer> {
        let mut bytes = STANDARD_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let answer = self.seal.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        rmp_serde::from_slice(answer).ok()
    }
}

impl Answer {
    fn of(parts: &response::Parts, body: &str) -> Self {
        let headers = HEADERS_KEPT.iter().filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        });
        Self { status: parts.status.as_u16(), headers: headers.collect(), body: body.to_owned() }
    }

    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// Of parts that can't run into each other.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish()
}

fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::StateSealer;

    fn name(app: &str, who: &str, key: &str, secret: u8) -> Name {
        let secret = StateSealer::new(&[secret; 32]);
        Name::new(&app.parse().unwrap(), who, key.as_bytes(), |purpose| secret.key_of(purpose)).unwrap()
    }

    #[test]
    fn an_answer_is_opened_for_the_same_caller_and_key_with_the_same_secret_alone() {
        let answer =
            Answer { status: 201, headers: vec![("etag".into(), "\"1\"".into())], body: "{}".into() };
        let of_ann = name("shop", "u:ann", "order-17", 7);
        let sealed = of_ann.seal(&answer).unwrap();
        assert_ne!(sealed, of_ann.seal(&answer).unwrap());
        let again = name("shop", "u:ann", "order-17", 7);
        let opened = again.open(&sealed).unwrap();
        assert_eq!((opened.status, opened.body.as_str(), &again.id), (201, "{}", &of_ann.id));
        for (app, who, key) in [
            ("shop", "u:bob", "order-17"),
            ("bank", "u:ann", "order-17"),
            ("shop", "u:ann", "order-18"),
            ("shop", "u:an", "norder-17"),
            ("shop", "k:ann", "order-17"),
        ] {
            let other = name(app, who, key, 7);
            assert!(other.open(&sealed).is_none());
            assert_ne!(other.id, of_ann.id);
        }
        assert!(name("shop", "u:ann", "order-17", 8).open(&sealed).is_none(), "a leaked store tells nothing");
        assert!(again.open("").is_none() && again.open(&sealed[1..]).is_none());
    }
}
