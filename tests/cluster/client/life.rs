//! What a client keeps over all its connections: where it stands in each channel, and what it published and has not
//! been told of.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use xpush::client::{Sequence, Step, Via};
use xpush_protocol::{
    ChannelName, ClientFrame, Codec, Connect, Cursor, Epoch, ErrorCode, EventName, Gap, Json, Publication,
    Publish, Resubscribe, ServerFrame, Subscribe, Subscribed, UnsubscribeReason,
};

use super::{Doors, Part, Phase, Recovery, Stage, Tamper, View};
use crate::{
    history::{ChannelNumber, Event, Message, Missing},
    random::Random,
};

/// Publishes that wait for their answer at once; the rest of the timetable waits here.
const IN_FLIGHT: usize = 32;
/// After so long an answer counts as lost, where it may be: on a wire that goes to other nodes by itself.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Before what was refused for now is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// A right is lost for so long, and held for so long.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(3);
/// Commands of its own, whose answers are known by these; publishes count up from 1.
const CONNECT_ID: u32 = u32::MAX;
const SUBSCRIBE_ID: u32 = u32::MAX - 1;
const PING_ID: u32 = u32::MAX - 2;
const REFRESH_ID: u32 = u32::MAX - 3;

pub(super) struct Life<D> {
    pub(super) stage: Arc<Stage<D>>,
    part: Part,
    view: Arc<View>,
    random: Random,
    state: Option<String>,
    channels: BTreeMap<ChannelName, Listening>,
    /// To be sent, in order: what the timetable brought, and what was not answered.
    backlog: VecDeque<Publishing>,
    /// Sent over this connection, by command.
    waiting: HashMap<u32, Publishing>,
    /// The frames of this connection come as they were written.
    ordered: bool,
    /// The connection came to another node by itself: answers that were under way may be lost.
    moved: bool,
    /// It said hello, and has no answer. Its rights stay as they are until then.
    is_moving: bool,
    /// An answer to `refresh` came meanwhile, and was not taken.
    missed_refresh: bool,
    next_command: u32,
    next_number: u32,
    /// When the timetable has the next one.
    next_publish: Option<Instant>,
    held_until: Option<Instant>,
    pub(super) last_heard: Instant,
    /// It was live, and is not: since when nothing came, and whether it was asked to go.
    interrupted: Option<(Instant, bool)>,
    /// When the right to the first channel changes next, and whether the client has it.
    right: Option<(Instant, bool)>,
}

struct Listening {
    number: ChannelNumber,
    /// Where it stands. `None`: it never had a subscription.
    sequence: Option<Sequence>,
    /// What overtook the `subscribed` that it belongs to, on a wire of several streams.
    early: Vec<Step>,
    /// Of the first subscription on this connection.
    epoch: Option<Epoch>,
    live: bool,
    /// It lost the right, and does not ask.
    barred: bool,
    /// Its subscription is to be asked for (again) at this time.
    ask_at: Option<Instant>,
    /// The last time that it was asked for, with a cursor.
    resumes: bool,
    /// What the last hello said of it.
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Anew,
    /// To go on behind there.
    Behind(Cursor),
}

struct Publishing {
    channel: ChannelNumber,
    message: Message,
    attempts: u32,
    sent: Instant,
}

/// What a frame means for the connection.
pub(super) enum Turn {
    On,
    /// It is asked to be elsewhere after this time.
    Leave(Duration),
    /// Nothing comes of this connection.
    GiveUp,
}

impl<D: Doors> Life<D> {
    pub(super) fn new(stage: Arc<Stage<D>>, part: Part, view: Arc<View>) -> Self {
        let listening = |number: &ChannelNumber| {
            let name = stage.history.streams[number.0 as usize].name.clone();
            let listening = Listening {
                number: *number,
                sequence: None,
                early: Vec::new(),
                epoch: None,
                live: false,
                barred: false,
                ask_at: None,
                resumes: false,
                asked: Asked::Nothing,
            };
            (name, listening)
        };
        Self {
            channels: part.listens.iter().map(listening).collect(),
            random: part.random.clone(),
            part,
            view,
            stage,
            state: None,
            backlog: VecDeque::new(),
            waiting: HashMap::new(),
            ordered: true,
            moved: false,
            is_moving: false,
            missed_refresh: false,
            next_command: 0,
            next_number: 1,
            next_publish: None,
            held_until: None,
            last_heard: Instant::now(),
            interrupted: None,
            right: None,
        }
    }

