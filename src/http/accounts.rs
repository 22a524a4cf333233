//! Users: who they are, and what is done with them.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xpush_protocol::{AppId, ErrorCode, SessionId, UserId};

use super::{
    Api, Problem, Secret,
    access::{Caller, Visitor},
    acting::{IfMatch, Items},
    devices::DeviceBody,
    extract::{Body, Path, Query},
    logins::app,
};
use crate::{
    directory::{FriendState, NewUser, PageQuery, PresenceShown, ProfileChange, SearchField, Tagged},
    node::inbox_of,
    session::Refusal,
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/users", get(search).post(register))
        .route("/v1/users/{user}", get(read).patch(update).delete(remove))
        .route("/v1/users/{user}/export", get(export))
        .route("/v1/users/{user}/password", put(set_password))
        .route("/v1/users/{user}/deactivate", post(deactivate))
        .route("/v1/users/{user}/activate", post(activate))
        .route("/v1/users/{user}/revoke", post(revoke))
        .route("/v1/users/{user}/presence", get(presence))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    user: UserId,
    password: Option<String>,
    app: Option<AppId>,
    name: Option<String>,
    avatar: Option<String>,
    locale: Option<String>,
    status: Option<String>,
    data: Option<Map<String, Value>>,
    device: Option<DeviceBody>,
}

