//! Who is in a channel: invited, added, changed, thrown out, banned.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use xpush_protocol::{ChannelName, ErrorCode, Json as Data, UserId};

use super::{
    channels::given_data,
    is_open, rules,
    view::{BanView, MemberView},
};
use crate::{
    directory::{Acted, Action, Invitation, MemberPatch, MemberState, Notice, Notify, Role},
    http::{
        Api, Problem,
        access::Caller,
        acting::{
            ActingParameters, Items, OptionalBody, PageParameters, acting, actor, given, named_channel,
        },
        extract::{Body, Path, Query},
        notices::notify,
    },
    session::Refusal,
};

/// `GET /v1/channels/{channel}/members`
pub(in crate::http) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let channel = named_channel(&caller, &channel);
    let open = is_open(rules(&api, &channel).await?.access);
    let directory = &api.node.directory;
    let seen = directory.see_channel(&channel, actor(user.as_ref()), open).await?;
    let is_in = seen.member.as_ref().is_some_and(|member| member.state == MemberState::Active);
    if user.is_some() && !is_in && !open && !seen.channel.value.profile.public {
        return Err(Refusal::new(ErrorCode::PermissionDenied, "accept the invitation first").into());
    }
    let states = [MemberState::Active, MemberState::Invited];
    let page = directory.members(&channel, &states, parameters.query()).await?;
    let view = |member| {
        let is_private = is_private(&member, user.as_ref());
        MemberView::new(member, is_private)
    };
    Ok(Items::of(page, view).into_response())
}

/// What a member wants to be told is its own business, and backends'.
fn is_private(member: &crate::directory::Member, user: Option<&UserId>) -> bool {
    user.is_none_or(|user| user.local() == member.user.local())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PutBody {
    role: Option<Role>,
    state: Option<MemberState>,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// `PUT /v1/channels/{channel}/members/{user}`: invites or adds somebody; said of oneself, it accepts or joins.
pub(in crate::http) async fn put(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, target)): Path<(ChannelName, UserId)>,
    OptionalBody(body): OptionalBody<PutBody>,
) -> Result<Response, Problem> {
    let PutBody { role, state, acting: named } = body;
    let user = acting(&caller, named.as_ref())?;
    let (channel, target) = (named_channel(&caller, &channel), target.within(caller.app()));
    let open = is_open(rules(&api, &channel).await?.access);
    let directory = &api.node.directory;
    let acted = if user.as_ref() == Some(&target) {
        if role.is_some() || state.is_some_and(|state| state != MemberState::Active) {
            let message = "who joins does not say as what: leave `role` and `state` out";
            return Err(Refusal::new(ErrorCode::InvalidField, message).into());
        }
        directory.join(&channel, &target, open, api.node.top(&channel).await?).await?
    } else {
        let usual = if user.is_some() { MemberState::Invited } else { MemberState::Active };
        let seen = api.node.top(&channel).await?;
        let invitation = Invitation { role, state: state.unwrap_or(usual), seen };
        let acted = directory.invite(&channel, actor(user.as_ref()), &target, invitation).await?;
        if acted.is_change() {
            notify(&api, &target, Notice::Invite { channel, by: user.clone() }).await;
        }
        acted
    };
    answer(acted, user.as_ref())
}

/// `POST /v1/channels/{channel}/join`
pub(in crate::http) async fn join(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    OptionalBody(body): OptionalBody<ActingParameters>,
) -> Result<Response, Problem> {
    let Some(user) = acting(&caller, body.acting.as_ref())? else {
        return Err(Refusal::new(ErrorCode::InvalidField, "`as` is missing: who joins?").into());
    };
    let channel = named_channel(&caller, &channel);
    let open = is_open(rules(&api, &channel).await?.access);
    let seen = api.node.top(&channel).await?;
    let acted = api.node.directory.join(&channel, &user, open, seen).await?;
    answer(acted, Some(&user))
}

fn answer(acted: Acted, user: Option<&UserId>) -> Result<Response, Problem> {
    let status = if acted.before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
    let Some(member) = acted.after else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let is_private = is_private(&member, user);
    Ok((status, Json(MemberView::new(member, is_private))).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ChangeBody {
    role: Option<Role>,
    #[serde(default, deserialize_with = "given")]
    muted_until: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given_data")]
    data: Option<Option<Data>>,
    notify: Option<Notify>,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// `PATCH /v1/channels/{channel}/members/{user}`
pub(in crate::http) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, target)): Path<(ChannelName, UserId)>,
    Body(body): Body<ChangeBody>,
) -> Result<Response, Problem> {
    let ChangeBody { role, muted_until, data, notify: wants, acting: named } = body;
    let user = acting(&caller, named.as_ref())?;
    let (channel, target) = (named_channel(&caller, &channel), target.within(caller.app()));
    let patch = MemberPatch { role, muted_until, data, notify: wants };
    let directory = &api.node.directory;
    let acted = directory.change_member(&channel, actor(user.as_ref()), &target, &patch).await?;
    let role = |member: &Option<crate::directory::Member>| member.as_ref().map(|member| member.role);
    if let Some(new) = role(&acted.after).filter(|new| Some(*new) != role(&acted.before)) {
        notify(&api, &target, Notice::Role { channel, role: new }).await;
    }
    answer(acted, user.as_ref())
}

/// `DELETE /v1/channels/{channel}/members/{user}`: throws somebody out, or leaves.
pub(in crate::http) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, target)): Path<(ChannelName, UserId)>,
    Query(parameters): Query<ActingParameters>,
) -> Result<StatusCode, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let (channel, target) = (named_channel(&caller, &channel), target.within(caller.app()));
    api.node.directory.remove_member(&channel, actor(user.as_ref()), &target).await?;
    if user.as_ref() != Some(&target) {
        notify(&api, &target, Notice::Kick { channel, by: user }).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/channels/{channel}/bans`
pub(in crate::http) async fn bans(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let channel = named_channel(&caller, &channel);
    let directory = &api.node.directory;
    directory.require_role(&channel, actor(user.as_ref()), Action::Ban).await?;
    let page = directory.members(&channel, &[MemberState::Banned], parameters.query()).await?;
    Ok(Items::of(page, BanView::new).into_response())
}

/// `PUT /v1/channels/{channel}/bans/{user}`
pub(in crate::http) async fn ban(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, target)): Path<(ChannelName, UserId)>,
    OptionalBody(body): OptionalBody<ActingParameters>,
) -> Result<Response, Problem> {
    let user = acting(&caller, body.acting.as_ref())?;
    let (channel, target) = (named_channel(&caller, &channel), target.within(caller.app()));
    let acted = api.node.directory.ban(&channel, actor(user.as_ref()), &target).await?;
    // Who never was there need not hear of it.
    if acted.is_change() && acted.before.is_some() {
        notify(&api, &target, Notice::Ban { channel, by: user }).await;
    }
    let status = if acted.is_change() { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(acted.after.map(BanView::new))).into_response())
}

/// `DELETE /v1/channels/{channel}/bans/{user}`
pub(in crate::http) async fn unban(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, target)): Path<(ChannelName, UserId)>,
    Query(parameters): Query<ActingParameters>,
) -> Result<StatusCode, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let (channel, target) = (named_channel(&caller, &channel), target.within(caller.app()));
    api.node.directory.unban(&channel, actor(user.as_ref()), &target).await?;
    Ok(StatusCode::NO_CONTENT)
}
