//! Finds a node to use: by a ticket, from whichever of the servers that are known answers first.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Method, StatusCode};
use thiserror::Error;
use tokio::time::sleep;
use xpush_protocol::{ErrorCode, Problem, Ticket, TicketRequest};

use super::wire::{Base, DialError, Server};

/// A server that has not answered by now is not waited for alone: another one is asked beside it.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
/// Base URLs that are remembered beside those that were given, the newest.
const LEARNT_LIMIT: usize = 16;
/// Hashes of certificates that are trusted beside those that were given.
const HASHES_LIMIT: usize = 64;

/// Where nodes are asked for.
pub(super) struct Lookup {
    given: Vec<String>,
    /// What the tickets told, the one that answered last first.
    learnt: VecDeque<String>,
    hashes: Vec<String>,
    token: Option<String>,
}

/// A node to use.
pub(super) struct Found {
    pub(super) server: Server,
    /// To show there in the place of the token. `None`: the server gives no tickets.
    pub(super) ticket: Option<String>,
    pub(super) node: String,
}

/// Why there is no node to use.
#[derive(Debug, Error)]
pub(super) enum LookupError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{code}: {message}")]
    Refused { code: ErrorCode, message: String, retry: bool },
}

impl LookupError {
    /// Whether to ask again may help.
    pub(super) fn may_retry(&self) -> bool {
        match self {
            Self::Dial(error) => {
                !matches!(error, DialError::Url(_) | DialError::Hash | DialError::NoSuchWire(_))
            }
            Self::Refused { retry, .. } => *retry,
        }
    }
}

impl Lookup {
    pub(super) fn new(bases: Vec<String>, hashes: Vec<String>, token: Option<String>) -> Self {
        Self { given: bases, learnt: VecDeque::new(), hashes, token }
    }

    /// A node to use, another one than `avoid` if there is one. The first server's is taken that has one.
    pub(super) async fn find(&mut self, avoid: Option<&str>) -> Result<Found, LookupError> {
        let request = TicketRequest { token: self.token.clone(), avoid: avoid.map(str::to_owned) };
        let mut bases = self.bases().into_iter();
        let mut asking = FuturesUnordered::new();
        let mut failure = None;
        if avoid.is_some() {
            // The first one may be just the node that was lost.
            asking.extend(bases.next().map(|base| ask(base, &self.hashes, &request)));
        }
        let (found, base, nodes) = loop {
            if let Some(base) = bases.next() {
                asking.push(ask(base, &self.hashes, &request));
            }
            let next = tokio::select! {
                Some(next) = asking.next() => Some(next),
                () = sleep(ASK_PATIENCE), if bases.len() > 0 => None,
                else => return Err(failure.unwrap_or(LookupError::Dial(DialError::Url(String::new())))),
            };
            match next {
                Some((base, Ok((found, nodes)))) => break (found, base, nodes),
                // It is one installation: what one refuses, another one does too.
                Some((_, Err(error @ LookupError::Refused { retry: false, .. }))) => return Err(error),
                Some((_, Err(error))) => failure = Some(error),
                None => {}
            }
        };
        drop(asking);
        self.learn(&found, base, nodes);
        Ok(found)
    }

    /// Who may be asked, the best first.
    fn bases(&self) -> Vec<String> {
        let mut bases: Vec<String> = self.learnt.iter().cloned().collect();
        for base in &self.given {
            if !bases.contains(base) {
                bases.push(base.clone());
            }
        }
        bases
    }

    fn learn(&mut self, found: &Found, base: String, nodes: Vec<String>) {
        let known = std::mem::take(&mut self.learnt);
        for base in [base].into_iter().chain(nodes).chain(known) {
            if self.learnt.len() < LEARNT_LIMIT && !base.is_empty() && !self.learnt.contains(&base) {
                self.learnt.push_back(base);
            }
        }
        // Nodes have certificates of their own. Who trusts the system's authorities needs none of them.
        if !self.hashes.is_empty() {
            let new: Vec<_> = found.server.wires().certificate_hashes.clone();
            for hash in new {
                if self.hashes.len() < HASHES_LIMIT && !self.hashes.contains(&hash) {
                    self.hashes.push(hash);
                }
            }
        }
    }
}

type Answer = Result<(Found, Vec<String>), LookupError>;

async fn ask(base: String, hashes: &[String], request: &TicketRequest) -> (String, Answer) {
    let answer = ask_for_ticket(&base, hashes, request).await;
    (base, answer)
}

async fn ask_for_ticket(base: &str, hashes: &[String], request: &TicketRequest) -> Answer {
    let base = Base::new(base, hashes)?;
    let body = serde_json::to_vec(request).map_err(|error| base.unreachable(error.to_string()))?;
    let (status, body) = base.request(Method::POST, "/v1/tickets", Bytes::from(body)).await?;
    if status.is_success() {
        let Ticket { ticket, node, wires, nodes, .. } = base.read(&body)?;
        let server = Server::new(wires, base.trust)?;
        return Ok((Found { server, ticket: Some(ticket), node }, nodes));
    }
    let is_nobody = status == StatusCode::UNAUTHORIZED && request.token.is_none();
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) || is_nobody {
        // A server without tickets, or one that gives none to who is nobody; the node itself may take them.
        let wires = base.transports().await?;
        let node = wires.node.clone();
        return Ok((Found { server: Server::new(wires, base.trust)?, ticket: None, node }, vec![]));
    }
    match base.read::<Problem>(&body) {
        Ok(Problem { code, detail: message, retry, .. }) => {
            Err(LookupError::Refused { code, message, retry })
        }
        Err(_) => Err(base.unreachable(format!("it answers {status}")).into()),
    }
}
