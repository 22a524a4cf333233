//! Which node a client should use, and the ticket that takes it there.

use std::{net::IpAddr, time::SystemTime};

use xpush_protocol::{ErrorCode, SessionId, Ticket as TicketAnswer};

use super::Node;
use crate::{
    auth::{TICKET_LIFETIME, Ticket},
    membership::{NodeInfo, assign},
    session::Refusal,
};

/// Base URLs that a client is told, to ask at when the one it knows is gone.
const BASES_LIMIT: usize = 16;

impl Node {
    /// A node to use, for who has this token, or none where none is needed; its wires for a page that came over TLS
    /// or not. `is_elsewhere`: whatever the address, it is called from another machine. `avoid`: a node that the client could not reach, which may be dead before that is known here.
    pub async fn ticket(
        &self,
        token: Option<String>,
        avoid: Option<&str>,
        peer: IpAddr,
        is_elsewhere: bool,
        secure: bool,
    ) -> Result<TicketAnswer, Refusal> {
        let rights = match &token {
            Some(token) => self.verify(token).await?,
            None => self.without_token(peer, is_elsewhere).await?,
        };
        let nodes = self.membership.nodes().borrow().clone();
        // A user comes to the same node with every device; who has no name goes anywhere.
        let key =
            rights.user().map_or_else(|| SessionId::random().to_string(), |user| user.as_str().to_owned());
        let others: Vec<_> = nodes
            .iter()
            .filter(|node| avoid.is_some_and(|avoid| node.id.as_str() != avoid))
            .cloned()
            .collect();
        let node = assign(&others, &key)
            .or_else(|| assign(&nodes, &key))
            .ok_or_else(|| Refusal::new(ErrorCode::NoNode, "no node takes clients now; try again"))?;
        let url = |node: &NodeInfo| if secure { node.secure_url.clone() } else { node.url.clone() };
        let (own, others): (Vec<_>, Vec<_>) =
            nodes.iter().filter(|node| node.roles.session).partition(|node| node.id == self.id);
        // Those that leave come last: they still answer, for a while.
        let (leaving, staying): (Vec<_>, Vec<_>) = others.into_iter().partition(|node| node.status.draining);
        let bases = own.into_iter().chain(staying).chain(leaving).map(url).take(BASES_LIMIT).collect();
        let ticket = Ticket::new(token, node.id.as_str(), SystemTime::now());
        Ok(TicketAnswer {
            ticket: ticket.seal(&self.auth.sealer),
            expires_in: TICKET_LIFETIME.as_secs() as u32,
            node: node.id.to_string(),
            wires: if secure { node.secure_wires.clone() } else { node.wires.clone() },
            nodes: bases,
        })
    }

    /// The token that a ticket stands for.
    pub(crate) fn open_ticket(&self, text: &str) -> Result<Option<String>, Refusal> {
        Ok(Ticket::open(text, &self.auth.sealer, SystemTime::now())?.token)
    }
}
