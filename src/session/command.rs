//! What a client asks for, done. Each command is answered once: at once, or when the log has answered.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;
use xpush_protocol::{
    ChannelName, ChannelSignal, ClientFrame, Cursor, Delete, DeviceId, ErrorCode, History, Message,
    MessageId, Payload, PayloadError, Pong, Presence, PresenceList, Publish, Published, Read, Received,
    Refresh, Refreshed, Send, Sent, ServerFrame, Signal, Target, UserDevice,
};

use super::{Refusal, Session, check_event, check_extras};
use crate::{
    auth::Permission,
    node::{Deleter, HistoryQuery, Mark, Node},
    publication::{Draft, Publisher},
};

/// A directory that says for as long not whether somebody is blocked is away.
const BLOCK_PATIENCE: Duration = Duration::from_millis(500);

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
            // In turn: what a session sends keeps its order.
            ClientFrame::Send(command) => Doing::First(
                async move {
                    match self.send(command).await {
                        Ok(later) => Done::Later(later),
                        Err(refusal) => refused(refusal, None),
                    }
                }
                .boxed(),
            ),
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
            ClientFrame::Read(Read { channel, offset, .. }) => {
                Doing::So(self.mark(id, channel, Mark::Read(offset)))
            }
            ClientFrame::Delete(Delete { channel, offset, .. }) => {
                Doing::So(match self.delete(id, channel.clone(), offset) {
                    Ok(later) => Done::Later(later),
                    Err(refusal) => refused(refusal, Some(channel)),
                })
            }
            ClientFrame::Received(Received { channel, offset, .. }) => Doing::So(match self.device() {
                Ok(device) => self.mark(id, channel, Mark::Received { device, offset }),
                Err(refusal) => refused(refusal, Some(channel)),
            }),
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
        let asks = self.node.webhooks.asks_before_publish(&self.rights);
        let Some(decided) = self.decided(Permission::Publish, &channel).filter(|_| !asks) else {
            return Doing::First(self.ask_and_publish(command).boxed());
        };
        let published = match decided.and_then(|()| self.draft(command)) {
            Ok(draft) => match self.node.publish_at_once(&channel, draft) {
                Ok(published) => published,
                Err(draft) => return Doing::First(get_in_line(&self.node, id, channel, draft).boxed()),
            },
            Err(refusal) => Err(refusal),
        };
        Doing::So(Done::Now(published_answer(id, channel, published)))
    }

    /// As `publish`, where the directory or a webhook has to be asked whether it may be.
    async fn ask_and_publish(&mut self, command: Publish) -> Done {
        let (id, channel) = (command.id, command.channel.clone());
        // Counted first: who may not publish asks no more often than who may.
        let draft = match self.draft(command) {
            Ok(draft) => self.require(Permission::Publish, &channel).await.map(|()| draft),
            Err(refusal) => Err(refusal),
        };
        let draft = match draft {
            Ok(draft) => self.node.webhooks.before_publish(&self.rights, &channel, draft).await,
            Err(refusal) => Err(refusal),
        };
        match draft {
            Ok(draft) => get_in_line(&self.node, id, channel, draft).await,
            Err(refusal) => Done::Now(published_answer(id, channel, Err(refusal))),
        }
    }

    /// What is to be published. Whether it may be is asked beside this.
    fn draft(&mut self, command: Publish) -> Result<Draft, Refusal> {
        let Publish { id: _, channel: _, message_id, event, data, binary, reply_to, mentions, expires_in } =
            command;
        self.refuse_expired()?;
        check_extras(&event, reply_to, &mentions, expires_in)?;
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
            mentions,
            expires_in,
        })
    }

    /// Counts something that many will hear against the allowance of who says it.
    fn admit_publish(&mut self) -> Result<Publisher, Refusal> {
        let publisher = || {
            // A client without a user is known by its session.
            let publisher = self.rights.user().map_or_else(|| Publisher::session(&self.id), Publisher::user);
            let allowance = self.node.allowance(&publisher);
            Box::new((publisher, allowance))
        };
        let (publisher, allowance) = &**self.publisher.get_or_insert_with(publisher);
        self.node.admit_publish(allowance)?;
        Ok(publisher.clone())
    }

    async fn send(&mut self, command: Send) -> Result<Later, Refusal> {
        let Send { id, to, event, data, binary } = command;
        self.refuse_expired()?;
        check_event(&event)?;
        if !self.rights.may_send(&to) {
            return Err(Refusal::new(
                ErrorCode::PermissionDenied,
                "the token does not grant `send` to there",
            ));
        }
        self.refuse_blocked(&to).await?;
        let (data, binary) = payload(data, binary)?.into_fields();
        let (session, user) = (Some(self.id.clone()), self.user().cloned());
        let (node, message) = (Arc::clone(&self.node), Message { session, user, event, data, binary });
        let app = self.app().clone();
        Ok(async move {
            match node.send(&app, to, message).await {
                Ok(sessions) => Some(ServerFrame::Sent(Sent { id, sessions })),
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), None))),
            }
        }
        .boxed())
    }

    /// Whom a user blocks hears as if nobody were there. While the directory is away nobody's messages are held up for
    /// what it may say.
    async fn refuse_blocked(&self, to: &Target) -> Result<(), Refusal> {
        let receiver = match to {
            Target::User(user) | Target::Device(UserDevice { user, .. }) => user,
            Target::Session(_) => return Ok(()),
        };
        let Some(sender) = self.user() else { return Ok(()) };
        match timeout(BLOCK_PATIENCE, self.node.directory.blocks(receiver, sender)).await {
            Ok(Ok(true)) => Err(Refusal::new(
                ErrorCode::NotConnected,
                "nobody with that address is connected, or can take more",
            )),
            Ok(Ok(false) | Err(_)) | Err(_) => Ok(()),
        }
    }

    /// News of now, to all who are in the channel.
    async fn signal(&mut self, command: Signal) -> Result<(), Refusal> {
        let Signal { id: _, channel, event, data } = command;
        self.refuse_expired()?;
        check_event(&event)?;
        self.admit_publish()?;
        self.require(Permission::Publish, &channel).await?;
        self.node.policy(&channel)?;
        let (session, user) = (self.id.clone(), self.user().cloned());
        let signal = ChannelSignal { channel: channel.clone(), event, data, session, user };
        self.node.tell_channel(channel, ServerFrame::Signal(signal)).await;
        Ok(())
    }

    /// The device that the token names. A session that has none counts as one for as long as it lasts.
    fn device(&self) -> Result<DeviceId, Refusal> {
        if let Some(device) = self.rights.account().and_then(|account| account.device.clone()) {
            return Ok(device);
        }
        let name = |error: xpush_protocol::NameError| Refusal::new(ErrorCode::Internal, error.to_string());
        self.id.as_str().parse().map_err(name)
    }

    /// Notes how far the user has come. The next command need not wait for it.
    fn mark(&self, id: u32, channel: ChannelName, mark: Mark) -> Done {
        if let Err(refusal) = self.refuse_expired() {
            return Done::Now(Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))));
        }
        let (node, rights) = (Arc::clone(&self.node), self.rights.clone());
        let marked = async move {
            match node.mark(&rights, &channel, mark).await {
                Ok(()) => done_answer(id),
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))),
            }
        };
        Done::Later(marked.boxed())
    }

    /// Has a message deleted. It costs what a publish costs: everybody in the channel hears of it.
    fn delete(&mut self, id: u32, channel: ChannelName, offset: u64) -> Result<Later, Refusal> {
        self.refuse_expired()?;
        self.admit_publish()?;
        let deleter = Deleter { rights: self.rights.clone(), user: self.user().cloned(), is_backend: false };
        let node = Arc::clone(&self.node);
        Ok(async move {
            match node.delete_message(&channel, offset, &deleter).await {
                Ok(()) => done_answer(id),
                Err(refusal) => Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel)))),
            }
        }
        .boxed())
    }

    fn history(&self, command: History) -> Result<Later, Refusal> {
        let History { id, channel, cursor, backward, limit } = command;
        self.refuse_expired()?;
        let (node, rights) = (Arc::clone(&self.node), self.rights.clone());
        Ok(async move {
            if let Err(refusal) = node.require(&rights, Permission::History, &channel).await {
                return Some(ServerFrame::Error(refusal.into_frame(Some(id), Some(channel))));
            }
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
        self.require(Permission::Presence, &channel).await?;
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
        let rights = self.node.verify(&command.token).await?;
        if rights.user() != self.user() || rights.app() != self.app() {
            let message = "the new token is another user's, or another app's; connect anew with it";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message));
        }
        self.rights = rights;
        if let Some(kept) = &self.token {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(command.token);
        }
        self.expired = false;
        self.node.sessions.mute(&self.id, self.connection, false);
        let names = self.subscriptions.keys().cloned().collect();
        self.end_forbidden(names, false).await;
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
