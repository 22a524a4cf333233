//! What webhooks could not deliver, to be seen and sent again.

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;

use super::{
    Api, Problem,
    access::Caller,
    acting::Items,
    extract::{Path, Query},
};
use crate::directory::PageQuery;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/webhooks/dead", get(list))
        .route("/v1/webhooks/dead/{id}", delete(remove))
        .route("/v1/webhooks/dead/{id}/retry", post(retry))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/webhooks/dead`
async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    caller.require_backend()?;
    let ListParameters { limit, cursor } = parameters;
    let page = api.node.directory.dead_letters(caller.app(), PageQuery { limit, cursor }).await?;
    Ok(Items::of(page, |letter| letter).into_response())
}

/// `POST /v1/webhooks/dead/{id}/retry`
async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.require_backend()?;
    api.node.directory.retry_dead_letter(caller.app(), &id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /v1/webhooks/dead/{id}`
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.require_backend()?;
    api.node.directory.delete_dead_letter(caller.app(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
