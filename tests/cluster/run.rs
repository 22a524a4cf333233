//! A run: clients come, publish to a timetable, and are waited for until nothing is left to be told; then every node
//! is asked for every channel, and the checker judges.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use xpush::client::{Client, Via, Visit};
use xpush_protocol::{ClientFrame, Codec, Connect, Cursor, Epoch, History as HistoryCommand, ServerFrame};
use xpush_transports::Connection;

use crate::{
    checker::{Report, check},
    client::{self, Doors, Part, Phase, Recovery, SignToken, Stage, Tamper, View},
    history::{ChannelNumber, ClientNumber, Event, History, Kept, Message, Record, Stream},
    measure::{LATE, Times},
    random::Random,
};

/// Far beyond what clients take to come in, and nodes to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it has come.
const LOOK: Duration = Duration::from_millis(200);
/// And where each goes over all that happened meanwhile, which the nodes feel: it is told to the second anyway.
const LONG_LOOK: Duration = Duration::from_secs(1);
/// Of a log.
const PAGE: u16 = 256;

/// What clients do.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    /// Channels that last, and channels that may be lost.
    pub(crate) rooms: u32,
    pub(crate) lives: u32,
    pub(crate) clients: u32,
    /// Channels of each client.
    pub(crate) listens: u32,
    /// Messages a second, of all clients.
    pub(crate) rate: f64,
    pub(crate) payload: usize,
    /// A server that says nothing for so long is given up.
    pub(crate) dead_after: Duration,
    /// Which wire the clients use, in turn.
    pub(crate) wires: Vec<(Via, Codec)>,
    /// One client in so many loses a right now and then; 0: none does.
    pub(crate) losing_rights: u32,
    /// The bug of all clients.
    pub(crate) tamper: Tamper,
    /// Beyond what it takes until everybody has everything: reached only when it never comes, and then the checker
    /// says what is missing.
    pub(crate) settle: Duration,
    pub(crate) token: SignToken,
}

/// Clients under way.
pub(crate) struct Running<D> {
    settle: Duration,
    stage: Arc<Stage<D>>,
    phase: watch::Sender<Phase>,
    views: Vec<Arc<View>>,
    tasks: JoinSet<()>,
}

/// What a run was.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) records: Vec<Record>,
    pub(crate) recoveries: Vec<Recovery>,
}

impl Workload {
    fn streams(&self) -> Vec<Stream> {
        let stream = |kind: &str, n: u32, durable| {
            let name = format!("{kind}:{n}");
            Stream { name: name.parse().unwrap(), durable }
        };
        let rooms = (0..self.rooms).map(|n| stream("room", n, true));
        rooms.chain((0..self.lives).map(|n| stream("live", n, false))).collect()
    }

    fn parts(&self, nodes: usize) -> Vec<Part> {
        let mut random = Random(self.seed);
        let channels = self.rooms + self.lives;
        let every = Duration::from_secs_f64(f64::from(self.clients) / self.rate);
        (0..self.clients)
            .map(|n| {
                let (via, codec) = self.wires[n as usize % self.wires.len()];
                let ordered = matches!(via, Via::Websocket | Via::Longpoll);
                Part {
                    number: ClientNumber(n),
                    via,
                    codec,
                    // Not in turn: the wires and the channels are.
                    node: random.below(nodes as u64) as usize,
                    listens: (0..self.listens.min(channels))
                        .map(|k| ChannelNumber((n + k * (channels / self.listens).max(1)) % channels))
                        .collect(),
                    speaks: (0..channels).map(ChannelNumber).collect(),
                    every: Some(every),
                    loses_rights: ordered && self.losing_rights > 0 && n % self.losing_rights == 0,
                    tamper: self.tamper,
                    random: random.fork(),
                }
            })
            .collect()
    }

    /// Starts the clients; when this returns they are all there, and nobody has published.
    pub(crate) async fn start<D: Doors>(&self, doors: D) -> Running<D> {
        let (phase, watched) = watch::channel(Phase::Gather);
        let parts = self.parts(doors.count());
        let stage = Arc::new(Stage {
            doors,
            history: History::new(self.streams()),
            phase: watched,
            payload: self.payload,
            dead_after: self.dead_after,
            token: self.token,
            recoveries: Mutex::default(),
        });
        let mut running =
            Running { settle: self.settle, stage, phase, views: Vec::new(), tasks: JoinSet::new() };
        for part in parts {
            let view = Arc::new(View::new());
            running.views.push(Arc::clone(&view));
            running.tasks.spawn(client::run(Arc::clone(&running.stage), part, view));
        }
        let all_live =
            running.wait(PATIENCE, async |running| running.views.iter().all(|view| view.is_live())).await;
        assert!(
            all_live,
            "{} clients do not come in",
            running.views.iter().filter(|view| !view.is_live()).count()
        );
        running
    }
}

impl<D: Doors> Running<D> {
    /// Since the history began.
    pub(crate) fn now(&self) -> Duration {
        self.stage.history.now()
    }

    pub(crate) fn publish(&self) {
        self.phase.send_replace(Phase::Publish);
    }

    /// Clients that are connected, with all their subscriptions.
    pub(crate) fn live(&self) -> usize {
        self.views.iter().filter(|view| view.is_live()).count()
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        let records = self.stage.history.since(Duration::ZERO);
        records.iter().filter(|record| matches!(record.event, Event::Connected { .. })).count()
    }

