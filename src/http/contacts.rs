//! Friends, blocks and groups: what users are to each other.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::Deserialize;
use xpush_protocol::{SessionId, UserId};

use super::{
    Api, Problem,
    access::Caller,
    acting::{Items, PageParameters},
    extract::{Body, Path, Query},
    notices::notify,
};
use crate::directory::{FriendState, Group, Notice, PageQuery};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/users/{user}/friends", get(friends))
        .route("/v1/users/{user}/friends/{other}", put(befriend).delete(unfriend))
        .route("/v1/users/{user}/blocks", get(blocks))
        .route("/v1/users/{user}/blocks/{other}", put(block).delete(unblock))
        .route("/v1/users/{user}/groups", get(groups).post(create_group))
        .route("/v1/users/{user}/groups/{group}", get(group).put(put_group).delete(delete_group))
}

/// Which of them.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shown {
    Requested,
    Incoming,
    Friends,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FriendParameters {
    state: Option<Shown>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/users/{user}/friends`
async fn friends(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Query(parameters): Query<FriendParameters>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let FriendParameters { state, limit, cursor } = parameters;
    let states: &[FriendState] = match state {
        Some(Shown::Requested) => &[FriendState::Requested],
        Some(Shown::Incoming) => &[FriendState::Incoming],
        Some(Shown::Friends) => &[FriendState::Friends],
        None => &[FriendState::Requested, FriendState::Incoming, FriendState::Friends],
    };
    let page = api.node.directory.friends(&user, states, PageQuery { limit, cursor }).await?;
    Ok(Items::of(page, |friend| friend).into_response())
}

/// `PUT /v1/users/{user}/friends/{other}`: asks, or accepts.
async fn befriend(
    State(api): State<Api>,
    caller: Caller,
    Path((user, other)): Path<(UserId, UserId)>,
) -> Result<Response, Problem> {
    let (user, other) = (caller.acts_for(&user)?, other.within(caller.app()));
    let befriended = api.node.directory.befriend(&user, &other).await?;
    if let Some(state) = befriended.tell {
        notify(&api, &other, Notice::Friend { user, state }).await;
    }
    Ok(Json(befriended.friend).into_response())
}

/// `DELETE /v1/users/{user}/friends/{other}`: ends it, declines, or takes a request back.
async fn unfriend(
    State(api): State<Api>,
    caller: Caller,
    Path((user, other)): Path<(UserId, UserId)>,
) -> Result<StatusCode, Problem> {
    let (user, other) = (caller.acts_for(&user)?, other.within(caller.app()));
    api.node.directory.unfriend(&user, &other).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/users/{user}/blocks`
async fn blocks(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let page = api.node.directory.friends(&user, &[FriendState::Blocked], parameters.query()).await?;
    Ok(Items::of(page, |friend| friend).into_response())
}

/// `PUT /v1/users/{user}/blocks/{other}`
async fn block(
    State(api): State<Api>,
    caller: Caller,
    Path((user, other)): Path<(UserId, UserId)>,
) -> Result<Response, Problem> {
    let (user, other) = (caller.acts_for(&user)?, other.within(caller.app()));
    let blocked = api.node.directory.block(&user, &other).await?;
    Ok(Json(blocked).into_response())
}

/// `DELETE /v1/users/{user}/blocks/{other}`
async fn unblock(
    State(api): State<Api>,
    caller: Caller,
    Path((user, other)): Path<(UserId, UserId)>,
) -> Result<StatusCode, Problem> {
    let (user, other) = (caller.acts_for(&user)?, other.within(caller.app()));
    api.node.directory.unblock(&user, &other).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/users/{user}/groups`
async fn groups(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let page = api.node.directory.groups(&user, parameters.query()).await?;
    Ok(Items::of(page, |group| group).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupBody {
    name: String,
    #[serde(default)]
    users: Vec<UserId>,
}

/// `POST /v1/users/{user}/groups`
async fn create_group(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Body(body): Body<GroupBody>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let GroupBody { name, users } = body;
    let group = Group { id: SessionId::random().to_string(), name, users };
    let (group, _) = api.node.directory.put_group(&user, group).await?;
    Ok((StatusCode::CREATED, Json(group)).into_response())
}

/// `GET /v1/users/{user}/groups/{group}`
async fn group(
    State(api): State<Api>,
    caller: Caller,
    Path((user, id)): Path<(UserId, String)>,
) -> Result<Json<Group>, Problem> {
    let user = caller.acts_for(&user)?;
    Ok(Json(api.node.directory.group(&user, &id).await?))
}

/// `PUT /v1/users/{user}/groups/{group}`
async fn put_group(
    State(api): State<Api>,
    caller: Caller,
    Path((user, id)): Path<(UserId, String)>,
    Body(body): Body<GroupBody>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let GroupBody { name, users } = body;
    let (group, is_new) = api.node.directory.put_group(&user, Group { id, name, users }).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(group)).into_response())
}

/// `DELETE /v1/users/{user}/groups/{group}`
async fn delete_group(
    State(api): State<Api>,
    caller: Caller,
    Path((user, id)): Path<(UserId, String)>,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.directory.delete_group(&user, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
