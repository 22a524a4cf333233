//! Single messages, for who looks after them.

use axum::{Router, extract::State, http::StatusCode, routing::delete};
use serde::Deserialize;
use xpush_protocol::{ChannelName, UserId};

use super::{
    Api, Problem,
    access::Caller,
    extract::{Path, Query},
};
use crate::node::Deleter;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/channels/{channel}/messages/{offset}", delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveParameters {
    /// For a backend: in whose name.
    #[serde(default, rename = "as")]
    acting: Option<UserId>,
}

/// `DELETE /v1/channels/{channel}/messages/{offset}`
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path((channel, offset)): Path<(ChannelName, u64)>,
    Query(parameters): Query<RemoveParameters>,
) -> Result<StatusCode, Problem> {
    if !caller.is_backend {
        api.node.admit_publish(&api.node.allowance(&caller.publisher))?;
    }
    let channel = channel.within(caller.app());
    let user = match &parameters.acting {
        named @ Some(_) => Some(caller.acting_as(named.as_ref())?),
        None => caller.user().cloned(),
    };
    let deleter = Deleter { rights: caller.rights, user, is_backend: caller.is_backend };
    api.node.delete_message(&channel, offset, &deleter).await?;
    Ok(StatusCode::NO_CONTENT)
}
