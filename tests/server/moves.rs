//! A client's session in a cluster: it goes on at another node when its own dies or leaves.

use std::{
    collections::HashMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use xpush::client::{Event, Options, Session, Start, Via};
use xpush_protocol::{EventName, Json, MessageId, Payload};
use xpush_test_servers::{Mongo, Redis, ZooKeeper};

use super::{
    client::{WIRES, channel},
    http,
    process::{PATIENCE, ServerProcess, until},
};

/// Two nodes, and the servers that they share.
struct Cluster {
    nodes: Vec<ServerProcess>,
    _servers: (Redis, Mongo, ZooKeeper),
}

impl Cluster {
    async fn start() -> Self {
        let (redis, mongo, zookeeper) = tokio::join!(Redis::start(), Mongo::start(1), ZooKeeper::start(1));
        let mut nodes = Vec::new();
        for name in ["n1", "n2"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("xpush.toml");
            let mut config = String::new();
            writeln!(config, "[node]\nname = \"{name}\"\ndrain = \"4s\"").unwrap();
            writeln!(config, "[auth]\nanonymous = true\nstate_secret = \"{}\"", "s".repeat(43)).unwrap();
            writeln!(config, "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{}\"", "k".repeat(43))
                .unwrap();
            writeln!(config, "[redis]\nurl = \"{}\"", redis.url()).unwrap();
            writeln!(config, "[mongodb]\nurl = \"{}\"", mongo.url()).unwrap();
            writeln!(
                config,
                "[zookeeper]\nservers = \"{}\"\nsession_timeout = \"2s\"",
                zookeeper.connect_string()
            )
            .unwrap();
            std::fs::write(&file, config).unwrap();
            let data = folder.path().join("data");
            nodes
                .push(ServerProcess::in_directory(folder, data, &["--config", file.to_str().unwrap()]).await);
        }
        let cluster = Self { nodes, _servers: (redis, mongo, zookeeper) };
        cluster.is_whole().await;
        cluster
    }

    async fn is_whole(&self) {
        for node in &self.nodes {
            until("the nodes know each other", async || {
                http::post(node.http, "/v1/tickets", &serde_json::json!({})).await.json()["nodes"]
                    .as_array()
                    .is_some_and(|nodes| nodes.len() == self.nodes.len())
            })
            .await;
        }
    }

    fn session(&self, via: Via) -> Session {
        let bases = self.nodes.iter().map(ServerProcess::url).collect();
        Session::start(Options { bases, via: Some(via), ..Options::default() })
    }
}

/// Where the readers are, and what they read.
enum News {
    Connected(Via, String),
    Disconnected(Via, String),
    Read(Via, u32),
}

/// Reads the numbers up to this one, each once and in order, and tells how it goes.
async fn read(mut session: Session, via: Via, up_to: u32, news: mpsc::Sender<News>) {
    session.publisher().subscribe(channel(&format!("room:{via}")), Start::Now).await.unwrap();
    let mut last = 0;
    while last < up_to {
        let told = match timeout(PATIENCE, session.event()).await.expect("an event in time").unwrap() {
            Event::Publication(publication) => {
                let n: u32 = publication.data.unwrap().as_str().parse().unwrap();
                assert_eq!(n, last + 1, "{via}");
                last = n;
                News::Read(via, n)
            }
            // Read from now on: nothing may be published before.
            Event::Subscribed { cursor, .. } if last == 0 => {
                assert_eq!(cursor.offset, 0);
                News::Read(via, 0)
            }
            Event::Connected { node, .. } => News::Connected(via, node),
            Event::Disconnected { reason } => News::Disconnected(via, reason),
            event @ (Event::Gap(_) | Event::Refused { .. } | Event::CursorLost { .. }) => {
                panic!("{via}: {event:?}")
            }
            _ => continue,
        };
        news.send(told).await.unwrap();
    }
    session.close().await;
}

async fn write(session: Session, via: Via, up_to: u32) {
    let publisher = session.publisher();
    for n in 1..=up_to {
        let payload = Payload::Json(Json::from_value(&n).unwrap());
        let name = channel(&format!("room:{via}"));
        let published = publisher.publish(name, MessageId::random(), EventName::default(), payload);
        timeout(PATIENCE, published).await.expect("an answer in time").unwrap();
        // So that what is done to the nodes falls in between.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    session.close().await;
}

/// Readers and writers over every wire, up to a number.
struct Crowd {
    tasks: JoinSet<()>,
    news: mpsc::Receiver<News>,
    at: HashMap<Via, String>,
    read: HashMap<Via, u32>,
    lost: Vec<(Via, String)>,
}

impl Crowd {
    async fn start(cluster: &Cluster, up_to: u32) -> Self {
        let (sender, news) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        for via in WIRES {
            tasks.spawn(read(cluster.session(via), via, up_to, sender.clone()));
        }
        let mut crowd = Self { tasks, news, at: HashMap::new(), read: HashMap::new(), lost: Vec::new() };
        crowd.until(|crowd| crowd.read.len() == WIRES.len()).await;
        for via in WIRES {
            crowd.tasks.spawn(write(cluster.session(via), via, up_to));
        }
        crowd
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            match timeout(PATIENCE, self.news.recv()).await.expect("news in time").expect("a reader is left")
            {
                News::Connected(via, node) => drop(self.at.insert(via, node)),
                News::Disconnected(via, reason) => {
                    self.at.remove(&via);
                    self.lost.push((via, reason));
                }
                News::Read(via, n) => drop(self.read.insert(via, n)),
            }
        }
    }

    async fn all_read(&mut self, n: u32) {
        self.until(|crowd| crowd.read.values().all(|read| *read >= n)).await;
    }

    /// Returns what was lost on the way.
    async fn finish(mut self) -> Vec<(Via, String)> {
        while let Ok(Some(news)) = timeout(PATIENCE, self.news.recv()).await {
            if let News::Disconnected(via, reason) = news {
                self.lost.push((via, reason));
            }
        }
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        self.lost
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_costs_its_clients_seconds_and_no_message() {
    let mut cluster = Cluster::start().await;
    let mut crowd = Crowd::start(&cluster, 500).await;
    for (round, dying) in [0, 1].into_iter().enumerate() {
        let progress = u32::try_from(round * 200 + 50).unwrap();
        crowd.all_read(progress).await;
        let (name, other) = (["n1", "n2"][dying], ["n2", "n1"][dying]);
        let hit = crowd.at.values().filter(|node| *node == name).count();
        let began = Instant::now();
        cluster.nodes[dying].kill9();
        crowd
            .until(|crowd| crowd.at.len() == WIRES.len() && crowd.at.values().all(|node| node == other))
            .await;
        let back = began.elapsed();
        println!("{hit} of {} readers were at {name}; all were live elsewhere after {back:?}", WIRES.len());
        assert!(back < Duration::from_secs(10), "{back:?}");
        crowd.all_read(progress + 50).await;
        cluster.nodes[dying].restart().await;
        cluster.is_whole().await;
    }
    crowd.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_left_without_a_break() {
    let mut cluster = Cluster::start().await;
    let mut crowd = Crowd::start(&cluster, 400).await;
    crowd.all_read(20).await;
    // Nobody has a name, so that each was sent to either of them; the fuller one leaves.
    let at_first = crowd.at.values().filter(|node| *node == "n1").count();
    let (leaving, other) = if at_first >= 2 { (0, "n2") } else { (1, "n1") };
    cluster.nodes[leaving].signal("TERM");
    crowd.until(|crowd| crowd.at.values().all(|node| node == other)).await;
    cluster.nodes[leaving].ended().await;
    assert_eq!(crowd.finish().await, [], "each was live at the other node before it left this one");
}
