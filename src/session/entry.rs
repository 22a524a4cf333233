//! The door: a connection's first frame says who it is and where it stopped.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tracing::debug;
use xpush_protocol::{
    ChannelName, ClientFrame, CloseCode, Codec, Connect, Connected, Cursor, ErrorCode, ServerFrame, SessionId,
};
use xpush_transports::{Farewell, Lane, Outgoing, Peer, Reader, Writer};

use super::{Entering, Outbox, Recheck, Refusal, Session, now};
use crate::{
    auth::{Permission, SessionState},
    node::Node,
};

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

/// What a client wants to go on with, to be taken up once there is somebody to write the answers.
pub(super) struct Resume {
    /// Of the `connect`: its answers carry it.
    id: u32,
    vector: Vector,
}

/// Reads `connect`, and makes the session that it is for.
pub(super) async fn enter(
    node: &Arc<Node>,
    peer: &Peer,
    reader: &mut impl Reader,
) -> Result<(Session, Resume), Turned> {
    let frame = reader.read().await.map_err(|closed| Turned::away(closed.farewell()))?;
    let codec = peer.codec.unwrap_or_else(|| Codec::detect(&frame));
    let mut connect = match codec.decode_command(&frame) {
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
    let (session, vector) = identify(node, peer, codec, &mut connect).await.map_err(|refusal| {
        // What is wrong with the server for a while is no reason to give up.
        let is_ours = refusal.code.may_retry();
        let code = if is_ours { CloseCode::Internal } else { CloseCode::Unauthenticated };
        Turned::refused(codec, Some(id), refusal, code)
    })?;
    let agent = connect.agent.as_deref().unwrap_or("");
    debug!(session = %session.id, user = ?session.user(), agent, "connected");
    session.greet(id);
    Ok((session, Resume { id, vector }))
}

type Vector = Vec<(ChannelName, Option<Cursor>)>;

/// Who it is, by token, state, or the leave to be nobody.
async fn identify(
    node: &Arc<Node>,
    peer: &Peer,
    codec: Codec,
    connect: &mut Connect,
) -> Result<(Session, Vector), Refusal> {
    let state = connect.state.as_deref().map(|sealed| node.open_state(sealed)).transpose()?;
    let of_ticket = connect.ticket.as_deref().map(|ticket| node.open_ticket(ticket)).transpose()?.flatten();
    let token =
        connect.token.clone().or(of_ticket).or_else(|| state.as_ref().and_then(|state| state.token.clone()));
    let changes = node.changes();
    let rights = match &token {
        Some(token) => node.verify(token).await?,
        None => node.without_token(peer.address.ip(), peer.is_foreign_page()).await?,
    };
    node.check_page(&rights, peer.origin.as_deref()).await?;
    connect.enter(rights.app());
    node.webhooks.before_connect(&rights, peer.address.ip(), connect.agent.as_deref()).await?;
    // A session belongs to who began it: with the state of somebody else one gets a session of one's own. Nobody of one
    // app is not nobody of another.
    let known = state.filter(|state| state.app == *rights.app() && state.user.as_ref() == rights.user());
    let vector = vector(connect, known.as_ref());
    let generation = known.as_ref().map_or(0, |state| state.generation) + 1;
    let is_known = known.is_some();
    let id = known.map_or_else(SessionId::random, |state| state.session);
    let outbox = Arc::new(Outbox::new(codec));
    // Before the first answer, and the state that goes with it, can be written.
    outbox.resume(vector.iter().cloned());
    let connection = node.next_connection();
    let (app, user, since) = (rights.app(), rights.user(), now());
    let device = rights.account().and_then(|account| account.device.as_ref());
    let entering =
        Entering { session: &id, app, user, device, connection, since, generation, outbox: &outbox };
    if connect.detached {
        node.sessions.attach_beside(entering);
    } else {
        node.attach(entering, is_known).await;
    }
    // What is taken away from now on is told to it. What was since its rights were looked at, and was told while it was
    // in no table, it looks for.
    if rights.account().is_some() && node.changes() != changes {
        outbox.ask_recheck(&Recheck::Account);
    }
    let session = Session {
        node: Arc::clone(node),
        id: id.clone(),
        connection,
        generation,
        detached: connect.detached,
        publisher: None,
        rights,
        token: peer.wants_checkpoints.then(|| Arc::new(Mutex::new(token))),
        outbox,
        subscriptions: std::collections::HashMap::new(),
        bad_frames: 0,
        expired: false,
        broke: false,
    };
    Ok((session, vector))
}

/// The resume vector: the client's own, else the one in its state.
fn vector(connect: &Connect, known: Option<&SessionState>) -> Vector {
    if connect.detached {
        return Vec::new();
    }
    if !connect.subscriptions.is_empty() {
        return connect.subscriptions.iter().map(|entry| (entry.channel.clone(), entry.cursor)).collect();
    }
    known.map(|state| state.vector.clone()).unwrap_or_default()
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
            generation: self.generation,
            app: self.app().clone(),
        };
        self.outbox.push_answer(&ServerFrame::Connected(Connected {
            id,
            session: self.id.clone(),
            state: node.seal_state(&state),
            user: self.user().cloned(),
            node: node.id.to_string(),
            expires_in: self.expires_in(),
            ping_interval: node.limits.ping_interval.as_millis() as u32,
            limits: node.limits.for_clients(),
        }));
    }

    /// Whole seconds until the rights end.
    pub(super) fn expires_in(&self) -> Option<u32> {
        self.rights_left().map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    /// Takes up the subscriptions of the resume vector.
    pub(super) async fn resume(&mut self, resume: Resume) {
        let _listening = self.listen_ahead(&resume.vector).await;
        for (channel, cursor) in resume.vector {
            // Channels may be many, and the client slow: a right that goes meanwhile is gone for those that have begun.
            while !self.outbox.has_room() {
                self.outbox.room_or_attention().await;
                if self.has_to_go().await {
                    return;
                }
            }
            self.subscribe_or_tell(resume.id, channel, cursor, None).await;
            if self.has_to_go().await {
                return;
            }
        }
    }

    /// Looks at what may be gone. Whether the session is over.
    async fn has_to_go(&mut self) -> bool {
        if let Some(farewell) = self.recheck().await {
            self.outbox.close(farewell);
        }
        self.outbox.farewell().is_some()
    }

    /// Listens to all that the session may subscribe to: one way to the broker and back, not one for each channel.
    async fn listen_ahead(&self, vector: &Vector) -> ListeningAhead {
        let may = |(channel, _): &&(ChannelName, _)| {
            // Who has to be asked for first is listened to a little later.
            self.decided(Permission::Subscribe, channel).is_some_and(|decided| decided.is_ok())
        };
        let channels = vector.iter().filter(may).take(self.node.limits.subscriptions);
        let channels = channels.map(|(channel, _)| channel.clone()).collect();
        let ahead = ListeningAhead { node: Arc::clone(&self.node), channels };
        join_all(ahead.channels.iter().map(|channel| ahead.node.listen(channel))).await;
        ahead
    }
}

/// Channels that are listened to, until it is dropped.
struct ListeningAhead {
    node: Arc<Node>,
    channels: Vec<ChannelName>,
}

impl Drop for ListeningAhead {
    fn drop(&mut self) {
        for channel in &self.channels {
            self.node.unlisten(channel);
        }
    }
}