/// `POST /v1/users`: a new user, who is logged in at once.
async fn register(
    State(api): State<Api>,
    visitor: Visitor,
    Body(body): Body<RegisterBody>,
) -> Result<Response, Problem> {
    let RegisterBody { user, password, app, name, avatar, locale, status, data, device } = body;
    let user = user.within(&self::app(&visitor, app)?);
    let is_backend = match &visitor.0 {
        Some(caller) if caller.is_backend => caller.acts_for(&user).map(|_| true)?,
        _ => false,
    };
    let profile = ProfileChange {
        name: name.map(Some),
        avatar: avatar.map(Some),
        locale: locale.map(Some),
        status: status.map(Some),
        data: data.map(Some),
    };
    let new = NewUser { password, profile, device: device.map(DeviceBody::said) };
    let directory = &api.node.directory;
    directory.register(&user, &new, is_backend).await?;
    let tokens = directory.login_as(&user, new.device.as_ref()).await?;
    Ok(Secret(StatusCode::CREATED, tokens).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchParameters {
    q: Option<String>,
    #[serde(default)]
    field: SearchField,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/users`: a backend may see all of them; users look for each other, where the app lets them.
async fn search(
    State(api): State<Api>,
    caller: Caller,
    Query(parameters): Query<SearchParameters>,
) -> Result<Response, Problem> {
    let SearchParameters { q, field, limit, cursor } = parameters;
    let (directory, app, query) = (&api.node.directory, caller.app(), PageQuery { limit, cursor });
    let may_see_all = caller.is_backend && caller.rights.is_everything();
    if let Some(text) = q {
        if !may_see_all && (caller.user().is_none() || !directory.policy(app).await?.user_search) {
            let message = "this app's users don't look for each other (`policy.user_search`)";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
        }
        let page = directory.search_users(app, field, &text, query).await?;
        return Ok(Items::of(page, |profile| profile).into_response());
    }
    if !may_see_all {
        return Err(Refusal::new(ErrorCode::InvalidField, "`q` is missing: whom do you look for?").into());
    }
    Ok(Items::of(directory.users(app, query).await?, |user| user).into_response())
}

fn answer<T: Serialize>(user: &Tagged<T>) -> Response {
    ([(header::ETAG, user.etag())], Json(&user.value)).into_response()
}

/// `GET /v1/users/{user}`: all of it for the user itself and backends, the public profile for others.
async fn read(State(api): State<Api>, caller: Caller, Path(user): Path<UserId>) -> Result<Response, Problem> {
    let directory = &api.node.directory;
    if let Ok(user) = caller.acts_for(&user) {
        return Ok(answer(&directory.own_profile(&user).await?));
    }
    if caller.user().is_none() {
        return Err(Refusal::new(ErrorCode::PermissionDenied, "users and backends may ask for users").into());
    }
    Ok(answer(&directory.profile(&user.within(caller.app())).await?))
}

/// `PATCH /v1/users/{user}`
async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    IfMatch(expected): IfMatch,
    Body(changes): Body<ProfileChange>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    Ok(answer(&api.node.directory.update_profile(&user, expected, &changes).await?))
}

/// `DELETE /v1/users/{user}`: with everything that is kept of it, but for what it said in channels.
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.delete_user(&user, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/users/{user}/export`: everything that is kept of it.
async fn export(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let everything = api.node.directory.export_user(&user).await?;
    let kept = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let named = (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"user.json\""));
    Ok(([kept, named], Json(everything)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    /// What it was; a backend need not know it.
    old: Option<String>,
    new: String,
}

/// `PUT /v1/users/{user}/password`: all other logins end.
async fn set_password(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Body(body): Body<PasswordBody>,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    let PasswordBody { old, new } = body;
    let login = caller.rights.account().and_then(|account| account.login.as_deref());
    api.node.directory.set_password(&user, old.as_deref(), &new, login, caller.is_backend).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/users/{user}/deactivate`: nobody comes in as this user any more.
async fn deactivate(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.directory.deactivate(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/users/{user}/activate`
async fn activate(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.directory.activate(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/users/{user}/revoke`: every token that was made until now is over.
async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.directory.revoke(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a user is there.
#[derive(Debug, Serialize)]
struct PresenceView {
    user: UserId,
    state: &'static str,
    /// Of the devices that are there: `ios`, `web`, as the application calls them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    platforms: BTreeSet<String>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
}

/// The status by which a user says that it is there and does not look.
const AWAY: &str = "away";

/// `GET /v1/users/{user}/presence`: for whom the app's policy shows it.
async fn presence(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
) -> Result<Response, Problem> {
    let directory = &api.node.directory;
    let user = user.within(caller.app());
    if caller.acts_for(&user).is_err() {
        let asking = caller.user().ok_or_else(|| {
            Refusal::new(ErrorCode::PermissionDenied, "users and backends may ask for this")
        })?;
        let shown = directory.policy(caller.app()).await?.presence;
        let seen = directory.friend(&user, asking).await?.map(|friend| friend.state);
        let may = match (shown, seen) {
            (_, Some(FriendState::Blocked)) => false,
            (PresenceShown::Everyone, _) => true,
            (PresenceShown::Friends, seen) => seen == Some(FriendState::Friends),
            (PresenceShown::Nobody, _) => false,
        };
        // Who is blocked learns no more than who is no friend.
        if !may {
            let message = "the user's presence is not shown to everybody (`policy.presence`)";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
        }
    }
    if !directory.user_exists(caller.app(), &user).await? {
        return Err(Refusal::new(ErrorCode::NotFound, "there is no such user").into());
    }
    let there = api.node.list_presence(&inbox_of(&user)).await?.members;
    let last_seen = directory.last_seen(&user).await?;
    if there.is_empty() {
        let platforms = BTreeSet::new();
        return Ok(Json(PresenceView { user, state: "offline", platforms, last_seen }).into_response());
    }
    let devices = directory.devices(&user, PageQuery::default()).await?.items;
    let is_there = |session: &SessionId| there.iter().any(|member| member.session == *session);
    let devices = devices.into_iter().filter(|device| device.session.as_ref().is_some_and(is_there));
    let platforms = devices.filter_map(|device| device.platform).collect();
    let says_away = directory.profile(&user).await?.value.status.is_some_and(|status| status == AWAY);
    let state = if says_away { AWAY } else { "online" };
    Ok(Json(PresenceView { user, state, platforms, last_seen }).into_response())
}