    fn add(&self, event: Event) {
        self.stage.history.add(self.part.number, event);
    }

    /// The first frame of a connection: who it is, and where it stands. The connection before it may go on.
    pub(super) fn hello(&mut self) -> ClientFrame {
        self.add(Event::Asked);
        let forgotten = (self.part.tamper == Tamper::ForgetsOne && self.state.is_some())
            .then(|| self.channels.keys().next().cloned())
            .flatten();
        let tamper = self.part.tamper;
        let mut subscriptions = Vec::new();
        for (name, listening) in &mut self.channels {
            listening.asked = Asked::Nothing;
            if listening.barred || forgotten.as_ref() == Some(name) {
                continue;
            }
            let cursor = listening.sequence.as_ref().map(Sequence::cursor);
            listening.asked = cursor.map_or(Asked::Anew, Asked::Behind);
            let cursor = cursor.map(|cursor| tampered(tamper, cursor));
            subscriptions.push(Resubscribe { channel: name.clone(), cursor });
        }
        self.is_moving = true;
        self.count_unanswered();
        ClientFrame::Connect(Connect {
            id: CONNECT_ID,
            token: Some(self.token(self.channels.values().any(|listening| listening.barred))),
            state: self.state.clone(),
            subscriptions,
            ..Connect::default()
        })
    }

    /// The node let it in: its frames are what counts from now on.
    pub(super) fn adopt(&mut self, node: usize, ordered: bool) {
        self.part.node = node;
        self.ordered = ordered;
        self.add(Event::Connected { ordered });
        self.last_heard = Instant::now();
        self.moved_or_not();
        for listening in self.channels.values_mut() {
            listening.live = false;
            listening.early.clear();
            listening.epoch = None;
            listening.ask_at = None;
            listening.resumes = false;
            if let Asked::Behind(cursor) = listening.asked {
                listening.resumes = true;
                // What the connection before brought meanwhile comes again: it is not counted on.
                listening.sequence = Some(Sequence::new(cursor, false));
            }
            // The connection before may have taken the right meanwhile.
            listening.barred &= listening.asked == Asked::Nothing;
        }
        // What was under way goes again, before what was not sent yet.
        let mut again: Vec<_> = self.waiting.drain().map(|(_, publishing)| publishing).collect();
        again.sort_by_key(|publishing| std::cmp::Reverse(publishing.message.number));
        again.into_iter().for_each(|publishing| self.backlog.push_front(publishing));
        self.moved = false;
    }

    /// The node did not let it in, and may have said why.
    pub(super) fn not_adopted(&mut self, why: Option<ErrorCode>) {
        self.moved_or_not();
        if why == Some(ErrorCode::InvalidState) {
            self.state = None;
        }
    }

    fn moved_or_not(&mut self) {
        self.is_moving = false;
        if std::mem::take(&mut self.missed_refresh) {
            // It is asked for again: as if the change had not been made yet.
            self.right = self.right.map(|(_, has)| (Instant::now(), !has));
        }
    }

    fn token(&self, narrow: bool) -> String {
        let listens: Vec<_> =
            self.channels.keys().skip(usize::from(narrow)).map(ChannelName::as_str).collect();
        (self.stage.token)(&format!("c{}", self.part.number.0), &listens)
    }

    /// The connection is over.
    pub(super) fn interrupt(&mut self, drained: bool) {
        if self.view.is_live() {
            self.interrupted = Some((self.last_heard, drained));
        }
        if drained { self.view.move_on() } else { self.view.go_away() }
    }

    pub(super) fn is_live(&self) -> bool {
        self.view.is_live()
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self) -> Instant {
        let asks = self.channels.values().filter_map(|listening| listening.ask_at);
        let publish = self.held_until.or(self.next_publish).filter(|_| self.waiting.len() < IN_FLIGHT);
        let again = self.waiting.values().map(|publishing| publishing.sent + ANSWERED_WITHIN);
        let again = again.filter(|_| self.moved).min();
        let right = self.right.map(|(at, _)| at).filter(|_| self.is_live() && !self.is_moving);
        let far = Instant::now() + Duration::from_secs(60);
        asks.chain(publish).chain(right).chain(again).min().unwrap_or(far)
    }

