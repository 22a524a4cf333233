//! What a node does with what comes from the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use xpush_protocol::{ChannelName, ServerFrame, Target};

use super::{Carried, Placed};
use crate::{channel::Channels, membership::NodeId, publication::Draft, session::Sessions};

/// How long the other nodes are waited for, to tell how many sessions took a private message.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(2);
/// Requests of a kind that wait for other nodes. One more private message counts its own node's sessions only; what one
/// more would have appended elsewhere is appended here.
const WAITING_CAPACITY: usize = 16_384;
/// Nodes whose answers to one message may wait to be counted; and what one node may say of one request, before it is
/// read.
const ANSWERS_CAPACITY: usize = 64;

/// What other nodes want appended, and waits for that; one more they append themselves.
const REQUESTED_CAPACITY: usize = 1024;

/// Where a broker puts what comes from other nodes.
pub struct Inbox {
    node: NodeId,
    pub channels: Arc<Channels>,
    pub sessions: Arc<Sessions>,
    /// How many sessions took a private message.
    accepted: Requests<u32>,
    /// Where drafts stand that another node was asked to append; `None` while it is at it.
    appended: Requests<Option<Placed>>,
    requested: mpsc::Sender<Requested>,
    to_append: Mutex<Option<mpsc::Receiver<Requested>>>,
    doubt: Notify,
}

/// Drafts of one channel that another node wants appended here.
#[derive(Debug, PartialEq, Eq)]
pub struct Requested {
    pub from: NodeId,
    pub request: u64,
    pub sent: u64,
    pub channel: ChannelName,
    pub drafts: Vec<Draft>,
}

/// What other nodes were asked, and have not answered.
struct Requests<T>(Mutex<Waiting<T>>);

struct Waiting<T> {
    last: u64,
    by_request: HashMap<u64, mpsc::Sender<T>>,
}

/// The answers to one request, as they come.
pub(crate) struct Answers<'a, T> {
    requests: &'a Requests<T>,
    pub(crate) request: u64,
    answers: mpsc::Receiver<T>,
}

impl<T> Requests<T> {
    fn new() -> Self {
        Self(Mutex::new(Waiting { last: 0, by_request: HashMap::new() }))
    }

