//! Who comes in with a password or a refresh token, and how a login ends.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use xpush_protocol::{AppId, ErrorCode, UserId};

use super::{
    Api, Problem, Secret,
    access::{Caller, Visitor},
    acting::{OptionalBody, acting},
    devices::DeviceBody,
    extract::Body,
};
use crate::session::Refusal;

/// Keys change seldom, and a verifier that does not know one asks again.
const KEYS_CACHED: &str = "public, max-age=60";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/login", post(login))
        .route("/v1/login/refresh", post(refresh))
        .route("/v1/logout", post(logout))
        .route("/v1/jwks.json", get(jwks))
}

/// The app that is meant: a credential is of one, whoever shows none may name it.
pub(super) fn app(visitor: &Visitor, named: Option<AppId>) -> Result<AppId, Refusal> {
    match (&visitor.0, named) {
        (Some(caller), Some(named)) if *caller.app() != named => {
            Err(Refusal::new(ErrorCode::PermissionDenied, "the credential is of another app than `app`"))
        }
        (Some(caller), _) => Ok(caller.app().clone()),
        (None, named) => Ok(named.unwrap_or_default()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    user: UserId,
    password: String,
    app: Option<AppId>,
    device: Option<DeviceBody>,
}

/// `POST /v1/login`
async fn login(
    State(api): State<Api>,
    visitor: Visitor,
    Body(body): Body<LoginBody>,
) -> Result<Response, Problem> {
    let LoginBody { user, password, app, device } = body;
    let user = user.within(&self::app(&visitor, app)?);
    let device = device.map(DeviceBody::said);
    let tokens = api.node.directory.login(&user, &password, device.as_ref()).await?;
    Ok(Secret(StatusCode::OK, tokens).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    refresh_token: String,
}

/// `POST /v1/login/refresh`
async fn refresh(State(api): State<Api>, Body(body): Body<RefreshBody>) -> Result<Response, Problem> {
    let tokens = api.node.directory.refresh(&body.refresh_token).await?;
    Ok(Secret(StatusCode::OK, tokens).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogoutBody {
    /// Of every login of the user; absent: of the one whose token is shown.
    #[serde(default)]
    all: bool,
    #[serde(rename = "as")]
    acting: Option<UserId>,
}

/// `POST /v1/logout`
async fn logout(
    State(api): State<Api>,
    caller: Caller,
    OptionalBody(body): OptionalBody<LogoutBody>,
) -> Result<StatusCode, Problem> {
    let user = acting(&caller, body.acting.as_ref())?;
    let user = user.ok_or_else(|| Refusal::new(ErrorCode::InvalidField, "`as` is missing: who logs out?"))?;
    let directory = &api.node.directory;
    if body.all {
        directory.logout_all(&user, None).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let login = caller.rights.account().and_then(|account| account.login.as_deref());
    let login = login.ok_or_else(|| {
        Refusal::new(
            ErrorCode::InvalidField,
            "the credential is of no login; `\"all\": true` ends all of a user's",
        )
    })?;
    directory.logout(&user, login).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/jwks.json`: what others verify our access tokens with.
async fn jwks(State(api): State<Api>) -> Result<Response, Problem> {
    let set = api.node.directory.jwks().await?;
    Ok(([(header::CACHE_CONTROL, KEYS_CACHED)], Json(set)).into_response())
}
