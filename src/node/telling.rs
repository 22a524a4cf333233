//! Messages told in the inboxes of their channel's members, after they are acknowledged.
//!
//! A channel that is busy is told of once a `TELL_INTERVAL`: of its newest message, whose offset says how much there is.
//! So what inboxes cost grows with the channels and not with what is said in them. Only who is mentioned is told at once.
//!
//! The queue is bounded: what it has no room for, or what a crash takes, is missed in the inbox alone; the list of one's
//! channels with its unread counts is always right.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
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

/// A channel that was told of lately.
struct Lately {
    told: Instant,
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

/// The channels that were told of lately, with what came since.
#[derive(Default)]
struct Pace(HashMap<ChannelName, Lately>);

impl Pace {
    /// Gives the message back if it is to be told now.
    fn take(&mut self, untold: Untold) -> Option<(Untold, HashMap<UserId, u64>)> {
        let mut lately = self.0.get_mut(&untold.channel);
        if let Some(deleted) = untold.deletes {
            let waiting = lately.as_mut().and_then(|lately| lately.waiting.as_mut());
            if let Some(waiting) = waiting.filter(|waiting| waiting.offset == deleted) {
                waiting.payload = None;
            }
            return Some((untold, HashMap::new()));
        }
        let Some(lately) = lately else {
            let authors = untold.user.clone().map(|author| (author, untold.offset)).into_iter().collect();
            let told = Lately { told: Instant::now(), waiting: None, authors: HashMap::new() };
            self.0.insert(untold.channel.clone(), told);
            return Some((untold, authors));
        };
        if let Some(author) = &untold.user {
            lately.authors.insert(author.clone(), untold.offset);
        }
        if untold.mentions.is_empty() {
            lately.waiting = Some(untold);
            return None;
        }
        *lately =
            Lately { told: Instant::now(), waiting: None, authors: std::mem::take(&mut lately.authors) };
        Some((untold, std::mem::take(&mut lately.authors)))
    }

    /// What has waited long enough. Channels without any are forgotten.
    fn due(&mut self) -> Vec<(Untold, HashMap<UserId, u64>)> {
        let mut due = Vec::new();
        self.0.retain(|_, lately| {
            if lately.told.elapsed() < TELL_INTERVAL {
                return true;
            }
            let Some(untold) = lately.waiting.take() else { return false };
            due.push((untold, std::mem::take(&mut lately.authors)));
            lately.told = Instant::now();
            true
        });
        due
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
        let (mut pace, mut telling) = (Pace::default(), FuturesUnordered::new());
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                untold = waiting.recv(), if telling.len() < TELLING => match untold {
                    Some(untold) => pace.take(untold).into_iter().collect(),
                    None => return,
                },
                Some(()) = telling.next() => continue,
                _ = looks.tick(), if telling.len() < TELLING => pace.due(),
            };
            for (untold, authors) in due {
                let written = self.tell_message(untold, authors).await;
                telling.push(written);
            }
        }
    }

    /// Puts one message into the inboxes' lines. What it gives resolves once it is in all of them.
    async fn tell_message(
        self: &Arc<Self>,
        untold: Untold,
        authors: HashMap<UserId, u64>,
    ) -> impl Future<Output = ()> + use<> {
        let mut written = Vec::new();
        match self.hearers(&untold, authors).await {
            Ok(hearers) => {
                let Untold { channel, offset, user, event, payload, deletes, .. } = &untold;
                let may_preview = self.directory.policy(&channel.app()).await.is_ok_and(|app| app.preview);
                let preview = payload.as_ref().filter(|_| may_preview).and_then(preview);
                let offset = deletes.unwrap_or(*offset);
                let id = notice_id(channel, offset);
                for (hearer, what) in hearers {
                    let (user, preview) = (user.as_ref(), preview.as_deref());
                    let notice = MessageNotice { channel, offset, user, event, preview };
                    match self.line_up(&hearer, what, &notice, id.clone()).await {
                        Ok(publishing) if deletes.is_some() => {
                            written.push(self.retract(&hearer, publishing));
                        }
                        Ok(publishing) => written.push(publishing),
                        Err(error) => debug!(user = %hearer, error = error.message, "not told"),
                    }
                }
            }
            Err(error) => {
                debug!(channel = %untold.channel, error = error.message, "its members can't be told");
            }
        }
        async move {
            let _ = timeout(TELL_DEADLINE, join_all(written)).await;
        }
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
        for (author, offset) in authors {
            // Who writes has read what was there. In a public channel he need not be a member.
            if let Err(error) = self.directory.mark_read(channel, &author, offset).await {
                debug!(%channel, %author, %error, "what an author has read can't be kept");
            }
        }
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

    fn untold(offset: u64, user: &str, mentions: &[&str]) -> Untold {
        Untold {
            channel: "chat:a".parse().unwrap(),
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
        assert!(pace.take(untold(2, "ann", &[])).is_none() && pace.take(untold(3, "bob", &[])).is_none());
        assert!(pace.due().is_empty());
        tokio::time::advance(TELL_INTERVAL).await;
        let due = pace.due();
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].0.offset, 3);
        let read: HashMap<_, _> = due[0].1.iter().map(|(user, offset)| (user.local(), *offset)).collect();
        assert_eq!(read, HashMap::from([("ann", 2), ("bob", 3)]));
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(pace.due().is_empty() && pace.0.is_empty(), "a silent channel is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mention_does_not_wait() {
        let mut pace = Pace::default();
        pace.take(untold(1, "ann", &[])).unwrap();
        assert!(pace.take(untold(2, "bob", &[])).is_none());
        let (told, authors) = pace.take(untold(3, "ann", &["cid"])).unwrap();
        assert_eq!((told.offset, authors.len()), (3, 2));
        tokio::time::advance(TELL_INTERVAL).await;
        assert!(pace.due().is_empty());
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
