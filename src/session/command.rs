//! What a client asks for, done. Each command is answered once: at once, or when the log has answered.

use std::{
    sync::{Arc, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use xpush_protocol::{
    ClientFrame, ErrorCode, History, Message, MessageId, Payload, PayloadError, Pong, Presence, PresenceList,
    Publish, Published, Refresh, Refreshed, Send, Sent, ServerFrame, UnsubscribeReason,
};

use super::{Refusal, Session};
use crate::{auth::Permission, node::HistoryQuery, publication::Draft};

/// An answer that comes later, or none where none is wanted.
pub(super) type Later = BoxFuture<'static, Option<ServerFrame>>;

impl Session {
    /// Does a command. `None`: it is answered already, or wants no answer.
    ///
    /// What is done seldom is boxed: its state would be a part of every idle session's.
    pub(super) async fn command(&mut self, command: ClientFrame) -> Option<Later> {
        let id = command.id();
        let done = match command {
            ClientFrame::Connect(_) => {
                Err((Refusal::new(ErrorCode::OutOfOrder, "this connection has had its `connect`"), None))
            }
            ClientFrame::Subscribe(command) => {
                Box::pin(self.subscribe_or_tell(id, command.channel, command.cursor, command.last)).await;
                return None;
            }
            ClientFrame::Unsubscribe(command) => {
                let answer = Box::pin(self.unsubscribe(id, command.channel)).await;
                self.outbox.push_answer(&answer);
                return None;
            }
            ClientFrame::Publish(command) => {
                let channel = command.channel.clone();
                match self.publish(command).await {
                    Ok(later) => return Some(later),
                    Err(refusal) => Err((refusal, Some(channel))),
                }
            }
            ClientFrame::Send(command) => match self.send(command) {
                Ok(later) => return Some(later),
                Err(refusal) => Err((refusal, None)),
            },
            ClientFrame::History(command) => {
                let channel = command.channel.clone();
                match self.history(command) {
                    Ok(later) => return Some(later),
                    Err(refusal) => Err((refusal, Some(channel))),
                }
            }
            ClientFrame::Presence(command) => {
                let channel = command.channel.clone();
                Box::pin(self.list_presence(command)).await.map_err(|refusal| (refusal, Some(channel)))
            }
            ClientFrame::Refresh(command) => {
                Box::pin(self.refresh(command)).await.map_err(|refusal| (refusal, None))
            }
            ClientFrame::Ping(_) => Ok(ServerFrame::Pong(Pong { id })),
        };
        let answer = done
            .unwrap_or_else(|(refusal, channel)| ServerFrame::Error(refusal.into_frame(Some(id), channel)));
        self.outbox.push_answer(&answer);
        None
    }

    async fn publish(&mut self, command: Publish) -> Result<Later, Refusal> {
        let Publish { id, channel, message_id, event, data, binary } = command;
        self.refuse_expired()?;
        self.require(Permission::Publish, &channel)?;
        self.node.admit_publish(&self.publisher)?;
        let draft = Draft {
            publisher: self.publisher.clone(),
            message_id: message_id.unwrap_or_else(MessageId::random),
            event,
            payload: payload(data, binary)?,
            user: self.user().cloned(),
            time: now(),
        };
        let publishing = self.node.publish(&channel, draft).await?;
        Ok(async move {
            match publishing.await {
                Ok((cursor, duplicate)) => {
                    (id != 0).then_some(ServerFrame::Published(Published { id, cursor, duplicate }))
                }
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))),
            }
        }
        .boxed())
    }

    fn send(&mut self, command: Send) -> Result<Later, Refusal> {
        let Send { id, to, event, data, binary } = command;
        self.refuse_expired()?;
        if !self.rights.may_send(&to) {
            return Err(Refusal::new(
                ErrorCode::PermissionDenied,
                "the token does not grant `send` to there",
            ));
        }
        let (data, binary) = payload(data, binary)?.into_fields();
        let (session, user) = (Some(self.id.clone()), self.user().cloned());
        let (node, message) = (Arc::clone(&self.node), Message { session, user, event, data, binary });
        Ok(async move {
            match node.send(to, message).await {
                Ok(sessions) => Some(ServerFrame::Sent(Sent { id, sessions })),
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), None))),
            }
        }
        .boxed())
    }

    fn history(&self, command: History) -> Result<Later, Refusal> {
        let History { id, channel, cursor, backward, limit } = command;
        self.refuse_expired()?;
        self.require(Permission::History, &channel)?;
        let node = Arc::clone(&self.node);
        Ok(async move {
            let query = HistoryQuery { cursor, backward, limit };
            match node.history(&channel, query).await {
                Ok(mut page) => {
                    page.id = id;
                    Some(ServerFrame::History(page))
                }
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))),
            }
        }
        .boxed())
    }

    async fn list_presence(&self, command: Presence) -> Result<ServerFrame, Refusal> {
        let Presence { id, channel } = command;
        self.refuse_expired()?;
        self.require(Permission::Presence, &channel)?;
        let list = self.node.list_presence(&channel).await?;
        let (members, sessions, users) = (list.members, list.sessions, list.users);
        Ok(ServerFrame::Presence(PresenceList { id, channel, members, sessions, users }))
    }

    /// A new token for the same user: what it no longer grants ends at once.
    async fn refresh(&mut self, command: Refresh) -> Result<ServerFrame, Refusal> {
        if self.detached {
            // The session's own connection would keep the rights that this answer says have ended.
            let message = "a detached connection can't change the session's token; connect with the new one";
            return Err(Refusal::new(ErrorCode::NotSupported, message));
        }
        let rights = self.node.verify(&command.token)?;
        if rights.user() != self.user() {
            let message = "the new token is another user's; connect anew with it";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message));
        }
        self.rights = rights;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(command.token);
        self.expired = false;
        self.node.sessions.mute(&self.id, self.connection, false);
        let rights = self.rights.clone();
        self.end_subscriptions(UnsubscribeReason::Revoked, |name| {
            !rights.allows(Permission::Subscribe, name)
        })
        .await;
        for subscription in self.subscriptions.values() {
            subscription.show_presence(rights.allows(Permission::Presence, subscription.channel_name()));
        }
        Ok(ServerFrame::Refreshed(Refreshed { id: command.id, expires_in: self.expires_in() }))
    }
}

/// The two wire fields as one payload.
pub(crate) fn payload(
    data: Option<xpush_protocol::Json>,
    binary: Option<xpush_protocol::Binary>,
) -> Result<Payload, Refusal> {
    Payload::from_fields(data, binary)
        .map_err(|error: PayloadError| Refusal::new(ErrorCode::InvalidField, error.to_string()))
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
