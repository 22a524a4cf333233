//! Against real servers.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;
use xpush_protocol::Transports;
use xpush_test_servers::{Proxy, ZooKeeper as Servers, until};
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::*;
use crate::membership::Roles;

/// Above the shortest that the servers allow, so that a busy machine's pauses end no session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(1);

fn node(id: &str, instance: u64) -> NodeInfo {
    let wires = || Transports {
        version: "1".into(),
        node: id.into(),
        transports: vec![],
        certificate_hashes: vec!["hash".into()],
    };
    NodeInfo {
        id: id.parse().unwrap(),
        instance,
        version: "1".into(),
        roles: Roles { session: true, channel: true },
        weight: 1,
        wires: wires(),
        secure_wires: wires(),
        url: format!("http://{id}.example:{instance}"),
        secure_url: format!("https://{id}.example"),
        status: Status::default(),
    }
}

fn settings(servers: String) -> Settings {
    Settings { servers, root: "/apps/xpush".into(), auth: None, session_timeout: SESSION_TIMEOUT }
}

fn join(servers: impl ToString, id: &str) -> Arc<ZooKeeper> {
    ZooKeeper::start(settings(servers.to_string()), node(id, 1)).unwrap()
}

fn ids(zookeeper: &ZooKeeper) -> Vec<String> {
    zookeeper.nodes().borrow().iter().map(|node| node.id.to_string()).collect()
}

fn status(zookeeper: &ZooKeeper, id: &str) -> Option<Status> {
    let nodes = zookeeper.nodes().borrow().clone();
    nodes.iter().find(|node| node.id.as_str() == id).map(|node| node.status)
}

async fn sees(zookeeper: &ZooKeeper, wanted: &[&str]) {
    until(&format!("the list {wanted:?}"), async || ids(zookeeper) == wanted).await;
}

/// Without this crate's code in between.
async fn raw(servers: &Servers) -> Client {
    Client::connect(&servers.connect_string()).await.unwrap()
}

fn open(mode: CreateMode) -> zookeeper_client::CreateOptions<'static> {
    mode.with_acls(Acls::anyone_all())
}

fn leaving() -> Status {
    Status { sessions: 7, draining: true, ..Status::default() }
}

#[tokio::test]
async fn nodes_see_each_other_come_change_and_go() {
    let servers = Servers::start(1).await;
    let b = join(servers.connect_string(), "b");
    assert_eq!(ids(&b), ["b"], "oneself is there at once");
    sees(&b, &["b"]).await;
    let a = join(servers.connect_string(), "a");
    let c = join(servers.connect_string(), "c");
    for node in [&a, &b, &c] {
        sees(node, &["a", "b", "c"]).await;
        assert_eq!(node.check().await, Ok(()));
    }
    assert_eq!(b.nodes().borrow()[0], node("a", 1), "the record comes as it was given");

    a.tell(leaving());
    assert_eq!(status(&a, "a"), Some(leaving()), "one's own list shows it at once");
    for node in [&b, &c] {
        until("the others to see it", async || status(node, "a") == Some(leaving())).await;
    }
    a.close().await;
    for node in [&b, &c] {
        sees(node, &["b", "c"]).await;
    }
    b.close().await;
    b.close().await;
    sees(&c, &["c"]).await;
}

#[tokio::test]
async fn a_count_of_sessions_is_written_now_and_then_but_leaving_at_once() {
    let servers = Servers::start(1).await;
    let a = join(servers.connect_string(), "a");
    let b = join(servers.connect_string(), "b");
    sees(&b, &["a", "b"]).await;
    let client = raw(&servers).await;
    let began = std::time::Instant::now();
    for sessions in 1..=500 {
        a.tell(Status { sessions, draining: false, ..Status::default() });
        tokio::task::yield_now().await;
    }
    until("the last count", async || status(&b, "a").is_some_and(|status| status.sessions == 500)).await;
    let writes = client.check_stat("/apps/xpush/nodes/a").await.unwrap().unwrap().version;
    assert!(u64::try_from(writes).unwrap() <= 1 + began.elapsed().as_secs(), "{writes} writes");

    a.tell(Status { sessions: 501, draining: false, ..Status::default() });
    let mut nodes = b.nodes();
    nodes.mark_unchanged();
    a.tell(leaving());
    nodes.changed().await.unwrap();
    assert_eq!(status(&b, "a"), Some(leaving()), "it did not wait for the count's turn");
}

