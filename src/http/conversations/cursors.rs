//! How far members have read, and what has reached their devices.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use xpush_protocol::{ChannelName, DeviceId, ErrorCode, UserId};

use super::rules;
use crate::{
    directory::MemberState,
    http::{
        Api, Problem,
        access::Caller,
        acting::{Items, PageParameters, acting, actor, named_channel},
        extract::{Body, Path, Query},
    },
    node::Mark,
    session::Refusal,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReadBody {
    offset: u64,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReceivedBody {
    offset: u64,
    /// Which of the user's devices, where the token does not say it.
    device: Option<DeviceId>,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// `PUT /v1/channels/{channel}/read`
pub(in crate::http) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Body(body): Body<ReadBody>,
) -> Result<StatusCode, Problem> {
    mark(&api, &caller, &channel, body.acting.as_ref(), Mark::Read(body.offset)).await
}

/// `PUT /v1/channels/{channel}/received`
pub(in crate::http) async fn received(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Body(body): Body<ReceivedBody>,
) -> Result<StatusCode, Problem> {
    let of_token = caller.rights.account().and_then(|account| account.device.clone());
    let device = match (of_token, body.device) {
        (Some(own), Some(named)) if own != named => {
            let message = "the token is of another device";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
        }
        (Some(device), _) | (None, Some(device)) => device,
        (None, None) => {
            let message = "`device` is missing, and the token names none";
            return Err(Refusal::new(ErrorCode::InvalidField, message).into());
        }
    };
    let mark_of = Mark::Received { device, offset: body.offset };
    mark(&api, &caller, &channel, body.acting.as_ref(), mark_of).await
}

async fn mark(
    api: &Api,
    caller: &Caller,
    channel: &ChannelName,
    named: Option<&UserId>,
    mark: Mark,
) -> Result<StatusCode, Problem> {
    let Some(user) = acting(caller, named)? else {
        return Err(Refusal::new(ErrorCode::InvalidField, "`as` is missing: who has read it?").into());
    };
    let channel = named_channel(caller, channel);
    api.node.mark_as(&user, &channel, mark).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/channels/{channel}/receipts`
pub(in crate::http) async fn receipts(
    State(api): State<Api>,
    caller: Caller,
    Path(channel): Path<ChannelName>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = acting(&caller, parameters.acting.as_ref())?;
    let channel = named_channel(&caller, &channel);
    let directory = &api.node.directory;
    // They are for who is in, also where everybody may look.
    let seen = directory.see_channel(&channel, actor(user.as_ref()), false).await?;
    let is_in = seen.member.as_ref().is_some_and(|member| member.state == MemberState::Active);
    if user.is_some() && !is_in {
        let message = "receipts are for members";
        return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
    }
    if !rules(&api, &channel).await?.receipts {
        let message = format!("the namespace `{}` has no receipts", channel.namespace());
        return Err(Refusal::new(ErrorCode::NotSupported, message).into());
    }
    let page = directory.receipts(&channel, parameters.query()).await?;
    Ok(Items::of(page, |receipt| receipt).into_response())
}
