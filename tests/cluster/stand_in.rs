//! A cluster in one process, without a server: nodes over the memory transport that share a ledger and a hub, on a
//! clock that runs as fast as the machine. A fault of theirs is played through in a blink, the same way every time.

mod hub;
mod ledger;
mod streams;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::sync::watch;
use xpush::{
    broker::Inbox,
    client::{Via, Visit},
    membership::{Membership, MembershipError, Nodes, Status},
    metrics::Metrics,
    node::{Limits, Parts},
    presence,
};
use xpush_protocol::Codec;
use xpush_transports::memory;

pub(crate) use hub::{Hub, Lie, Weather};
pub(crate) use ledger::{Desk, Flaw, Ledger};

use self::streams::Streams;
use crate::{
    client::Doors,
    harness::{self, Options, TestNode},
    random::Random,
};

/// Of what need not last: more than any run publishes, so that nothing goes unless all does.
const RECENT: u64 = 1_000_000;

/// What is wrong with a cluster, and with which of its nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) weather: Weather,
    /// Of the durable log.
    pub(crate) flaw: Flaw,
    /// The only node whose desk has it. `None`: all have.
    pub(crate) flawed_node: Option<usize>,
    pub(crate) lie: Lie,
}

impl Faults {
    /// Nothing that a broker may not do.
    pub(crate) fn none() -> Self {
        let weather = Weather { lost: 0, repeated: 0, delay: Duration::from_millis(2) };
        Self { weather, flaw: Flaw::None, flawed_node: None, lie: Lie::None }
    }

    /// All that a broker may do.
    pub(crate) fn storm() -> Self {
        let weather = Weather { lost: 20, repeated: 10, delay: Duration::from_millis(50) };
        Self { weather, ..Self::none() }
    }
}

/// Nodes of one process.
pub(crate) struct Cluster {
    faults: Faults,
    durable: Arc<Ledger>,
    pub(crate) recent: Arc<Ledger>,
    pub(crate) hub: Arc<Hub>,
    roster: watch::Sender<Nodes>,
    nodes: Vec<Option<TestNode>>,
    dialers: Arc<Mutex<Vec<memory::Dialer>>>,
    random: Random,
    instances: u64,
}

impl Cluster {
    pub(crate) fn start(count: usize, faults: Faults, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut cluster = Self {
            faults,
            durable: Arc::default(),
            recent: Arc::default(),
            hub: Hub::new(faults.weather, faults.lie, random.fork()),
            roster: watch::Sender::new(Arc::new([])),
            nodes: Vec::new(),
            dialers: Arc::default(),
            random,
            instances: 0,
        };
        for node in 0..count {
            let started = cluster.node(node);
            cluster.dialers().push(started.dialer());
            cluster.nodes.push(Some(started));
        }
        cluster
    }

    pub(crate) fn doors(&mut self) -> MemoryDoors {
        MemoryDoors { dialers: Arc::clone(&self.dialers), random: Mutex::new(self.random.fork()) }
    }

    /// As `kill -9`.
    pub(crate) async fn kill(&mut self, node: usize) {
        if let Some(killed) = self.nodes[node].take() {
            self.hub.part(node);
            killed.kill().await;
            let id = name(node);
            self.roster.send_modify(|nodes| {
                *nodes = nodes.iter().filter(|info| info.id.as_str() != id).cloned().collect();
            });
        }
    }

    /// Asks the clients of a node to go elsewhere.
    pub(crate) fn drain(&self, node: usize, within: Duration) {
        if let Some(node) = &self.nodes[node] {
            node.node.drain(within);
        }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        let started = self.node(node);
        self.dialers()[node] = started.dialer();
        self.nodes[node] = Some(started);
    }

    fn node(&mut self, node: usize) -> TestNode {
        self.instances += 1;
        let inbox = Arc::new(Inbox::new(name(node).parse().unwrap()));
        let info = harness::node_info(&name(node), self.instances);
        self.roster.send_modify(|nodes| *nodes = nodes.iter().cloned().chain([info]).collect());
        let flaw = match self.faults.flawed_node {
            Some(flawed) if flawed != node => Flaw::None,
            _ => self.faults.flaw,
        };
        TestNode::of(Parts {
            namespaces: harness::namespaces(RECENT),
            limits: Limits { data: 1024, ..Options::default().limits },
            auth: harness::auth(false),
            recent: Arc::new(Desk::new(&self.recent, Flaw::None, self.random.fork())),
            durable: Arc::new(Desk::new(&self.durable, flaw, self.random.fork())),
            broker: Arc::new(self.hub.join(node, Arc::clone(&inbox))),
            inbox,
            directory: harness::in_memory_directory(),
            membership: Arc::new(Roster(self.roster.clone())),
            presence: Arc::new(presence::InProcess::default()),
            metrics: Arc::new(Metrics::default()),
        })
    }

    fn dialers(&self) -> std::sync::MutexGuard<'_, Vec<memory::Dialer>> {
        self.dialers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

/// The nodes of this process.
struct Roster(watch::Sender<Nodes>);

impl Membership for Roster {
    fn nodes(&self) -> watch::Receiver<Nodes> {
        self.0.subscribe()
    }

    fn tell(&self, _: Status) {}

    fn check(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        ready(Ok(())).boxed()
    }
}

/// The nodes' doors; whatever wire is asked for, it is memory, and over QUIC memory of several streams.
pub(crate) struct MemoryDoors {
    dialers: Arc<Mutex<Vec<memory::Dialer>>>,
    random: Mutex<Random>,
}

impl Doors for MemoryDoors {
    fn count(&self) -> usize {
        self.dialers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn dial<V>(&self, node: usize, via: Via, codec: Codec, visitor: V) -> Result<V::Output, String>
    where
        V: Visit + Send,
        V::Output: Send,
    {
        let dialer = self.dialers.lock().unwrap_or_else(PoisonError::into_inner)[node].clone();
        let connection = dialer.dial().await.map_err(|error| error.to_string())?;
        if via == Via::Quic {
            let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
            return Ok(visitor.visit(Streams::of(connection, codec, random)));
        }
        Ok(visitor.visit(connection))
    }
}
