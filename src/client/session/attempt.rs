//! One attempt to reach a node that takes this client.

use std::time::Duration;

use tokio::time::timeout;

use super::link::Link;
use crate::client::{
    DialError, Via,
    lookup::{Lookup, LookupError},
};

/// For one wire to one node.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// The order in which wires are tried where none is wished for.
const BY_PREFERENCE: [Via; 4] = [Via::Quic, Via::Webtransport, Via::Websocket, Via::Longpoll];

/// A connection that has said nothing yet.
pub(super) struct Dialled {
    pub(super) link: Link,
    pub(super) node: String,
    pub(super) ticket: Option<String>,
}

/// Why there is none.
pub(super) struct Failure {
    pub(super) reason: String,
    /// Which node failed, if it came to one.
    pub(super) node: Option<String>,
    pub(super) is_final: bool,
}

/// Another node than `avoid`, if there is one.
pub(super) async fn dial(
    lookup: &mut Lookup,
    avoid: Option<&str>,
    via: Option<Via>,
    dead_after: Duration,
) -> Result<Dialled, Failure> {
    let failure =
        |error: LookupError, node| Failure { reason: error.to_string(), node, is_final: !error.may_retry() };
    let found = lookup.find(avoid).await.map_err(|error| failure(error, None))?;
    let wires = match &via {
        Some(via) => std::slice::from_ref(via),
        None => &BY_PREFERENCE[..],
    };
    let mut last = None;
    for &via in wires {
        match timeout(DIAL_LIMIT, Link::dial(&found.server, via, dead_after)).await {
            Ok(Ok(link)) => return Ok(Dialled { link, node: found.node, ticket: found.ticket }),
            Ok(Err(DialError::NoSuchWire(_))) if wires.len() > 1 => {}
            Ok(Err(error)) => last = Some(failure(error.into(), Some(found.node.clone()))),
            Err(_) => {
                let reason =
                    format!("no connection over {via} to {} within {} s", found.node, DIAL_LIMIT.as_secs());
                last = Some(Failure { reason, node: Some(found.node.clone()), is_final: false });
            }
        }
    }
    let no_wire =
        || Failure { reason: "the node has no wire that is known here".into(), node: None, is_final: true };
    Err(last.unwrap_or_else(no_wire))
}