#[tokio::test]
async fn a_node_that_dies_vanishes_and_its_restart_takes_its_place() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::to(servers.address(0)).await;
    let b = join(servers.connect_string(), "b");
    let dying = join(proxy.address(), "a");
    for node in [&dying, &b] {
        sees(node, &["a", "b"]).await;
    }
    proxy.cut();
    let again = ZooKeeper::start(settings(servers.connect_string()), node("a", 2)).unwrap();
    until("the restarted node", async || b.nodes().borrow()[0].instance == 2).await;
    assert_eq!(ids(&dying), ["a", "b"], "who is cut off keeps what it knew");
    assert!(dying.check().await.is_err());
    drop(dying);

    again.close().await;
    sees(&b, &["b"]).await;
}

#[tokio::test]
async fn a_node_whose_session_expired_registers_again() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::to(servers.address(0)).await;
    let b = join(servers.connect_string(), "b");
    let a = join(proxy.address(), "a");
    sees(&a, &["a", "b"]).await;
    sees(&b, &["a", "b"]).await;
    for round in 1..=2 {
        proxy.cut();
        sees(&b, &["b"]).await;
        let c = join(servers.connect_string(), "c");
        sees(&b, &["b", "c"]).await;
        a.tell(Status { sessions: round, draining: false, ..Status::default() });
        proxy.heal();
        for node in [&a, &b] {
            sees(node, &["a", "b", "c"]).await;
        }
        assert_eq!(status(&b, "a"), Some(Status { sessions: round, draining: false, ..Status::default() }));
        c.close().await;
        for node in [&a, &b] {
            sees(node, &["a", "b"]).await;
        }
    }
}

#[tokio::test]
async fn a_short_loss_of_the_connection_costs_neither_the_place_nor_a_change() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::to(servers.address(0)).await;
    let long = Duration::from_secs(20);
    let through = Settings { session_timeout: long, ..settings(proxy.address().to_string()) };
    let a = ZooKeeper::start(through, node("a", 1)).unwrap();
    let b = join(servers.connect_string(), "b");
    sees(&b, &["a", "b"]).await;
    // An answer that the cut takes away has to be asked for again, and `a` is on its own list before it knows that its
    // record was written. It is answered in order: who sees another come and go since then waits for nothing any more.
    let c = join(servers.connect_string(), "c");
    sees(&a, &["a", "b", "c"]).await;
    c.close().await;
    sees(&a, &["a", "b"]).await;
    for sessions in 1..=3 {
        proxy.cut();
        until("the loss to be seen", async || a.check().await.is_err()).await;
        b.tell(Status { sessions, draining: false, ..Status::default() });
        let c = join(servers.connect_string(), "c");
        sees(&b, &["a", "b", "c"]).await;
        proxy.heal();
        sees(&a, &["a", "b", "c"]).await;
        until("the change", async || status(&a, "b").is_some_and(|status| status.sessions == sessions)).await;
        c.close().await;
        sees(&a, &["a", "b"]).await;
        sees(&b, &["a", "b"]).await;
    }
    let client = raw(&servers).await;
    let stat = client.check_stat("/apps/xpush/nodes/a").await.unwrap().unwrap();
    assert_eq!(stat.czxid, stat.mzxid, "its record was never written anew");
}

#[tokio::test]
async fn servers_that_are_silent_for_a_while_cost_nothing_but_news() {
    let servers = Servers::start(1).await;
    let (a, b) = (join(servers.connect_string(), "a"), join(servers.connect_string(), "b"));
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
    }
    servers.pause(0);
    for node in [&a, &b] {
        until("the silence to be seen", async || node.check().await.is_err()).await;
        assert_eq!(ids(node), ["a", "b"]);
    }
    a.tell(leaving());
    servers.resume(0);
    until("the news", async || status(&b, "a") == Some(leaving())).await;
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
        until("the connection", async || node.check().await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_goes_on_without_its_leader_and_the_nodes_without_the_ensemble() {
    let mut servers = Servers::start(3).await;
    let (a, b) = (join(servers.connect_string(), "a"), join(servers.connect_string(), "b"));
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
    }
    let leader = servers.leader().await;
    servers.kill(leader);
    servers.leader().await;
    let c = join(servers.connect_string(), "c");
    a.tell(leaving());
    for node in [&a, &b, &c] {
        sees(node, &["a", "b", "c"]).await;
        until("the news", async || status(node, "a") == Some(leaving())).await;
    }

    servers.kill_all();
    for node in [&a, &b, &c] {
        until("the loss to be seen", async || node.check().await.is_err()).await;
        assert_eq!(ids(node), ["a", "b", "c"]);
    }
    a.tell(Status { sessions: 1, draining: false, ..Status::default() });
    servers.restart_all().await;
    let d = join(servers.connect_string(), "d");
    for node in [&a, &b, &c, &d] {
        sees(node, &["a", "b", "c", "d"]).await;
        until("the news", async || status(node, "a").is_some_and(|status| status.sessions == 1)).await;
    }
    for node in [a, b, c] {
        node.close().await;
    }
    sees(&d, &["d"]).await;
}

