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
use crate::{
    directory::{App, AppPolicy, KeyInfo, NewKey, Tagged},
    webhook::Webhook,
};

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

fn answer(status: StatusCode, app: Tagged<App>) -> Response {
    (status, [(header::ETAG, app.etag())], Json(AppView::from(app.value))).into_response()
}

/// An app that was changed just now. The secrets that were made for its new webhooks are told, this once.
fn changed(status: StatusCode, app: Tagged<App>, given: &Map<String, Value>, before: &[Webhook]) -> Response {
    let etag = app.etag();
    let webhooks = app.value.policy.webhooks.clone();
    let mut view = AppView::from(app.value);
    let is_given = |hook: &Webhook| {
        let said = given.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        said.into_iter().any(|said| said["id"] == hook.id.as_str() && said.get("secret").is_some())
    };
    for (shown, hook) in view.policy.webhooks.iter_mut().zip(webhooks) {
        if !before.iter().any(|known| known.id == hook.id) && !is_given(&hook) {
            shown.secret = hook.secret;
        }
    }
    let mut response = Secret(status, view).into_response();
    if let Ok(etag) = etag.parse() {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
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
    let given = policy.clone();
    let policy = AppPolicy::default().changed(policy)?;
    let name = name.unwrap_or_else(|| app.to_string());
    let created = api.node.directory.create_app(&app, &name, policy).await?;
    let at = format!("/v1/apps/{app}");
    let mut response = changed(StatusCode::CREATED, created, &given, &[]);
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
    let before = api.node.directory.app(&app).await?.value.policy.webhooks;
    let given = policy.clone().unwrap_or_default();
    let updated = api.node.directory.update_app(&app, expected, name.as_deref(), policy).await?;
    Ok(changed(StatusCode::OK, updated, &given, &before))
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
