//! A broker between the nodes of one process: it routes as a real one does, and loses, repeats, delays and reorders as
//! much as it is told. All of that a broker may do.
//!
//! What it may not do is a lie, and can be planted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use xpush::{
    broker::{Broker, BrokerError, Carried, Inbox, Topic},
    membership::NodeId,
    publication::Publication,
};
use xpush_protocol::{ChannelName, Cursor};

use crate::random::Random;

/// On the way to one node; a further one is lost, as a broker may.
const ON_THE_WAY: usize = 4096;

/// What a broker may do with what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Out of a hundred.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// At most; what is delayed more is overtaken.
    pub(crate) delay: Duration,
}

/// What a broker must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// It knows no tops but the first that it saw.
    StaleTops,
    /// Gives a publication the place of another.
    Renumbers,
    /// Carries a publication to another channel's subscribers.
    MisdirectsChannels,
}

/// What carries between the nodes.
pub(crate) struct Hub {
    weather: Weather,
    lie: Lie,
    state: Mutex<State>,
}

struct State {
    random: Random,
    nodes: HashMap<usize, Listener>,
    tops: HashMap<ChannelName, Cursor>,
    last: Option<(ChannelName, Arc<Publication>)>,
    /// It is out of everybody's reach.
    is_away: bool,
    /// Which nodes were asked to append for others.
    appenders: HashSet<NodeId>,
    /// Carries to each node what is due.
    carrying: JoinSet<()>,
}

struct Listener {
    topics: HashMap<Topic, usize>,
    way: mpsc::Sender<(Instant, Carried)>,
}

/// One node's end of the hub.
pub(crate) struct Spoke {
    hub: Arc<Hub>,
    node: usize,
}

impl Hub {
    pub(crate) fn new(weather: Weather, lie: Lie, random: Random) -> Arc<Self> {
        let state = State {
            random,
            nodes: HashMap::new(),
            tops: HashMap::new(),
            last: None,
            is_away: false,
            appenders: HashSet::new(),
            carrying: JoinSet::new(),
        };
        Arc::new(Self { weather, lie, state: Mutex::new(state) })
    }

    /// A node comes, or comes back.
    pub(crate) fn join(self: &Arc<Self>, node: usize, inbox: Arc<Inbox>) -> Spoke {
        let (way, due) = mpsc::channel(ON_THE_WAY);
        let mut state = self.state();
        let topics = HashMap::from([(Topic::Node(inbox.node().clone()), 1)]);
        state.carrying.spawn(carry(Arc::downgrade(self), node, inbox, due));
        state.nodes.insert(node, Listener { topics, way });
        Spoke { hub: Arc::clone(self), node }
    }

    /// A node is gone.
    pub(crate) fn part(&self, node: usize) {
        self.state().nodes.remove(&node);
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// Which nodes were asked to append for others, since the last call.
    pub(crate) fn take_appenders(&self) -> HashSet<NodeId> {
        std::mem::take(&mut self.state().appenders)
    }

    fn publish(&self, from: usize, carried: Carried) -> Result<usize, BrokerError> {
        let mut state = self.state();
        if let Carried::Append { node, .. } = &carried {
            state.appenders.insert(node.clone());
        }
        if state.is_away {
            return Err(BrokerError { reason: "it is away".into() });
        }
        let State { random, nodes, tops, last, .. } = &mut *state;
        self.note_top(tops, &carried);
        let carried = self.twisted(last, carried);
        let topic = carried.topic();
        let mut count = 0;
        for (_, listener) in
            nodes.iter().filter(|(node, listener)| **node != from && listener.topics.contains_key(&topic))
        {
            count += 1;
            let copies = if random.below(100) < self.weather.lost { 0 } else { 1 };
            let copies = copies + usize::from(random.below(100) < self.weather.repeated);
            for _ in 0..copies {
                // Full: it is lost.
                let _ = listener
                    .way
                    .try_send((Instant::now() + random.up_to(self.weather.delay), carried.clone()));
            }
        }
        Ok(count)
    }

    fn note_top(&self, tops: &mut HashMap<ChannelName, Cursor>, carried: &Carried) {
        let (channel, cursor) = match carried {
            Carried::Publication { channel, epoch, publication } => {
                (channel, Cursor { epoch: *epoch, offset: publication.offset })
            }
            Carried::Top { channel, cursor } => (channel, *cursor),
            _ => return,
        };
        let top = tops.entry(channel.clone()).or_insert(cursor);
        if self.lie != Lie::StaleTops && (top.epoch != cursor.epoch || top.offset < cursor.offset) {
            *top = cursor;
        }
    }

    fn twisted(&self, last: &mut Option<(ChannelName, Arc<Publication>)>, carried: Carried) -> Carried {
        let Carried::Publication { channel, epoch, publication } = carried else { return carried };
        let (of_channel, before) = last
            .replace((channel.clone(), Arc::clone(&publication)))
            .unwrap_or((channel.clone(), publication.clone()));
        match self.lie {
            Lie::Renumbers if of_channel == channel && publication.offset % 2 == 0 => {
                let offset = publication.offset;
                let publication = Arc::new(Publication { offset, ..Publication::clone(&before) });
                Carried::Publication { channel, epoch, publication }
            }
            Lie::MisdirectsChannels if publication.offset == before.offset => {
                Carried::Publication { channel: of_channel, epoch, publication }
            }
            _ => Carried::Publication { channel, epoch, publication },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands a node what is due, in the order of its times, until the node is gone.
async fn carry(
    hub: std::sync::Weak<Hub>,
    node: usize,
    inbox: Arc<Inbox>,
    mut due: mpsc::Receiver<(Instant, Carried)>,
) {
    let mut waiting: BTreeMap<(Instant, u64), Carried> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = waiting.first_key_value().map(|((at, _), _)| *at);
        let ripe = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = due.recv() => {
                let Some((at, carried)) = sent else { return };
                number += 1;
                waiting.insert((at, number), carried);
            }
            () = ripe => {
                let Some((_, carried)) = waiting.pop_first() else { continue };
                for answer in inbox.receive(carried) {
                    if let Some(hub) = hub.upgrade() {
                        // Lost where nobody can be reached.
                        let _ = hub.publish(node, answer);
                    }
                }
            }
        }
    }
}

impl Broker for Spoke {
    fn publish(&self, carried: Carried) -> BoxFuture<'_, Result<usize, BrokerError>> {
        ready(self.hub.publish(self.node, carried)).boxed()
    }

    fn listen(&self, topic: Topic) -> BoxFuture<'_, ()> {
        if let Some(listener) = self.hub.state().nodes.get_mut(&self.node) {
            *listener.topics.entry(topic).or_default() += 1;
        }
        ready(()).boxed()
    }

    fn unlisten(&self, topic: &Topic) {
        let mut state = self.hub.state();
        let Some(listener) = state.nodes.get_mut(&self.node) else { return };
        if let Some(count) = listener.topics.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                listener.topics.remove(topic);
            }
        }
    }

    fn tops<'a>(
        &'a self,
        channels: &'a [ChannelName],
    ) -> BoxFuture<'a, Result<Vec<Option<Cursor>>, BrokerError>> {
        let state = self.hub.state();
        ready(Ok(channels.iter().map(|channel| state.tops.get(channel).copied()).collect())).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        ready(Ok(())).boxed()
    }
}
