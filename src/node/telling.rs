//! Messages told in the inboxes of their channel's members, after they are acknowledged.
//!
//! A channel that is busy is told of once a `TELL_INTERVAL`: of its newest message, whose offset says how much there is.
//! So what inboxes cost grows with the channels and not with what is said in them. Only who is mentioned is told at once.
//!
//! The queue is bounded: what it has no room for, or what a crash takes, is missed in the inbox alone; the list of one's
//! channels with its unread counts is always right.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::debug;
use xpush_protocol::{ChannelName, EventName, MessageId, Payload, UserId};

use super::{Node, inbox::inbox_of};
use crate::{publication::Draft, session::Refusal};

/// Messages that nobody has looked at yet. Full means that the store can't keep up with the inboxes: then some are not
/// told.
const UNTOLD_CAPACITY: usize = 4096;
/// Between two messages of a channel that are told: a badge on a phone need not count faster.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How often those that wait for that are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Members of a channel whose inboxes are told of its messages. In a larger one only those who are mentioned are.
const TOLD_MEMBERS: usize = 256;
/// Messages whose inboxes are being written at once.
const TELLING: usize = 64;
/// Authors of one message's telling whose cursors are written at once: each is a commit.
const MARKING: usize = 16;
/// Authors of a channel who are noted until it is told of. What others have read their own devices say.
const AUTHORS_KEPT: usize = 1024;
/// Bytes of a preview: a line on a phone's screen.
const PREVIEW: usize = 160;
/// A store that does not answer for as long is not waited for: the rest waits behind it.
const TELL_DEADLINE: Duration = Duration::from_secs(30);

/// A message that is in its log, and that members of its channel are to hear of.
#[derive(Debug, Clone)]
pub(super) struct Untold {
    channel: ChannelName,
    offset: u64,
    user: Option<UserId>,
    event: EventName,
    /// `None`: it must not be read in the inbox when it is gone elsewhere.
    payload: Option<Payload>,
    mentions: Vec<UserId>,
    /// It is not a message but tells that this one was deleted.
    deletes: Option<u64>,
}

/// What waits to be told.
pub(super) struct Inboxes {
    untold: mpsc::Sender<Untold>,
    waiting: Mutex<Option<mpsc::Receiver<Untold>>>,
}

/// A channel that was told of lately, or is being told of.
#[derive(Default)]
struct Lately {
    /// When a message was told last. `None`: only of a deletion.
    told: Option<Instant>,
    /// Its members' inboxes are being lined up: what comes after comes behind it in each.
    is_telling: bool,
    /// What is to be told as soon as that is done.
    next: VecDeque<Untold>,
    /// The newest message since.
    waiting: Option<Untold>,
    /// Who wrote since, and up to where each has read by that.
    authors: HashMap<UserId, u64>,
}

/// In the inbox: a message in one of the user's channels.
#[derive(Serialize)]
struct MessageNotice<'a> {
    channel: &'a ChannelName,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    event: &'a EventName,
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<&'a str>,
}

impl Default for Inboxes {
    fn default() -> Self {
        let (untold, waiting) = mpsc::channel(UNTOLD_CAPACITY);
        Self { untold, waiting: Mutex::new(Some(waiting)) }
    }
}

impl Untold {
    /// `draft`: as it was published; its place is not known yet.
    pub(super) fn new(channel: &ChannelName, draft: &Draft) -> Self {
        Self {
            channel: channel.clone(),
            offset: 0,
            user: draft.user.clone(),
            event: draft.event.clone(),
            payload: draft.expires_in.is_none().then(|| draft.payload.clone()),
            mentions: draft.mentions.clone(),
            deletes: draft.deletes(),
        }
    }
}

/// The id in an inbox of what is told of this message.
fn notice_id(channel: &ChannelName, offset: u64) -> Option<MessageId> {
    let digest = digest(&SHA256, channel.local().as_bytes());
    let channel = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]);
    format!("{channel}:{offset}").parse().ok()
}

