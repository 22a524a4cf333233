//! What goes on at this node right now: channels that have subscribers, and users who are connected. Each node answers
//! for itself, whatever its roles; `GET /v1/nodes` has the counts of all.
//!
//! Nothing is kept for this: it is read from what the node needs anyway, so that a list of many is work. It is for
//! operators and backends.

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, ErrorCode, UserId};

use super::{Api, Problem, access::Caller, extract::Query};
use crate::session::Refusal;

/// Entries of a page, if nothing is said.
const USUAL_PAGE: usize = 50;
/// At most.
const LARGEST_PAGE: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParameters {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A page of what is active here.
#[derive(Debug, Serialize)]
pub(super) struct Active<T> {
    node: String,
    /// Of the app, at this node.
    total: usize,
    items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ActiveChannel {
    channel: ChannelName,
    subscribers: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct ActiveUser {
    user: UserId,
    sessions: usize,
}

/// `GET /v1/active/channels`
pub(super) async fn channels(
    State(api): State<Api>,
    caller: Caller,
    Query(asked): Query<PageParameters>,
) -> Result<Json<Active<ActiveChannel>>, Problem> {
    caller.require_backend()?;
    let app = caller.app();
    let all = api.node.channels.all().into_iter().filter(|channel| channel.name().app() == *app);
    let all = all.map(|channel| (channel.name().clone(), channel.subscribers())).collect();
    let page = page(&api, asked, all, ChannelName::local)?;
    Ok(Json(page.map(|(channel, subscribers)| ActiveChannel { channel, subscribers })))
}

/// `GET /v1/active/users`
pub(super) async fn users(
    State(api): State<Api>,
    caller: Caller,
    Query(asked): Query<PageParameters>,
) -> Result<Json<Active<ActiveUser>>, Problem> {
    caller.require_backend()?;
    let page = page(&api, asked, api.node.sessions.users(caller.app()), UserId::local)?;
    Ok(Json(page.map(|(user, sessions)| ActiveUser { user, sessions })))
}

/// The page that is asked for, in the order of the names.
fn page<T>(
    api: &Api,
    asked: PageParameters,
    mut all: Vec<(T, usize)>,
    name: impl Fn(&T) -> &str,
) -> Result<Active<(T, usize)>, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidField, message);
    let limit = asked.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(invalid(format!("`limit` is 1 to {LARGEST_PAGE}")));
    }
    let read = |cursor: String| URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|b| String::from_utf8(b).ok());
    let after = match asked.cursor.map(read) {
        Some(None) => return Err(invalid("`cursor` is none that this list gave".into())),
        Some(after) => after,
        None => None,
    };
    let total = all.len();
    if let Some(after) = after {
        all.retain(|(entry, _)| name(entry) > after.as_str());
    }
    let more = all.len() > limit;
    if more {
        // Only what is shown has to be in order.
        all.select_nth_unstable_by(limit, |(one, _), (other, _)| name(one).cmp(name(other)));
        all.truncate(limit);
    }
    all.sort_unstable_by(|(one, _), (other, _)| name(one).cmp(name(other)));
    let next = all.last().filter(|_| more).map(|(last, _)| URL_SAFE_NO_PAD.encode(name(last)));
    Ok(Active { node: api.node.id.to_string(), total, items: all, next })
}

impl<T> Active<T> {
    fn map<U>(self, of: impl FnMut(T) -> U) -> Active<U> {
        let Self { node, total, items, next } = self;
        Active { node, total, items: items.into_iter().map(of).collect(), next }
    }
}
