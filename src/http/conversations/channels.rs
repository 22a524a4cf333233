//! Channels themselves: made, read, changed, deleted; and the direct channel of two users.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use xpush_protocol::{ChannelName, ErrorCode, Json as Data, Namespace, SessionId, UserId};

use super::{is_open, rules, view::ChannelView};
use crate::{
    directory::{Channel, ChannelPatch, ChannelProfile, MemberState, NewChannel, Notice, Tagged},
    http::{
        Api, Problem,
        access::Caller,
        acting::{ActingParameters, IfMatch, acting, actor, given, named_channel},
        extract::{Body, Path, Query},
        notices::notify,
    },
    namespace::Access,
    session::Refusal,
};

/// Where a channel is made if nothing is said.
const USUAL_NAMESPACE: &str = "chat";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CreateBody {
    channel: Option<ChannelName>,
    namespace: Option<Namespace>,
    title: Option<String>,
    topic: Option<String>,
    avatar: Option<String>,
    data: Option<Data>,
    #[serde(default)]
    public: bool,
    #[serde(default)]
    members: Vec<UserId>,
    /// As what these begin.
    state: Option<MemberState>,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// `POST /v1/channels`
pub(in crate::http) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<CreateBody>,
) -> Result<Response, Problem> {
    let CreateBody { channel, namespace, title, topic, avatar, data, public, members, state, acting: named } =
        body;
    let user = acting(&caller, named.as_ref())?;
    let is_named = channel.is_some();
    let name = match (channel, namespace) {
        (Some(channel), None) => channel,
        (None, namespace) => generated(namespace.as_ref().map_or(USUAL_NAMESPACE, Namespace::as_str))?,
        (Some(_), Some(_)) => {
            let message = "`channel` has its namespace already: leave `namespace` out";
            return Err(Refusal::new(ErrorCode::InvalidField, message).into());
        }
    };
    let channel = named_channel(&caller, &name);
    let access = rules(&api, &channel).await?.access;
    if !matches!(access, Access::Members | Access::Public | Access::Anonymous) {
        let message = format!("channels of `{}` have no members: tokens say all", channel.namespace());
        return Err(Refusal::new(ErrorCode::NotSupported, message).into());
    }
    if is_named && !caller.is_backend {
        require_unused(&api, &channel, access).await?;
    }
    let members: Vec<UserId> = members.iter().map(|user| user.within(caller.app())).collect();
    // A user asks others; a backend knows what it does.
    let usual = if user.is_some() { MemberState::Invited } else { MemberState::Active };
    let new = NewChannel {
        channel: &channel,
        profile: ChannelProfile { title, topic, avatar, data, public },
        creator: user.as_ref(),
        members: &members,
        state: state.unwrap_or(usual),
    };
    let (created, others) = api.node.directory.create_channel(new, actor(user.as_ref())).await?;
    for other in &others {
        notify(&api, other, Notice::Invite { channel: channel.clone(), by: user.clone() }).await;
    }
    let member = match &user {
        Some(user) => api.node.directory.member(&channel, user).await?,
        None => None,
    };
    let location = format!("/v1/channels/{}", channel.local());
    let etag = created.etag();
    let view = ChannelView::new(created.value, member.as_ref(), user.as_ref());
    Ok((StatusCode::CREATED, [(header::LOCATION, location), (header::ETAG, etag)], Json(view))
        .into_response())
}

/// A channel is there without a record, where everybody may be in it or tokens let somebody. Which user would own it,
/// throw the others out and read what they said, only a backend can say.
async fn require_unused(api: &Api, channel: &ChannelName, access: Access) -> Result<(), Refusal> {
    let denied = |message: String| Err(Refusal::new(ErrorCode::PermissionDenied, message));
    if access != Access::Members {
        let namespace = channel.namespace();
        return denied(format!(
            "channels of `{namespace}` are everybody's: leave `channel` out, to get a new name"
        ));
    }
    // Of one that has a record, it is said that it is there.
    if api.node.top(channel).await? > 0 && api.node.directory.channel(channel).await?.is_none() {
        return denied(format!(
            "{channel} has publications already: only a backend makes somebody its owner"
        ));
    }
    Ok(())
}

/// A name that nobody can guess or had before.
fn generated(namespace: &str) -> Result<ChannelName, Refusal> {
    let text = format!("{namespace}:{}", SessionId::random());
    text.parse()
        .map_err(|error: xpush_protocol::NameError| Refusal::new(ErrorCode::InvalidName, error.to_string()))
}

/// `GET /v1/channels/{channel}`
pub(in crate::http) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Query(parameters): Query<ActingParameters>,
) -> Result<Response, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let channel = named_channel(&caller, &channel);
    let open = is_open(rules(&api, &channel).await?.access);
    let seen = api.node.directory.see_channel(&channel, actor(user.as_ref()), open).await?;
    let etag = seen.channel.etag();
    let view = ChannelView::new(seen.channel.value, seen.member.as_ref(), user.as_ref());
    Ok(([(header::ETAG, etag)], Json(view)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct UpdateBody {
    #[serde(default, deserialize_with = "given")]
    title: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    topic: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    avatar: Option<Option<String>>,
    #[serde(default, deserialize_with = "given_data")]
    data: Option<Option<Data>>,
    public: Option<bool>,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// As `given`: `null` would be data of its own to `Json`.
pub(super) fn given_data<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Data>>, D::Error> {
    let data = Data::deserialize(deserializer)?;
    Ok(Some((data.as_str() != "null").then_some(data)))
}

/// `PATCH /v1/channels/{channel}`
pub(in crate::http) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    IfMatch(expected): IfMatch,
    Body(body): Body<UpdateBody>,
) -> Result<Response, Problem> {
    let UpdateBody { title, topic, avatar, data, public, acting: named } = body;
    let user = acting(&caller, named.as_ref())?;
    let channel = named_channel(&caller, &channel);
    let patch = ChannelPatch { title, topic, avatar, data, public };
    let directory = &api.node.directory;
    let updated = directory.update_channel(&channel, actor(user.as_ref()), &patch, expected).await?;
    answer(&api, StatusCode::OK, &channel, updated, user.as_ref()).await
}

/// `DELETE /v1/channels/{channel}`
pub(in crate::http) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    IfMatch(expected): IfMatch,
    Query(parameters): Query<ActingParameters>,
) -> Result<StatusCode, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let channel = named_channel(&caller, &channel);
    api.node.directory.delete_channel(&channel, actor(user.as_ref()), expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/users/{user}/direct/{other}`
pub(in crate::http) async fn open_direct(
    State(api): State<Api>,
    caller: Caller,
    Path((user, other)): Path<(UserId, UserId)>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let other = other.within(caller.app());
    let acting = actor(caller.user());
    let (channel, created) = api.node.directory.open_direct(acting, &user, &other).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let name = channel.value.channel.within(caller.app());
    answer(&api, status, &name, channel, Some(&user)).await
}

async fn answer(
    api: &Api,
    status: StatusCode,
    name: &ChannelName,
    channel: Tagged<Channel>,
    viewer: Option<&UserId>,
) -> Result<Response, Problem> {
    let member = match viewer {
        Some(viewer) => api.node.directory.member(name, viewer).await?,
        None => None,
    };
    let etag = channel.etag();
    let view = ChannelView::new(channel.value, member.as_ref(), viewer);
    Ok((status, [(header::ETAG, etag)], Json(view)).into_response())
}