    /// Waits until no client is away and messages come in time, as they did before. Gives how long that took from now
    /// on. Who is asked to go to another node is not live for a moment, and not away: while nodes even out their
    /// clients there is always one.
    pub(crate) async fn normal_within(&self, limit: Duration) -> Option<Duration> {
        let from = self.now();
        let deadline = from + limit + Duration::from_secs(5);
        let mut nobody_away = None;
        while self.now() < deadline {
            sleep(LONG_LOOK).await;
            if self.views.iter().any(|view| view.is_away(LATE)) {
                nobody_away = None;
                continue;
            }
            let nobody_away = *nobody_away.get_or_insert(self.now());
            if let Some(took) = self.times_since(from).normal_after(from, self.now()) {
                return Some(took.max(nobody_away - from));
            }
        }
        None
    }

    pub(crate) fn times_since(&self, from: Duration) -> Times {
        Times::of(&self.stage.history.since(from))
    }

    /// Stops publishing, waits until everybody has everything (or never will), and judges. The nodes have to live.
    pub(crate) async fn finish(mut self) -> Outcome {
        self.phase.send_replace(Phase::Settle);
        self.wait(self.settle, async |running| running.is_settled().await).await;
        let kept = self.read_logs().await;
        self.phase.send_replace(Phase::End);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let records = self.stage.history.take();
        let report = check(&self.stage.history.streams, &records, &kept);
        let recoveries =
            std::mem::take(&mut *self.stage.recoveries.lock().unwrap_or_else(PoisonError::into_inner));
        Outcome { report, records, recoveries }
    }

    async fn wait(&self, patience: Duration, condition: impl AsyncFn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !condition(self).await {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Nothing is unanswered, and everybody stands where the log does.
    async fn is_settled(&self) -> bool {
        let quiet =
            self.views.iter().all(|view| view.is_live() && view.unanswered.load(Ordering::Relaxed) == 0);
        if !quiet {
            return false;
        }
        let Some(tops) = self.tops().await else { return false };
        self.views.iter().all(|view| {
            let cursors = view.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            cursors.iter().all(|(channel, cursor)| tops.get(channel.0 as usize) == Some(cursor))
        })
    }

    async fn tops(&self) -> Option<Vec<Cursor>> {
        let mut reader = self.reader(0).await.ok()?;
        let mut tops = Vec::new();
        for stream in &self.stage.history.streams {
            let page = page(&mut reader, stream, None, true).await.ok()?;
            tops.push(page.top);
        }
        reader.close().await;
        Some(tops)
    }

    async fn read_logs(&self) -> Vec<Kept> {
        join_all((0..self.stage.doors.count()).map(|node| self.read_logs_of(node))).await.concat()
    }

    async fn read_logs_of(&self, node: usize) -> Vec<Kept> {
        let mut kept = Vec::new();
        let mut reader = self.reader(node).await.unwrap();
        for (n, stream) in self.stage.history.streams.iter().enumerate() {
            let log = read_log(&mut reader, stream, ChannelNumber(n as u32), node).await;
            kept.push(log.unwrap_or_else(|why| panic!("node {node} does not give {}: {why}", stream.name)));
        }
        reader.close().await;
        kept
    }

    /// A client that only reads logs.
    async fn reader(&self, node: usize) -> Result<Client, String> {
        struct Started;
        impl Visit for Started {
            type Output = Client;
            fn visit(self, connection: impl Connection) -> Client {
                Client::start(connection, Codec::Json)
            }
        }
        let dial = async {
            let mut client = self.stage.doors.dial(node, Via::Websocket, Codec::Json, Started).await?;
            let token = Some((self.stage.token)("reader", &[]));
            let connected = client.connect(Connect { token, ..Connect::default() }).await;
            connected.map_err(|error| error.to_string())?;
            Ok(client)
        };
        timeout(PATIENCE, dial).await.map_err(|_| "it takes too long".to_owned())?
    }
}

async fn page(
    reader: &mut Client,
    stream: &Stream,
    cursor: Option<Cursor>,
    backward: bool,
) -> Result<xpush_protocol::HistoryPage, String> {
    let channel = stream.name.clone();
    let limit = Some(if backward { 1 } else { PAGE });
    let command = |id| ClientFrame::History(HistoryCommand { id, channel, cursor, backward, limit });
    let answer = timeout(PATIENCE, reader.call(command)).await.map_err(|_| "no answer comes".to_owned())?;
    match answer.map_err(|error| error.to_string())? {
        ServerFrame::History(page) => Ok(page),
        other => Err(format!("it answers {other:?}")),
    }
}

/// All of a channel that a node has.
async fn read_log(
    reader: &mut Client,
    stream: &Stream,
    channel: ChannelNumber,
    node: usize,
) -> Result<Kept, String> {
    let mut kept =
        Kept { channel, node, top: Cursor { epoch: Epoch(0), offset: 0 }, publications: Vec::new() };
    let mut cursor = None;
    loop {
        let page = page(reader, stream, cursor, false).await?;
        kept.top = page.top;
        for publication in &page.publications {
            let id = publication.message_id.as_str();
            let message = Message::parse(id).ok_or_else(|| format!("{id} is no message of this run"))?;
            kept.publications.push((publication.offset, message));
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(kept),
        }
    }
}
