//! The API for backends: publish, history, presence; and what a client asks before it connects.

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use xpush_protocol::{
    Binary, ChannelName, Cursor, Error, ErrorCode, EventName, HistoryPage, Json as Data, MessageId,
    PresenceList, UserId,
};
use xpush_transports::host;

use super::{
    Api, CHANNELS_PER_PUBLISH, Problem,
    access::Caller,
    extract::{Body, Path, Query},
};
use crate::{
    auth::Permission,
    node::HistoryQuery,
    publication::Draft,
    session::{Refusal, check_extras, now, payload},
};

/// `GET /v1/transports`
pub(super) async fn transports(State(api): State<Api>, request: Request) -> Response {
    let secure = request.extensions().get::<super::server::Secure>().is_some();
    let host = host(request.headers(), request.uri());
    ([(header::CACHE_CONTROL, "no-store")], Json((api.transports)(host, secure))).into_response()
}

/// `POST /v1/publish`: one message, many channels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody {
    channels: Vec<ChannelName>,
    /// The same message sent again with the same id stands once in each channel.
    #[serde(default)]
    message_id: Option<MessageId>,
    #[serde(default)]
    event: EventName,
    /// `null` is data, too.
    #[serde(default, deserialize_with = "Data::present")]
    data: Option<Data>,
    #[serde(default)]
    binary: Option<Binary>,
    #[serde(default)]
    reply_to: Option<u64>,
    #[serde(default)]
    mentions: Vec<UserId>,
    #[serde(default)]
    expires_in: Option<u32>,
}

/// One channel's outcome, in the order of the request.
#[derive(Debug, Serialize)]
struct Outcome {
    channel: ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

pub(super) async fn publish(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<PublishBody>,
) -> Result<Response, Problem> {
    let PublishBody { channels, message_id, event, data, binary, reply_to, mentions, expires_in } = body;
    check_extras(&event, reply_to, &mentions, expires_in)?;
    if !(1..=CHANNELS_PER_PUBLISH).contains(&channels.len()) {
        let message = format!("`channels` has {}; 1 to {CHANNELS_PER_PUBLISH} are allowed", channels.len());
        return Err(Refusal::new(ErrorCode::InvalidField, message).into());
    }
    let draft = Draft {
        publisher: caller.publisher.clone(),
        retriable: message_id.is_some(),
        message_id: message_id.unwrap_or_else(MessageId::random),
        event,
        payload: payload(data, binary)?,
        user: caller.user().cloned(),
        time: now(),
        reply_to,
        mentions: mentions.iter().map(|user| user.within(caller.app())).collect(),
        expires_in,
    };
    let publish = |channel: ChannelName| {
        let channel = channel.within(caller.app());
        let (api, caller, draft) = (&api, &caller, draft.clone());
        async move {
            let done = async {
                let mut draft = draft;
                if !caller.is_backend {
                    api.node.admit_publish(&api.node.allowance(&caller.publisher))?;
                }
                caller.require(&api.node, Permission::Publish, &channel).await?;
                if !caller.is_backend {
                    draft = api.node.webhooks.before_publish(&caller.rights, &channel, draft).await?;
                }
                api.node.publish(&channel, draft).await?.await
            };
            match done.await {
                Ok((cursor, duplicate)) => Outcome { channel, cursor: Some(cursor), duplicate, error: None },
                Err(refusal) => {
                    let error = refusal.into_frame(None, None);
                    Outcome { channel, cursor: None, duplicate: false, error: Some(error) }
                }
            }
        }
    };
    let results = join_all(channels.into_iter().map(publish)).await;
    // Where nothing went through, the status says so; where something did, each outcome speaks for itself.
    let failed = results.iter().all(|outcome| outcome.error.is_some());
    let first = results.first().and_then(|outcome| outcome.error.as_ref()).filter(|_| failed);
    let status =
        first.map_or(StatusCode::OK, |error| Problem::from(Refusal::new(error.code, String::new())).status());
    Ok((status, Json(Outcomes { results })).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParameters {
    /// `epoch:offset`
    cursor: Option<String>,
    #[serde(default)]
    backward: bool,
    limit: Option<u16>,
}

/// `GET /v1/channels/{channel}/history`
pub(super) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Query(parameters): Query<HistoryParameters>,
) -> Result<Json<HistoryPage>, Problem> {
    let channel = channel.within(caller.app());
    let HistoryParameters { cursor, backward, limit } = parameters;
    caller.require(&api.node, Permission::History, &channel).await?;
    let cursor = cursor.map(|text| text.parse()).transpose().map_err(invalid_name)?;
    let page = api.node.history(&channel, HistoryQuery { cursor, backward, limit }).await?;
    Ok(Json(page))
}

/// `GET /v1/channels/{channel}/presence`
pub(super) async fn presence(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
) -> Result<Json<PresenceList>, Problem> {
    let channel = channel.within(caller.app());
    caller.require(&api.node, Permission::Presence, &channel).await?;
    let list = api.node.list_presence(&channel).await?;
    let (members, sessions, users) = (list.members, list.sessions, list.users);
    Ok(Json(PresenceList { id: 0, channel, members, sessions, users }))
}

fn invalid_name(error: xpush_protocol::NameError) -> Refusal {
    Refusal::new(ErrorCode::InvalidName, error.to_string())
}