    /// `None`: too many wait.
    fn expect(&self) -> Option<Answers<'_, T>> {
        let mut waiting = self.waiting();
        if waiting.by_request.len() >= WAITING_CAPACITY {
            return None;
        }
        let (sender, answers) = mpsc::channel(ANSWERS_CAPACITY);
        waiting.last += 1;
        let request = waiting.last;
        waiting.by_request.insert(request, sender);
        Some(Answers { requests: self, request, answers })
    }

    fn answer(&self, request: u64, answer: T) {
        if let Some(answers) = self.waiting().by_request.get(&request) {
            // More than there is room for: what waits for them makes do with fewer.
            let _ = answers.try_send(answer);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        let (requested, to_append) = mpsc::channel(REQUESTED_CAPACITY);
        Self {
            node,
            channels: Arc::default(),
            sessions: Arc::default(),
            accepted: Requests::new(),
            appended: Requests::new(),
            requested,
            to_append: Mutex::new(Some(to_append)),
            doubt: Notify::new(),
        }
    }

    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Takes what another node published; never what this one did. Gives what is to be published in answer.
    #[must_use]
    pub fn receive(&self, carried: Carried) -> Vec<Carried> {
        match carried {
            Carried::Publication { channel, epoch, publication } => {
                self.channels.deliver_told(&channel, epoch, &publication);
            }
            Carried::Top { channel, cursor } => {
                if let Some(channel) = self.channels.get(&channel) {
                    channel.note_top(cursor);
                }
            }
            Carried::Presence { channel, occupancy, frame } => {
                self.channels.tell_presence(&channel, occupancy, &frame);
            }
            Carried::Event { channel, frame } => self.channels.tell(&channel, &frame),
            Carried::Message { app, to, message, from, request } => {
                let sessions = self.sessions.send(&app, &to, ServerFrame::Message(message));
                return vec![Carried::Accepted { node: from, request, sessions }];
            }
            Carried::Accepted { node: _, request, sessions } => self.accepted.answer(request, sessions),
            Carried::Append { node: _, from, request, sent, channel, drafts } => {
                let asker = from.clone();
                let requested = Requested { from, request, sent, channel, drafts };
                if self.requested.try_send(requested).is_err() {
                    let placed = Placed { is_behind: true, ..Placed::default() };
                    return vec![Carried::Appended { node: asker, request, placed }];
                }
            }
            Carried::Appending { node: _, request } => self.appended.answer(request, None),
            Carried::Appended { node: _, request, placed } => self.appended.answer(request, Some(placed)),
            Carried::Taken(taken) => {
                let (app, waited) = self.sessions.hand_over(&taken);
                let to = |message| Carried::Message {
                    app: app.clone(),
                    to: Target::Session(taken.session.clone()),
                    message,
                    from: self.node.clone(),
                    // Nobody counts these: the sender has had its answer.
                    request: 0,
                };
                return waited.into_iter().map(to).collect();
            }
        }
        Vec::new()
    }

    /// The broker lost its connection, or a node died that may not have announced its last publications: what was
    /// published meanwhile may not have come.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until the channels have to be compared with their logs. Cancel safe.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// A number for a message to other nodes, under which their answers are counted. `None`: too many wait.
    pub(crate) fn expect_accepted(&self) -> Option<Answers<'_, u32>> {
        self.accepted.expect()
    }

    /// A number for drafts that another node is to append. `None`: too many wait.
    pub(crate) fn expect_appended(&self) -> Option<Answers<'_, Option<Placed>>> {
        self.appended.expect()
    }

    /// What the others want appended here. `None`: somebody has it already.
    pub(crate) fn requested(&self) -> Option<mpsc::Receiver<Requested>> {
        self.to_append.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Answers<'_, T> {
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.answers.recv().await
    }
}

impl Answers<'_, u32> {
    /// How many sessions took it, at so many nodes; at fewer, if some don't answer in time.
    pub(crate) async fn sum(mut self, nodes: usize) -> u32 {
        let deadline = Instant::now() + ACCEPT_DEADLINE;
        let mut sessions = 0;
        for _ in 0..nodes {
            match timeout_at(deadline, self.next()).await {
                Ok(Some(accepted)) => sessions += accepted,
                Ok(None) | Err(_) => break,
            }
        }
        sessions
    }
}

impl<T> Drop for Answers<'_, T> {
    fn drop(&mut self) {
        self.requests.waiting().by_request.remove(&self.request);
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{EventName, Json, Message};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_counted_as_far_as_they_come() {
        let inbox = Inbox::new("a".parse().unwrap());
        let node: NodeId = "a".parse().unwrap();
        let answers = inbox.expect_accepted().unwrap();
        let request = answers.request;
        let accepted = |sessions| Carried::Accepted { node: node.clone(), request, sessions };
        assert_eq!(inbox.receive(accepted(2)), []);
        assert_eq!(inbox.receive(accepted(3)), []);
        assert_eq!(answers.sum(3).await, 5, "the third node does not answer");
        assert_eq!(inbox.receive(accepted(9)), [], "nobody waits any more");
        assert!(inbox.accepted.waiting().by_request.is_empty());
    }

    #[test]
    fn a_private_message_is_answered_with_a_count() {
        let inbox = Inbox::new("a".parse().unwrap());
        let message = Message {
            session: None,
            user: None,
            event: EventName::default(),
            data: Some(Json::parse("1").unwrap()),
            binary: None,
        };
        let from: NodeId = "b".parse().unwrap();
        let to = Target::User("ann".parse().unwrap());
        let app = xpush_protocol::AppId::default();
        let answer = inbox.receive(Carried::Message { app, to, message, from: from.clone(), request: 7 });
        assert_eq!(answer, [Carried::Accepted { node: from, request: 7, sessions: 0 }]);
    }
}