    /// What is to be sent now.
    pub(super) fn due(&mut self, phase: Phase) -> Vec<ClientFrame> {
        let now = Instant::now();
        let mut frames = Vec::new();
        self.ask(now, &mut frames);
        if phase == Phase::Gather {
            return frames;
        }
        if self.is_live() && !self.is_moving {
            self.change_rights(now, phase, &mut frames);
        }
        self.follow_timetable(now, phase);
        if self.held_until.is_some_and(|until| until <= now) {
            self.held_until = None;
        }
        if self.moved {
            let is_old = |publishing: &Publishing| publishing.sent + ANSWERED_WITHIN <= now;
            let old: Vec<_> = self.waiting.extract_if(|_, publishing| is_old(publishing)).collect();
            frames.extend(old.into_iter().map(|(id, publishing)| self.publish(id, publishing)));
        }
        while self.held_until.is_none() && self.waiting.len() < IN_FLIGHT {
            let Some(publishing) = self.backlog.pop_front() else { break };
            self.next_command += 1;
            frames.push(self.publish(self.next_command, publishing));
        }
        self.count_unanswered();
        frames
    }

    fn ask(&mut self, now: Instant, frames: &mut Vec<ClientFrame>) {
        let tamper = self.part.tamper;
        for (name, listening) in &mut self.channels {
            if listening.ask_at.is_some_and(|at| at <= now) {
                listening.ask_at = None;
                let cursor = listening.sequence.as_ref().map(|sequence| tampered(tamper, sequence.cursor()));
                listening.resumes = cursor.is_some();
                let channel = name.clone();
                frames.push(ClientFrame::Subscribe(Subscribe {
                    id: SUBSCRIBE_ID,
                    channel,
                    cursor,
                    last: None,
                }));
            }
        }
    }

    /// The timetable goes on whether the client is connected or not.
    fn follow_timetable(&mut self, now: Instant, phase: Phase) {
        let Some(every) = self.part.every else { return };
        if phase != Phase::Publish {
            self.next_publish = None;
            return;
        }
        let mut next = *self.next_publish.get_or_insert_with(|| now + self.random.up_to(every));
        while next <= now {
            next += every;
            let message = Message { publisher: self.part.number, number: self.next_number };
            self.next_number += 1;
            let channel = *self.random.pick(&self.part.speaks);
            self.backlog.push_back(Publishing { channel, message, attempts: 0, sent: now });
        }
        self.next_publish = Some(next);
    }

    fn publish(&mut self, id: u32, mut publishing: Publishing) -> ClientFrame {
        let Publishing { channel, message, attempts, .. } = publishing;
        self.add(Event::Invoked(channel, message));
        let renamed = attempts > 0 && self.part.tamper == Tamper::RenamesRetry;
        let message_id = if renamed { format!("{message}.{attempts}") } else { message.to_string() };
        publishing.attempts += 1;
        publishing.sent = Instant::now();
        self.waiting.insert(id, publishing);
        ClientFrame::Publish(Publish {
            id,
            channel: self.stage.history.streams[channel.0 as usize].name.clone(),
            message_id: message_id.parse().ok(),
            event: EventName::default(),
            data: Json::from_value(&data(message, self.stage.payload)).ok(),
            binary: None,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        })
    }

    fn count_unanswered(&self) {
        // Who is moving may be told again what it has, and is not done.
        let unanswered = self.waiting.len() + self.backlog.len() + usize::from(self.is_moving);
        self.view.unanswered.store(unanswered, Ordering::Relaxed);
    }

    /// Gives a right up, or takes it back, by a token of its own.
    fn change_rights(&mut self, now: Instant, phase: Phase, frames: &mut Vec<ClientFrame>) {
        if !self.part.loses_rights {
            return;
        }
        let (at, has) = *self.right.get_or_insert((now + RIGHTS_INTERVAL, true));
        // In the end it has what it is entitled to.
        if at > now && (has || phase == Phase::Publish) {
            return;
        }
        if has && phase != Phase::Publish {
            self.right = Some((now + RIGHTS_INTERVAL, true));
            return;
        }
        let has = !has;
        self.right = Some((now + RIGHTS_INTERVAL, has));
        let narrow = !has && self.part.tamper != Tamper::KeepsRight;
        frames.push(ClientFrame::Refresh(xpush_protocol::Refresh {
            id: REFRESH_ID,
            token: self.token(narrow),
        }));
    }