#[tokio::test]
async fn a_node_starts_without_zookeeper_and_finds_it_later() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::to(servers.address(0)).await;
    proxy.cut();
    let a = join(proxy.address(), "a");
    a.tell(leaving());
    assert_eq!(ids(&a), ["a"]);
    assert!(a.check().await.unwrap_err().to_string().contains(&proxy.address().to_string()));
    let b = join(servers.connect_string(), "b");
    sees(&b, &["b"]).await;
    proxy.heal();
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
    }
    assert_eq!(status(&b, "a"), Some(leaving()));
    proxy.cut();
    a.close().await;
}

#[tokio::test]
async fn a_second_node_of_one_name_serves_unseen_and_says_so() {
    let said = Said::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(said.clone()).finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let servers = Servers::start(1).await;
    let first = join(servers.connect_string(), "a");
    let b = join(servers.connect_string(), "b");
    sees(&b, &["a", "b"]).await;
    let second = ZooKeeper::start(settings(servers.connect_string()), node("a", 2)).unwrap();
    sees(&second, &["a", "b"]).await;
    assert_eq!(second.nodes().borrow()[0].instance, 2, "oneself is always there");
    until("the warning", async || said.text().contains("Two nodes must not have one name")).await;
    assert!(said.text().contains("http://a.example:1"), "it says who the other is");
    assert_eq!(b.nodes().borrow()[0].instance, 1);

    second.close().await;
    let client = raw(&servers).await;
    assert!(
        client.check_stat("/apps/xpush/nodes/a").await.unwrap().is_some(),
        "the first one's is left alone"
    );
    let second = ZooKeeper::start(settings(servers.connect_string()), node("a", 2)).unwrap();
    sees(&second, &["a", "b"]).await;
    first.close().await;
    until("the second one's turn", async || b.nodes().borrow()[0].instance == 2).await;
    second.close().await;
}

#[tokio::test]
async fn a_record_that_was_removed_is_written_again() {
    let servers = Servers::start(1).await;
    let (a, b) = (join(servers.connect_string(), "a"), join(servers.connect_string(), "b"));
    sees(&b, &["a", "b"]).await;
    sees(&a, &["a", "b"]).await;
    let client = raw(&servers).await;
    let before = client.check_stat("/apps/xpush/nodes/a").await.unwrap().unwrap();
    client.delete("/apps/xpush/nodes/a", None).await.unwrap();
    until("it to stand again", async || {
        let stat = client.check_stat("/apps/xpush/nodes/a").await.unwrap();
        stat.is_some_and(|stat| stat.czxid > before.czxid)
    })
    .await;
    sees(&b, &["a", "b"]).await;
}

#[tokio::test]
async fn records_of_newer_versions_are_read_or_left_out() {
    let servers = Servers::start(1).await;
    let a = join(servers.connect_string(), "a");
    let client = raw(&servers).await;
    until("the directory", async || client.check_stat("/apps/xpush/nodes").await.unwrap().is_some()).await;
    let mut newer = serde_json::to_value(node("newer", 1)).unwrap();
    newer["zone"] = "eu".into();
    newer["roles"]["push"] = true.into();
    newer["status"]["load"] = 0.5.into();
    newer["wires"]["region"] = "eu".into();
    let put = async |id: &str, record: &str| {
        let path = format!("/apps/xpush/nodes/{id}");
        client.create(&path, record.as_bytes(), &open(CreateMode::Persistent)).await.unwrap();
    };
    for (id, record) in [("b", "{}"), ("c", "no JSON"), ("d", &newer.to_string()), ("not a name", "{}")] {
        put(id, record).await;
    }
    put("newer", &newer.to_string()).await;
    sees(&a, &["a", "newer"]).await;
    let record = serde_json::to_vec(&node("b", 1)).unwrap();
    client.set_data("/apps/xpush/nodes/b", &record, None).await.unwrap();
    sees(&a, &["a", "b", "newer"]).await;
    client.set_data("/apps/xpush/nodes/b", b"{}", None).await.unwrap();
    sees(&a, &["a", "newer"]).await;
}

