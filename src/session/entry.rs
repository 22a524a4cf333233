//! The door: a connection's first frame says who it is and where it stopped.

use std::sync::{Arc, Mutex};

use tracing::info;
use xpush_protocol::{ClientFrame, CloseCode, Codec, Connect, Connected, ErrorCode, ServerFrame, SessionId};
use xpush_transports::{Farewell, Lane, Outgoing, Peer, Reader, Writer};

use super::{Outbox, Rate, Refusal, Session, now};
use crate::{auth::SessionState, node::Node};

/// A connection that is not let in.
pub(super) struct Turned {
    /// The last word before the goodbye.
    answer: Option<bytes::Bytes>,
    pub(super) farewell: Farewell,
}

impl Turned {
    pub(super) fn away(farewell: Farewell) -> Self {
        Self { answer: None, farewell }
    }

    fn refused(codec: Codec, id: Option<u32>, refusal: Refusal, code: CloseCode) -> Self {
        let farewell = Farewell::new(code, refusal.message.clone());
        Self { answer: Some(codec.encode(&ServerFrame::Error(refusal.into_frame(id, None)))), farewell }
    }

    pub(super) async fn tell(&self, writer: &mut impl Writer) {
        if let Some(bytes) = self.answer.clone() {
            // A peer that is gone already hears it no more than the goodbye that follows.
            let _ = writer.write(&mut vec![Outgoing { bytes, lane: Lane::Control }]).await;
        }
    }
}

/// Reads `connect`, and makes the session that it is for. What it resumes is left to `Session::resume`, once there
/// is somebody to write the answers.
pub(super) async fn enter(
    node: &Arc<Node>,
    peer: &Peer,
    reader: &mut impl Reader,
) -> Result<(Session, Connect), Turned> {
    let frame = reader.read().await.map_err(|closed| Turned::away(closed.farewell()))?;
    let codec = peer.codec.unwrap_or_else(|| Codec::detect(&frame));
    let connect = match codec.decode_command(&frame) {
        Ok(ClientFrame::Connect(connect)) => connect,
        Ok(other) => {
            let refusal = Refusal::new(ErrorCode::OutOfOrder, "the first frame has to be `connect`");
            return Err(Turned::refused(codec, Some(other.id()), refusal, CloseCode::ProtocolError));
        }
        Err(error) => {
            let refusal = Refusal::new(error.code, error.message);
            return Err(Turned::refused(codec, error.id, refusal, CloseCode::ProtocolError));
        }
    };
    if node.is_draining() {
        return Err(Turned::away(Farewell::new(
            CloseCode::Draining,
            "the node is leaving; connect to another",
        )));
    }
    let id = connect.id;
    let session = identify(node, peer, codec, &connect)
        .map_err(|refusal| Turned::refused(codec, Some(id), refusal, CloseCode::Unauthenticated))?;
    info!(session = %session.id, user = ?session.user(), agent = connect.agent.as_deref().unwrap_or(""), "connected");
    session.greet(id);
    Ok((session, connect))
}

/// Who it is, by token, state, or the leave to be nobody.
fn identify(node: &Arc<Node>, peer: &Peer, codec: Codec, connect: &Connect) -> Result<Session, Refusal> {
    let state = connect.state.as_deref().map(|sealed| node.open_state(sealed)).transpose()?;
    let token = connect.token.clone().or_else(|| state.as_ref().and_then(|state| state.token.clone()));
    let rights = node.authenticate(token.as_deref(), peer.address.ip())?;
    // A session belongs to who began it: with the state of somebody else one gets a session of one's own.
    let known = state.filter(|state| state.user.as_ref() == rights.user());
    let id = known.map_or_else(SessionId::random, |state| state.session);
    let outbox = Arc::new(Outbox::new(codec));
    let connection = node.next_connection();
    if !connect.detached {
        node.sessions.attach(&id, rights.user(), connection, &outbox);
    }
    Ok(Session {
        node: Arc::clone(node),
        id,
        connection,
        detached: connect.detached,
        rate: Rate::per_second(node.limits.publishes_per_second),
        rights,
        token: Arc::new(Mutex::new(token)),
        outbox,
        subscriptions: std::collections::HashMap::new(),
        bad_frames: 0,
        expired: false,
        broke: false,
    })
}

impl Session {
    fn greet(&self, id: u32) {
        let node = &self.node;
        let state = SessionState {
            session: self.id.clone(),
            user: self.user().cloned(),
            token: None,
            vector: vec![],
            issued: now() / 1000,
        };
        self.outbox.push_answer(&ServerFrame::Connected(Connected {
            id,
            session: self.id.clone(),
            state: node.seal_state(&state),
            user: self.user().cloned(),
            node: node.name.clone(),
            expires_in: self.expires_in(),
            ping_interval: node.limits.ping_interval.as_millis() as u32,
            limits: node.limits.for_clients(),
        }));
    }

    /// Whole seconds until the rights end.
    pub(super) fn expires_in(&self) -> Option<u32> {
        self.rights_left().map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    /// Takes up the subscriptions of the resume vector: the client's own, else those in the state.
    pub(super) async fn resume(&mut self, connect: Connect) {
        if connect.detached {
            return;
        }
        let mut vector: Vec<_> =
            connect.subscriptions.into_iter().map(|entry| (entry.channel, entry.cursor)).collect();
        if vector.is_empty()
            && let Some(Ok(state)) = connect.state.as_deref().map(|sealed| self.node.open_state(sealed))
        {
            vector = state.vector.into_iter().map(|(channel, cursor)| (channel, Some(cursor))).collect();
        }
        for (channel, cursor) in vector {
            self.outbox.room().await;
            self.subscribe_or_tell(connect.id, channel, cursor, None).await;
        }
    }
}
