//! Apps, their policy and their API keys: for operators.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xpush_protocol::AppId;

use super::{
    Api, Problem, Secret,
    access::Caller,
    acting::{IfMatch, Items, PageParameters},
    extract::{Body, Path, Query},
};
use crate::directory::{App, AppPolicy, KeyInfo, NewKey, Tagged};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/apps", get(list).post(create))
        .route("/v1/apps/{app}", get(read).patch(update).delete(remove))
        .route("/v1/apps/{app}/keys", get(keys).post(create_key))
        .route("/v1/apps/{app}/keys/{key}", delete(delete_key))
}

/// An app as an operator sees it: secrets of its webhooks are not shown.
#[derive(Debug, Serialize)]
struct AppView {
    app: AppId,
    name: String,
    created: u64,
    policy: AppPolicy,
}

impl From<App> for AppView {
    fn from(app: App) -> Self {
        let App { app, name, created, policy, .. } = app;
        Self { app, name, created, policy: policy.shown() }
    }
}

/// `secrets`: of the webhooks that got new ones just now, which are told this once.
fn answer(status: StatusCode, app: Tagged<App>) -> Response {
    let etag = app.etag();
    (status, [(header::ETAG, etag)], Json(AppView::from(app.value))).into_response()
}

/// `GET /v1/apps`
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    caller.require_operator()?;
    let page = api.node.directory.apps(parameters.query()).await?;
    Ok(Items::of(page, AppView::from).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    app: AppId,
    /// For people; absent: as the id.
    name: Option<String>,
    #[serde(default)]
    policy: Map<String, Value>,
}

/// `POST /v1/apps`
async fn create(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<CreateBody>,
) -> Result<Response, Problem> {
    caller.require_operator()?;
    let CreateBody { app, name, policy } = body;
    let policy = AppPolicy::default().changed(policy)?;
    let name = name.unwrap_or_else(|| app.to_string());
    let created = api.node.directory.create_app(&app, &name, policy).await?;
    let at = format!("/v1/apps/{app}");
    let mut response = answer(StatusCode::CREATED, created);
    if let Ok(at) = at.parse() {
        response.headers_mut().insert(header::LOCATION, at);
    }
    Ok(response)
}

/// `GET /v1/apps/{app}`
async fn read(State(api): State<Api>, caller: Caller, Path(app): Path<AppId>) -> Result<Response, Problem> {
    caller.require_operator()?;
    Ok(answer(StatusCode::OK, api.node.directory.app(&app).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    name: Option<String>,
    /// The fields that change; `null` is back to what holds if nothing is said.
    policy: Option<Map<String, Value>>,
}

/// `PATCH /v1/apps/{app}`
async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    IfMatch(expected): IfMatch,
    Body(body): Body<UpdateBody>,
) -> Result<Response, Problem> {
    caller.require_operator()?;
    let UpdateBody { name, policy } = body;
    let updated = api.node.directory.update_app(&app, expected, name.as_deref(), policy).await?;
    Ok(answer(StatusCode::OK, updated))
}

/// `DELETE /v1/apps/{app}`
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    caller.require_operator()?;
    api.node.directory.delete_app(&app, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/apps/{app}/keys`
async fn keys(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Query(parameters): Query<PageParameters>,
) -> Result<Response, Problem> {
    caller.require_operator()?;
    let page = api.node.directory.api_keys(&app, parameters.query()).await?;
    Ok(Items::of(page, |key| key).into_response())
}

/// A key with its text, which nobody is told again.
#[derive(Debug, Serialize)]
struct CreatedKey {
    #[serde(flatten)]
    info: KeyInfo,
    key: String,
}

/// `POST /v1/apps/{app}/keys`
async fn create_key(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Body(body): Body<NewKey>,
) -> Result<Response, Problem> {
    caller.require_operator()?;
    let (info, key) = api.node.directory.create_api_key(&app, body).await?;
    Ok(Secret(StatusCode::CREATED, CreatedKey { info, key }).into_response())
}

/// `DELETE /v1/apps/{app}/keys/{key}`
async fn delete_key(
    State(api): State<Api>,
    caller: Caller,
    Path((app, key)): Path<(AppId, String)>,
) -> Result<StatusCode, Problem> {
    caller.require_operator()?;
    api.node.directory.delete_api_key(&app, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