    /// The server took the new token.
    fn refreshed(&mut self) {
        // The hello was said with the rights from before.
        if self.is_moving {
            self.missed_refresh = true;
            return;
        }
        let Some((_, has)) = self.right else { return };
        let Some(listening) = self.channels.values_mut().next() else { return };
        let number = listening.number;
        listening.barred = !has;
        if has {
            listening.ask_at = Some(Instant::now());
            self.add(Event::Granted(number));
        } else {
            listening.ask_at = None;
            self.add(Event::Revoked(number));
        }
    }

    /// Any node but the last one.
    pub(super) fn another_node(&mut self) -> usize {
        let nodes = self.stage.doors.count();
        (self.part.node + 1 + self.random.below((nodes as u64 - 1).max(1)) as usize) % nodes
    }

    /// How this client connects.
    pub(super) fn wire(&self) -> (Via, Codec) {
        (self.part.via, self.part.codec)
    }

    pub(super) fn take(&mut self, frame: ServerFrame) -> Turn {
        match frame {
            ServerFrame::Connected(connected) => {
                self.state = Some(connected.state);
                // A poll came to another node: the answers that waited at the one before are gone.
                self.moved |= connected.id == 0;
                // Who has no right to anything has nothing to wait for.
                self.note_recovery();
            }
            ServerFrame::Subscribed(subscribed) => return self.subscribed(subscribed),
            ServerFrame::Publication(publication) => self.publication(publication),
            ServerFrame::Gap(gap) => self.gap(gap),
            ServerFrame::Published(published) => {
                if let Some(Publishing { channel, message, .. }) = self.waiting.remove(&published.id) {
                    let (cursor, duplicate) = (published.cursor, published.duplicate);
                    self.add(Event::Acknowledged { channel, message, cursor, duplicate });
                    self.count_unanswered();
                }
            }
            ServerFrame::Unsubscribed(unsubscribed) => {
                self.unsubscribed(&unsubscribed.channel, unsubscribed.reason);
            }
            ServerFrame::Refreshed(_) => self.refreshed(),
            ServerFrame::Error(error) => return self.error(error),
            ServerFrame::Draining(draining) => {
                return Turn::Leave(Duration::from_millis(u64::from(draining.reconnect_in)));
            }
            _ => {}
        }
        Turn::On
    }

    fn subscribed(&mut self, subscribed: Subscribed) -> Turn {
        let Some(listening) = self.channels.get_mut(&subscribed.channel) else { return Turn::On };
        let Subscribed { cursor, gap, ephemeral, .. } = subscribed;
        if *listening.epoch.get_or_insert(cursor.epoch) != cursor.epoch && !self.ordered {
            // What is late of the first subscription could not be told from the second one's.
            return Turn::GiveUp;
        }
        let number = listening.number;
        // A wire that goes on at another node by itself says so unasked.
        let resumed = listening.resumes || listening.live;
        listening.live = true;
        let mut sequence = Sequence::new(cursor, ephemeral);
        for step in listening.early.drain(..) {
            take(&mut sequence, step);
        }
        self.view.set(number, sequence.cursor());
        listening.sequence = Some(sequence);
        let gap = gap.map(|gap| missing(&gap));
        self.add(Event::Subscribed { channel: number, cursor, resumed, gap });
        self.note_recovery();
        Turn::On
    }

    fn note_recovery(&mut self) {
        if self.is_live() || !self.channels.values().all(|listening| listening.live || listening.barred) {
            return;
        }
        self.view.come_home();
        if let Some((since, drained)) = self.interrupted.take() {
            let recovery =
                Recovery { at: self.stage.history.now(), via: self.part.via, took: since.elapsed(), drained };
            let mut recoveries =
                self.stage.recoveries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            recoveries.push(recovery);
        }
    }

