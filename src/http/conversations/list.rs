//! The list of one's channels, with what was said last and how much of it is new.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use xpush_protocol::{ErrorCode, UserId};

use super::{rules, view::ChannelView};
use crate::{
    directory::{Conversation, MemberState, Page},
    http::{
        Api, Problem,
        access::Caller,
        acting::{Items, PageParameters},
        extract::{Path, Query},
    },
    log::{From, Query as LogQuery},
    session::Refusal,
};

/// Channels whose logs are read at once.
const LOOKS_AT_ONCE: usize = 16;
/// Publications of each that are looked at for one that somebody said: the others tell of deleted ones.
const LOOKED_AT: usize = 8;
/// Bytes of them.
const LOOKED_AT_BYTES: usize = 16 * 1024;

/// `GET /v1/users/{user}/channels`
pub(in crate::http) async fn mine(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let Page { items, next } = api.node.directory.conversations(&user, parameters.query()).await?;
    let views = items.into_iter().map(|conversation| with_news(&api, &user, conversation));
    let items: Vec<ChannelView> = stream::iter(views).buffered(LOOKS_AT_ONCE).try_collect().await?;
    Ok(Items::of(Page { items, next }, |view| view).into_response())
}

async fn with_news(api: &Api, user: &UserId, conversation: Conversation) -> Result<ChannelView, Refusal> {
    let Conversation { channel, member } = conversation;
    let name = channel.channel.within(&user.app());
    let view = ChannelView::new(channel, Some(&member), Some(user));
    // Who is invited does not read yet.
    if member.state != MemberState::Active {
        return Ok(view);
    }
    let policy = match rules(api, &name).await {
        Ok(policy) => policy,
        // It may have gone from the configuration.
        Err(refusal) if refusal.code == ErrorCode::UnknownNamespace => return Ok(view),
        Err(refusal) => return Err(refusal),
    };
    let query = LogQuery { from: From::Before(None), limit: LOOKED_AT, bytes: LOOKED_AT_BYTES };
    let page = api.node.log(&policy).read(&name, query).await?;
    let said = page.publications.iter().find(|publication| !publication.event.as_str().starts_with("xpush."));
    // What there is no history of is not told here either.
    let last = said.filter(|_| policy.history);
    Ok(view.with_news(page.extent.top, last.map(|last| last.to_frame(&name, None))))
}
