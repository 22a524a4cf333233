//! A user's devices.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use serde::Deserialize;
use xpush_protocol::{DeviceId, UserId};

use super::{
    Api, Problem,
    access::Caller,
    acting::{IfMatch, Items, PageParameters},
    extract::{Body, Path, Query},
};
use crate::directory::{Device, DeviceChange, DeviceSaid, Push, Tagged};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/users/{user}/devices", get(list).post(register))
        .route("/v1/users/{user}/devices/{device}", patch(update).get(read).delete(revoke))
}

/// A device as it says that it is; without an id it gets one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceBody {
    device: Option<DeviceId>,
    name: Option<String>,
    platform: Option<String>,
    app_version: Option<String>,
    locale: Option<String>,
    push: Option<Push>,
}

impl DeviceBody {
    pub(super) fn said(self) -> DeviceSaid {
        let Self { device, name, platform, app_version, locale, push } = self;
        let is = DeviceChange {
            name: name.map(Some),
            platform: platform.map(Some),
            app_version: app_version.map(Some),
            locale: locale.map(Some),
            push: push.map(Some),
        };
        DeviceSaid { device, is }
    }
}

fn answer(status: StatusCode, device: Tagged<Device>) -> Response {
    (status, [(header::ETAG, device.etag())], Json(device.value)).into_response()
}

/// `GET /v1/users/{user}/devices`
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let page = api.node.directory.devices(&user, parameters.query()).await?;
    Ok(Items::of(page, |device| device).into_response())
}

/// `POST /v1/users/{user}/devices`: a new one, or one that says anew what it is.
async fn register(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<UserId>,
    Body(body): Body<DeviceBody>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let device = api.node.directory.register_device(&user, &body.said()).await?;
    Ok(answer(StatusCode::CREATED, device))
}

/// `GET /v1/users/{user}/devices/{device}`
async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((user, device)): Path<(UserId, DeviceId)>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    Ok(answer(StatusCode::OK, api.node.directory.device(&user, &device).await?))
}

/// `PATCH /v1/users/{user}/devices/{device}`
async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path((user, device)): Path<(UserId, DeviceId)>,
    IfMatch(expected): IfMatch,
    Body(changes): Body<DeviceChange>,
) -> Result<Response, Problem> {
    let user = caller.acts_for(&user)?;
    let updated = api.node.directory.update_device(&user, &device, expected, &changes).await?;
    Ok(answer(StatusCode::OK, updated))
}

/// `DELETE /v1/users/{user}/devices/{device}`: its logins end, and its sessions wherever they are.
async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path((user, device)): Path<(UserId, DeviceId)>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    let user = caller.acts_for(&user)?;
    api.node.directory.revoke_device(&user, &device, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
