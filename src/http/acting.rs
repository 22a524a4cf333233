//! Who acts where a path or a body names users, which page of a list is wanted, and of what version a change is.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use xpush_protocol::{ChannelName, ErrorCode, UserId};

use super::{Problem, access::Caller};
use crate::{
    directory::{Actor, DirectoryError, Page, PageQuery},
    session::Refusal,
};

/// Who acts: the token's user, whom a backend names (`as`), or the backend itself.
pub(super) fn acting(caller: &Caller, named: Option<&UserId>) -> Result<Option<UserId>, Refusal> {
    if caller.is_backend {
        caller.require_backend()?;
        return Ok(named.map(|named| named.within(caller.app())));
    }
    if named.is_some() {
        return Err(Refusal::new(ErrorCode::InvalidField, "`as` is for backends; a user acts as itself"));
    }
    match caller.user() {
        Some(user) => Ok(Some(user.clone())),
        None => Err(Refusal::new(ErrorCode::PermissionDenied, "the token names no user")),
    }
}

pub(super) fn actor(user: Option<&UserId>) -> Actor<'_> {
    user.map_or(Actor::Backend, Actor::User)
}

/// A channel of a path or a body, as the caller's app has it.
pub(super) fn named_channel(caller: &Caller, channel: &ChannelName) -> ChannelName {
    channel.within(caller.app())
}

/// `?as=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActingParameters {
    #[serde(rename = "as")]
    pub(super) acting: Option<UserId>,
}

/// `?limit=&cursor=`, and `as`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParameters {
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(rename = "as")]
    pub(super) acting: Option<UserId>,
}

impl PageParameters {
    pub(super) fn query(self) -> PageQuery {
        PageQuery { limit: self.limit, cursor: self.cursor }
    }
}

/// `{"items", "next"?}`
#[derive(Debug, Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> Items<T> {
    pub(super) fn of<U>(page: Page<U>, view: impl FnMut(U) -> T) -> Json<Self> {
        Json(Self { items: page.items.into_iter().map(view).collect(), next: page.next })
    }
}

/// `null` is something that was said: take it away.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A body that may be left out.
#[derive(Debug)]
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            let super::extract::Body(value) = super::extract::Body::from_request(request, state).await?;
            return Ok(Self(value));
        }
        let bytes = Bytes::from_request(request, state).await;
        if bytes.is_ok_and(|bytes| bytes.is_empty()) {
            return Ok(Self(T::default()));
        }
        let message = "a body is JSON, and says so: `Content-Type: application/json`";
        Err(Refusal::new(ErrorCode::InvalidField, message).into())
    }
}

/// `If-Match`: the version that is to be changed, if the caller minds.
#[derive(Debug)]
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(expected(&parts.headers)?))
    }
}

fn expected(headers: &HeaderMap) -> Result<Option<u64>, DirectoryError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let version = tag.and_then(|tag| u64::from_str_radix(tag, 16).ok());
    // What no ETag of ours is, is of no version that is there.
    version.map(Some).ok_or(DirectoryError::Stale)
}
