//! Which node to use, which nodes there are, and the wish that this one leaves.

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use xpush_protocol::{ErrorCode, NodeEntry, NodeList, TicketRequest};
use xpush_transports::{authority_is_loopback, host};

use super::{Api, PeerAddress, Problem, access::Caller, server::Secure};
use crate::{
    membership::{NodeInfo, Roles},
    session::Refusal,
};

/// A token and what is around it.
const REQUEST_LIMIT: usize = 64 * 1024;

/// `POST /v1/tickets`. Its body is JSON whatever its type says: a page of another origin sends it as plain text, and
/// so needs no preflight.
pub(super) async fn ticket(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, REQUEST_LIMIT)
        .await
        .map_err(|error| Refusal::new(ErrorCode::TooLarge, format!("the request can't be read: {error}")))?;
    let TicketRequest { token, avoid } = if body.is_empty() {
        TicketRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            Refusal::new(ErrorCode::InvalidField, format!("the body is no ticket request: {error}"))
        })?
    };
    let Some(PeerAddress(peer)) = parts.extensions.get() else {
        return Err(Refusal::new(ErrorCode::Internal, "the server did not note who is calling").into());
    };
    let called = host(&parts.headers, &parts.uri);
    // A name that leads to this machine from elsewhere (DNS rebinding) is no loopback call.
    let is_elsewhere = !authority_is_loopback(called);
    let secure = parts.extensions.get::<Secure>().is_some();
    let mut ticket = api.node.ticket(token, avoid.as_deref(), peer.ip(), is_elsewhere, secure).await?;
    // This node is reached by the name that the client called it by; the others say where they are.
    if ticket.node == api.node.id.as_str() {
        ticket.wires = (api.transports)(called, secure);
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(ticket)).into_response())
}

/// `GET /v1/nodes`
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Result<Json<NodeList>, Problem> {
    caller.require_operator()?;
    let nodes = api.node.membership.nodes().borrow().iter().map(entry).collect();
    Ok(Json(NodeList { nodes }))
}

/// `POST /v1/drain`: this node leaves, as by SIGTERM.
pub(super) async fn drain(State(api): State<Api>, caller: Caller) -> Result<StatusCode, Problem> {
    caller.require_operator()?;
    api.node.ask_to_leave();
    Ok(StatusCode::ACCEPTED)
}

fn entry(node: &NodeInfo) -> NodeEntry {
    let Roles { session, channel } = node.roles;
    let roles = [("session", session), ("channel", channel)];
    NodeEntry {
        id: node.id.to_string(),
        version: node.version.clone(),
        roles: roles.iter().filter(|(_, is_set)| *is_set).map(|(role, _)| (*role).to_owned()).collect(),
        weight: node.weight,
        sessions: node.status.sessions,
        channels: node.status.channels,
        users: node.status.users,
        draining: node.status.draining,
        url: node.url.clone(),
        wires: node.wires.clone(),
    }
}
