//! What a client asks for, done. Each command is answered once: at once, or when the log has answered.

use std::{
    sync::{Arc, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use xpush_protocol::{
    ChannelName, ChannelSignal, ClientFrame, Cursor, ErrorCode, History, Message, MessageId, Payload,
    PayloadError, Pong, Presence, PresenceList, Publish, Published, Refresh, Refreshed, Send, Sent,
    ServerFrame, Signal, UnsubscribeReason,
};

use super::{Refusal, Session, check_event, check_extras};
use crate::{
    auth::Permission,
    node::{HistoryQuery, Node},
    publication::{Draft, Publisher},
};

/// An answer that comes later, or none where none is wanted.
pub(super) type Later = BoxFuture<'static, Option<ServerFrame>>;

/// How a command is done. What waits is boxed: its state would be a part of every idle session's.
pub(super) enum Doing<'a> {
    So(Done),
    /// The next command waits until this has come so far.
    First(BoxFuture<'a, Done>),
}

pub(super) enum Done {
    /// This is the answer, unless none is wanted or it is given already.
    Now(Option<ServerFrame>),
    /// The next command need not wait for this one.
    Later(Later),
}

impl Session {
    /// Does a command.
    pub(super) fn command(&mut self, command: ClientFrame) -> Doing<'_> {
        let id = command.id();
        let refused = move |refusal: Refusal, channel| {
            Done::Now(Some(ServerFrame::Error(refusal.into_frame(Some(id), channel))))
        };
        match command {
            ClientFrame::Publish(command) => self.publish(command),
            ClientFrame::Connect(_) => {
                let message = "this connection has had its `connect`";
                Doing::So(refused(Refusal::new(ErrorCode::OutOfOrder, message), None))
            }
            ClientFrame::Subscribe(command) => Doing::First(
                async move {
                    self.subscribe_or_tell(id, command.channel, command.cursor, command.last).await;
                    Done::Now(None)
                }
                .boxed(),
            ),
            ClientFrame::Unsubscribe(command) => Doing::First(
                async move { Done::Now(Some(self.unsubscribe(id, command.channel).await)) }.boxed(),
            ),
            ClientFrame::Send(command) => Doing::So(match self.send(command) {
                Ok(later) => Done::Later(later),
                Err(refusal) => refused(refusal, None),
            }),
            ClientFrame::Signal(command) => {
                let channel = command.channel.clone();
                Doing::First(
                    async move {
                        match self.signal(command).await {
                            Ok(()) => Done::Now(done_answer(id)),
                            Err(refusal) => refused(refusal, Some(channel)),
                        }
                    }
                    .boxed(),
                )
            }
            ClientFrame::Read(_) | ClientFrame::Received(_) => {
                let message = "this server keeps no cursors of members";
                Doing::So(refused(Refusal::new(ErrorCode::NotSupported, message), None))
            }
            ClientFrame::Delete(command) => {
                let message = "this server deletes no messages";
                let refusal = Refusal::new(ErrorCode::NotSupported, message);
                Doing::So(refused(refusal, Some(command.channel)))
            }
            ClientFrame::History(command) => {
                let channel = command.channel.clone();
                Doing::So(match self.history(command) {
                    Ok(later) => Done::Later(later),
                    Err(refusal) => refused(refusal, Some(channel)),
                })
            }
            ClientFrame::Presence(command) => Doing::First(
                async move {
                    let channel = command.channel.clone();
                    match self.list_presence(command).await {
                        Ok(list) => Done::Now(Some(list)),
                        Err(refusal) => refused(refusal, Some(channel)),
                    }
                }
                .boxed(),
            ),
            ClientFrame::Refresh(command) => Doing::First(
                async move {
                    match self.refresh(command).await {
                        Ok(refreshed) => Done::Now(Some(refreshed)),
                        Err(refusal) => refused(refusal, None),
                    }
                }
                .boxed(),
            ),
            ClientFrame::Ping(_) => Doing::So(Done::Now(Some(ServerFrame::Pong(Pong { id })))),
        }
    }

    fn publish(&mut self, command: Publish) -> Doing<'_> {
        let (id, channel) = (command.id, command.channel.clone());
        let published = match self.draft(command) {
            Ok(draft) => match self.node.publish_at_once(&channel, draft) {
                Ok(published) => published,
                Err(draft) => return Doing::First(get_in_line(&self.node, id, channel, draft).boxed()),
            },
            Err(refusal) => Err(refusal),
        };
        Doing::So(Done::Now(published_answer(id, channel, published)))
    }

    /// What is to be published, if it may be.
    fn draft(&mut self, command: Publish) -> Result<Draft, Refusal> {
        let Publish { id: _, channel, message_id, event, data, binary, reply_to, mentions, expires_in } =
            command;
        self.refuse_expired()?;
        check_extras(&event, reply_to, &mentions, expires_in)?;
        self.require(Permission::Publish, &channel)?;
        let publisher = self.admit_publish()?;
        Ok(Draft {
            publisher,
            retriable: message_id.is_some(),
            message_id: message_id.unwrap_or_else(MessageId::random),
            event,
            payload: payload(data, binary)?,
            user: self.user().cloned(),
            time: now(),
            reply_to,
            mentions: mentions.iter().map(|user| user.within(self.rights.app())).collect(),
        })
    }

    /// Counts something that many will hear against the allowance of who says it.
    fn admit_publish(&mut self) -> Result<Publisher, Refusal> {
        let publisher = || {
            // A client without a user is known by its session.
            let publisher = self.rights.user().map_or_else(|| Publisher::session(&self.id), Publisher::user);
            let allowance = self.node.allowance(&publisher);
            (publisher, allowance)
        };
        let (publisher, allowance) = self.publisher.get_or_insert_with(publisher);
        self.node.admit_publish(allowance)?;
        Ok(publisher.clone())
    }

    fn send(&mut self, command: Send) -> Result<Later, Refusal> {
        let Send { id, to, event, data, binary } = command;
        self.refuse_expired()?;
        check_event(&event)?;
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

    /// News of now, to all who are in the channel.
    async fn signal(&mut self, command: Signal) -> Result<(), Refusal> {
        let Signal { id: _, channel, event, data } = command;
        self.refuse_expired()?;
        check_event(&event)?;
        self.require(Permission::Publish, &channel)?;
        self.admit_publish()?;
        self.node.policy(&channel)?;
        let (session, user) = (self.id.clone(), self.user().cloned());
        let signal = ChannelSignal { channel: channel.clone(), event, data, session, user };
        self.node.tell_channel(channel, ServerFrame::Signal(signal)).await;
        Ok(())
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

/// Puts a draft into its log's line, before the next command is read: what a session publishes keeps its order.
async fn get_in_line(node: &Arc<Node>, id: u32, channel: ChannelName, draft: Draft) -> Done {
    let publishing = node.publish(&channel, draft).await;
    Done::Later(
        async move {
            let published = match publishing {
                Ok(publishing) => publishing.await,
                Err(refusal) => Err(refusal),
            };
            published_answer(id, channel, published)
        }
        .boxed(),
    )
}

/// The answer to a command that gives nothing back, if one is wanted.
fn done_answer(id: u32) -> Option<ServerFrame> {
    (id != 0).then_some(ServerFrame::Done(xpush_protocol::Done { id }))
}

/// The answer, if one is wanted: to a publish without an id, only a refusal is.
fn published_answer(
    id: u32,
    channel: ChannelName,
    published: Result<(Cursor, bool), Refusal>,
) -> Option<ServerFrame> {
    match published {
        Ok((cursor, duplicate)) => {
            (id != 0).then_some(ServerFrame::Published(Published { id, cursor, duplicate }))
        }
        Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))),
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