/// The beginning of what a person would read.
fn preview(payload: &Payload) -> Option<String> {
    let Payload::Json(json) = payload else { return None };
    let value: serde_json::Value = serde_json::from_str(json.as_str()).ok()?;
    let text = value.as_str().or_else(|| value.get("text")?.as_str())?;
    let end = (0..=PREVIEW.min(text.len())).rev().find(|at| text.is_char_boundary(*at))?;
    Some(text[..end].to_owned())
}

/// A message to be told, and up to where who wrote has read by that.
type Due = (Untold, HashMap<UserId, u64>);

/// The channels that were told of lately, with what came since.
#[derive(Default)]
struct Pace {
    lately: HashMap<ChannelName, Lately>,
    /// Messages that are told as soon as their channel is not being told.
    next: usize,
}

impl Pace {
    /// Gives the message back if it is to be told now. Then the channel is told of nothing else until it is `done`.
    fn take(&mut self, untold: Untold) -> Option<Due> {
        let is_known = self.lately.contains_key(&untold.channel);
        let lately = self.lately.entry(untold.channel.clone()).or_default();
        if let Some(deleted) = untold.deletes {
            let untold = lately.waiting.iter_mut().chain(&mut lately.next);
            untold.filter(|untold| untold.offset == deleted).for_each(|untold| untold.payload = None);
        } else {
            let has_room = lately.authors.len() < AUTHORS_KEPT;
            if let Some(author) = untold.user.as_ref()
                && (has_room || lately.authors.contains_key(author))
            {
                lately.authors.insert(author.clone(), untold.offset);
            }
            if is_known && untold.mentions.is_empty() {
                lately.waiting = Some(untold);
                return None;
            }
            // This one is newer.
            lately.waiting = None;
        }
        if lately.is_telling {
            lately.next.push_back(untold);
            self.next += 1;
            return None;
        }
        Some(lately.begin(untold))
    }

    /// The channel was told: what is to be told of it at once.
    fn done(&mut self, channel: &ChannelName) -> Option<Due> {
        let lately = self.lately.get_mut(channel)?;
        lately.is_telling = false;
        let untold = lately.next.pop_front()?;
        self.next -= 1;
        Some(lately.begin(untold))
    }

    /// What has waited long enough. Channels without any are forgotten.
    fn due(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        self.lately.retain(|_, lately| {
            if lately.is_telling || lately.told.is_some_and(|at| at.elapsed() < TELL_INTERVAL) {
                return true;
            }
            let Some(untold) = lately.waiting.take() else { return false };
            due.push(lately.begin(untold));
            true
        });
        due
    }
}

impl Lately {
    fn begin(&mut self, untold: Untold) -> Due {
        self.is_telling = true;
        if untold.deletes.is_some() {
            return (untold, HashMap::new());
        }
        self.told = Some(Instant::now());
        (untold, std::mem::take(&mut self.authors))
    }
}

impl Node {
    /// A message is in its log: its channel's members are to hear of it.
    pub(super) fn told_of(&self, untold: Untold, offset: u64) {
        if self.inboxes.untold.try_send(Untold { offset, ..untold }).is_err() {
            self.metrics.inbox_missed();
        }
    }