    fn publication(&mut self, publication: Publication) {
        let Some(listening) = self.channels.get_mut(&publication.channel) else { return };
        let number = listening.number;
        let (epoch, offset) = (publication.epoch, publication.offset);
        let text = publication.data.as_ref().map_or("", |data| data.as_str());
        let said = text.trim_matches('"').split(' ').next().and_then(Message::parse);
        let Some(message) = Message::parse(publication.message_id.as_str()) else { return };
        let intact = said == Some(message);
        self.step(&publication.channel.clone(), Step::Publication(Box::new(publication)));
        self.add(Event::Delivered { channel: number, epoch, offset, message, intact });
    }

    fn gap(&mut self, gap: Gap) {
        let Some(listening) = self.channels.get_mut(&gap.channel) else { return };
        let number = listening.number;
        let told = missing(&gap);
        self.step(&gap.channel.clone(), Step::Gap(gap));
        self.add(Event::Gap(number, told));
    }

    /// Puts it in order, once there is a subscription that it belongs to.
    fn step(&mut self, channel: &ChannelName, step: Step) {
        let Some(listening) = self.channels.get_mut(channel) else { return };
        if !listening.live {
            listening.early.push(step);
        } else if let Some(sequence) = &mut listening.sequence {
            take(sequence, step);
            self.view.set(listening.number, sequence.cursor());
        }
    }

    fn unsubscribed(&mut self, channel: &ChannelName, reason: UnsubscribeReason) {
        let Some(listening) = self.channels.get_mut(channel) else { return };
        listening.live = false;
        let number = listening.number;
        match reason {
            UnsubscribeReason::Revoked => listening.barred = true,
            UnsubscribeReason::LogUnavailable | UnsubscribeReason::TokenExpired => {
                listening.ask_at = Some(Instant::now() + RETRY_PAUSE);
                self.view.go_away();
                self.add(Event::BrokenOff(number));
                return;
            }
            UnsubscribeReason::Requested => {}
        }
        self.view.unset(number);
        self.add(Event::Unsubscribed(number));
    }

    fn error(&mut self, error: xpush_protocol::Error) -> Turn {
        let code = error.code;
        let pause = error.retry_after.map_or(RETRY_PAUSE, |millis| Duration::from_millis(millis.into()));
        let again = Instant::now() + pause;
        match (error.id, error.channel) {
            (Some(CONNECT_ID | SUBSCRIBE_ID) | Some(0), Some(channel)) => {
                let Some(listening) = self.channels.get_mut(&channel) else { return Turn::On };
                if code.may_retry() {
                    listening.ask_at = Some(again);
                } else if code == ErrorCode::NotSupported {
                    // What is sent beside a poll may come to another node, which subscribes for nobody.
                    return Turn::GiveUp;
                } else if code != ErrorCode::AlreadySubscribed && !listening.barred {
                    let number = listening.number;
                    self.add(Event::TurnedAway(number));
                }
                Turn::On
            }
            (Some(CONNECT_ID), None) => Turn::GiveUp,
            (Some(id), _) => {
                let Some(publishing) = self.waiting.remove(&id) else { return Turn::On };
                if code.may_retry() {
                    self.held_until = Some(again);
                    self.backlog.push_front(publishing);
                } else {
                    self.add(Event::Refused(publishing.channel, publishing.message));
                }
                self.count_unanswered();
                Turn::On
            }
            (None, _) => Turn::On,
        }
    }

    pub(super) fn ping() -> ClientFrame {
        ClientFrame::Ping(xpush_protocol::Ping { id: PING_ID })
    }
}

fn tampered(tamper: Tamper, cursor: Cursor) -> Cursor {
    match tamper {
        Tamper::SkipsOne => Cursor { offset: cursor.offset + 1, ..cursor },
        Tamper::RepeatsOne => Cursor { offset: cursor.offset.saturating_sub(1), ..cursor },
        _ => cursor,
    }
}

/// What overflows is missing in the end, and found by that.
fn take(sequence: &mut Sequence, step: Step) {
    let _ = match step {
        Step::Publication(publication) => sequence.publication(*publication),
        Step::Gap(gap) => sequence.gap(gap),
    };
}

fn missing(gap: &Gap) -> Missing {
    Missing { epoch: gap.epoch, from: gap.from, to: gap.to }
}

/// Says which message it is, and is as long as asked for.
fn data(message: Message, length: usize) -> String {
    let mut text = format!("{message} ");
    text.extend(std::iter::repeat_n('x', length.saturating_sub(text.len())));
    text
}