#[tokio::test]
async fn who_has_no_credentials_neither_reads_nor_writes() {
    let servers = Servers::start(1).await;
    let with = |auth: &str| Settings { auth: Some(auth.into()), ..settings(servers.connect_string()) };
    let a = ZooKeeper::start(with("xpush:secret"), node("a", 1)).unwrap();
    let b = ZooKeeper::start(with("xpush:secret"), node("b", 1)).unwrap();
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
    }
    let client = raw(&servers).await;
    for path in ["/apps", "/apps/xpush", "/apps/xpush/nodes", "/apps/xpush/nodes/a"] {
        assert_eq!(client.get_data(path).await.unwrap_err(), Error::NoAuth, "{path}");
        assert_eq!(client.set_data(path, b"", None).await.unwrap_err(), Error::NoAuth, "{path}");
        assert_eq!(client.list_children(path).await.unwrap_err(), Error::NoAuth, "{path}");
    }
    let intruder = client.create("/apps/xpush/nodes/x", b"{}", &open(CreateMode::Ephemeral)).await;
    assert_eq!(intruder.unwrap_err(), Error::NoAuth);
    assert_eq!(client.delete("/apps/xpush/nodes/a", None).await.unwrap_err(), Error::NoAuth);

    let c = ZooKeeper::start(with("xpush:wrong"), node("c", 1)).unwrap();
    until("the connection", async || c.check().await.is_ok()).await;
    a.tell(leaving());
    until("the others' news", async || status(&b, "a") == Some(leaving())).await;
    assert_eq!(ids(&c), ["c"]);
    assert_eq!(ids(&b), ["a", "b"]);
}

#[tokio::test]
async fn two_roots_do_not_see_each_other() {
    let servers = Servers::start(1).await;
    let other = Settings { root: "/other".into(), ..settings(servers.connect_string()) };
    let x = ZooKeeper::start(other, node("x", 1)).unwrap();
    let (a, b) = (join(servers.connect_string(), "a"), join(servers.connect_string(), "b"));
    for node in [&a, &b] {
        sees(node, &["a", "b"]).await;
    }
    let client = raw(&servers).await;
    until("x to be registered", async || client.check_stat("/other/nodes/x").await.unwrap().is_some()).await;
    assert_eq!(ids(&x), ["x"]);
    assert_eq!(client.list_children("/apps/xpush/nodes").await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_config_is_followed_over_every_loss() {
    let servers = Servers::start(1).await;
    let proxy = Proxy::to(servers.address(0)).await;
    let a = join(proxy.address(), "a");
    let client = raw(&servers).await;
    let config = a.config();
    let reads = async |wanted: Option<&str>| {
        until(&format!("the config {wanted:?}"), async || config.borrow().as_deref() == wanted).await;
    };
    until("the root", async || client.check_stat("/apps/xpush").await.unwrap().is_some()).await;
    let path = "/apps/xpush/config";
    client.create(path, b"one", &open(CreateMode::Persistent)).await.unwrap();
    reads(Some("one")).await;
    for text in ["two", "three"] {
        client.set_data(path, text.as_bytes(), None).await.unwrap();
        reads(Some(text)).await;
    }
    for (text, after) in [("four", "five"), ("six", "seven")] {
        proxy.cut();
        until("the loss to be seen", async || a.check().await.is_err()).await;
        client.set_data(path, text.as_bytes(), None).await.unwrap();
        proxy.heal();
        reads(Some(text)).await;
        client.set_data(path, after.as_bytes(), None).await.unwrap();
        reads(Some(after)).await;
    }
    client.set_data(path, b"\xff", None).await.unwrap();
    client.set_data(path, b"eight", None).await.unwrap();
    reads(Some("eight")).await;
    client.delete(path, None).await.unwrap();
    reads(None).await;
    client.create(path, b"nine", &open(CreateMode::Persistent)).await.unwrap();
    reads(Some("nine")).await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Said {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