    /// Tells the members what was published, in the order in which it was.
    pub(super) async fn tell_inboxes(self: &Arc<Self>) {
        let waiting = self.inboxes.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // There is one `tend`.
        let Some(mut waiting) = waiting else { return };
        // Of each channel there is one at most in `due` and `lining` together.
        let (mut pace, mut due) = (Pace::default(), VecDeque::new());
        let (mut lining, mut writing) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while lining.len() + writing.len() < TELLING
                && let Some((untold, authors)) = due.pop_front()
            {
                lining.push(self.tell_message(untold, authors));
            }
            let has_room = lining.len() + writing.len() < TELLING;
            tokio::select! {
                untold = waiting.recv(), if has_room && pace.next < UNTOLD_CAPACITY => match untold {
                    Some(untold) => due.extend(pace.take(untold)),
                    None => return,
                },
                Some((channel, written)) = lining.next() => {
                    due.extend(pace.done(&channel));
                    writing.push(async move {
                        let _ = timeout(TELL_DEADLINE, join_all(written)).await;
                    });
                }
                Some(()) = writing.next() => {}
                _ = looks.tick(), if has_room => due.extend(pace.due()),
            }
        }
    }

    /// Puts one message into the inboxes' lines. What it gives with the channel resolve once it is in all of them.
    async fn tell_message(
        self: &Arc<Self>,
        untold: Untold,
        authors: HashMap<UserId, u64>,
    ) -> (ChannelName, Vec<super::Publishing>) {
        let mut written = Vec::new();
        let lined_up = timeout(TELL_DEADLINE, self.line_up_all(&untold, authors, &mut written)).await;
        let error = match lined_up {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.message),
            Err(_) => Some("the store takes too long".into()),
        };
        if let Some(error) = error {
            debug!(channel = %untold.channel, error, "its members can't be told");
        }
        (untold.channel, written)
    }

    async fn line_up_all(
        self: &Arc<Self>,
        untold: &Untold,
        authors: HashMap<UserId, u64>,
        written: &mut Vec<super::Publishing>,
    ) -> Result<(), Refusal> {
        let hearers = self.hearers(untold, authors).await?;
        let Untold { channel, offset, user, event, payload, deletes, .. } = untold;
        let may_preview = self.directory.policy(&channel.app()).await.is_ok_and(|app| app.preview);
        let preview = payload.as_ref().filter(|_| may_preview).and_then(preview);
        let offset = deletes.unwrap_or(*offset);
        let id = notice_id(channel, offset);
        for (hearer, what) in hearers {
            let (user, preview) = (user.as_ref(), preview.as_deref());
            let notice = MessageNotice { channel, offset, user, event, preview };
            match self.line_up(&hearer, what, &notice, id.clone()).await {
                Ok(publishing) => {
                    // There may be many, and none is to wait for the others to get in line.
                    let publishing = self.by_itself(publishing);
                    let is_deletion = deletes.is_some();
                    written.push(if is_deletion { self.retract(&hearer, publishing) } else { publishing });
                }
                Err(error) => debug!(user = %hearer, error = error.message, "not told"),
            }
        }
        Ok(())
    }

    /// A message was deleted, so what the inbox has of it goes too. `said_again`: under the id of that, which so is found.
    /// If it is not there, what is there now says that the message was deleted.
    fn retract(self: &Arc<Self>, user: &UserId, said_again: super::Publishing) -> super::Publishing {
        let (node, inbox) = (Arc::clone(self), inbox_of(user));
        let retracted = async move {
            let (place, was_there) = said_again.await?;
            if was_there {
                node.redact(&inbox, place.offset, None).await?;
            }
            Ok((place, was_there))
        };
        retracted.boxed()
    }

    /// Who hears of a message, and as what.
    async fn hearers(
        &self,
        untold: &Untold,
        authors: HashMap<UserId, u64>,
    ) -> Result<Vec<(UserId, &'static str)>, Refusal> {
        let Untold { channel, user, mentions, deletes, .. } = untold;
        let marking = stream::iter(authors).for_each_concurrent(MARKING, |(author, offset)| async move {
            // Who writes has read what was there. In a public channel he need not be a member.
            if let Err(error) = self.directory.mark_read(channel, &author, offset).await {
                debug!(%channel, %author, %error, "what an author has read can't be kept");
            }
        });
        marking.await;
        let members = self.directory.hearers(channel, mentions, TOLD_MEMBERS).await?;
        let all = members.iter().filter_map(|(member, notify)| {
            // The author's other devices show what this one said, whatever the author wants to be told of others.
            let is_author = Some(member) == user.as_ref();
            let is_mentioned = !is_author && mentions.contains(member);
            let what = if is_mentioned { "mention" } else { "message" };
            // What was told once is taken back from everybody.
            (is_author || deletes.is_some() || notify.hears(is_mentioned)).then(|| (member.clone(), what))
        });
        Ok(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> ChannelName {
        "chat:a".parse().unwrap()
    }

    fn untold(offset: u64, user: &str, mentions: &[&str]) -> Untold {
        Untold {
            channel: channel(),
            offset,
            user: Some(user.parse().unwrap()),
            event: EventName::default(),
            payload: None,
            mentions: mentions.iter().map(|name| name.parse().unwrap()).collect(),
            deletes: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_channel_is_told_of_once_an_interval_with_all_of_its_authors() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(untold(1, "ann", &[])).unwrap().0.offset, 1);
        assert!(pace.done(&channel()).is_none());
        assert!(pace.take(untold(2, "ann", &[])).is_none() && pace.take(untold(3, "bob", &[])).is_none());
        assert!(pace.due().is_empty());
        tokio::time::advance(TELL_INTERVAL).await;
        let due = pace.due();
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].0.offset, 3);
        let read: HashMap<_, _> = due[0].1.iter().map(|(user, offset)| (user.local(), *offset)).collect();
        assert_eq!(read, HashMap::from([("ann", 2), ("bob", 3)]));
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(pace.due().is_empty() && pace.done(&channel()).is_none());
        assert!(pace.due().is_empty() && pace.lately.is_empty(), "a silent channel is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mention_does_not_wait() {
        let mut pace = Pace::default();
        pace.take(untold(1, "ann", &[])).unwrap();
        assert!(pace.done(&channel()).is_none());
        assert!(pace.take(untold(2, "bob", &[])).is_none());
        let (told, authors) = pace.take(untold(3, "ann", &["cid"])).unwrap();
        assert_eq!((told.offset, authors.len()), (3, 2));
        assert!(pace.done(&channel()).is_none());
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(pace.due().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_is_being_told_is_told_the_rest_afterwards_and_in_order() {
        let mut pace = Pace::default();
        pace.take(untold(1, "ann", &[])).unwrap();
        let said = Payload::Json(xpush_protocol::Json::parse("1").unwrap());
        let mention = Untold { payload: Some(said), ..untold(2, "ann", &["cid"]) };
        let deletion = Untold { deletes: Some(2), ..untold(3, "ann", &[]) };
        for later in [mention, deletion, untold(4, "bob", &[])] {
            assert!(pace.take(later).is_none());
        }
        let elsewhere = Untold { channel: "chat:b".parse().unwrap(), ..untold(1, "ann", &[]) };
        assert!(pace.take(elsewhere).is_some(), "another channel does not wait for it");
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(pace.due().is_empty());
        let (told, authors) = pace.done(&channel()).unwrap();
        assert_eq!((told.offset, authors.len()), (2, 2));
        assert!(told.payload.is_none(), "it was deleted meanwhile");
        let (told, authors) = pace.done(&channel()).unwrap();
        assert_eq!((told.deletes, authors.len()), (Some(2), 0));
        assert!(pace.done(&channel()).is_none() && pace.next == 0);
        tokio::time::advance(TELL_INTERVAL).await;
        assert_eq!(pace.due()[0].0.offset, 4);
    }

    #[test]
    fn a_preview_is_the_beginning_of_what_is_read() {
        let json = |text: &str| Payload::Json(xpush_protocol::Json::parse(text).unwrap());
        assert_eq!(preview(&json(r#"{"text":"hi","n":1}"#)).as_deref(), Some("hi"));
        assert_eq!(preview(&json(r#""hi""#)).as_deref(), Some("hi"));
        assert_eq!(preview(&json("[1]")), None);
        let long = format!("\"{}\"", "ä".repeat(PREVIEW));
        assert_eq!(preview(&json(&long)).unwrap().len(), PREVIEW);
    }
}
