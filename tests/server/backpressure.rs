//! A client that stops reading costs the server little and the others nothing, and then gets all of it, or a gap.
//!
//! Three servers take the same load at the same time: one with stalled WebSockets, one with stalled QUIC connections,
//! one with none. What the first two have in memory beyond the third is what their stalled clients cost; and since the
//! machine is as busy for all three, so is what their readers wait longer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use xpush::client::Via;
use xpush_protocol::{ClientFrame, Codec, Connect, MessageId, Ping, ServerFrame, Subscribe};
use xpush_transports::{
    Connection as _, Lane, Outgoing, Reader as _, Settings, Writer as _, quic, tls::Trust,
};

use super::{
    client::{RawWire, channel, publish},
    http::get,
    process::{PATIENCE, ServerProcess, until},
    websocket::{RawSocket, TEXT},
};

const CHANNEL: &str = "room:slow";
const RECENT: &str = "live:slow";
const RATE: u64 = 1000;
/// Publishes without an answer, at most: below what the server reads ahead.
const IN_FLIGHT: u64 = 100;
const TICK: Duration = Duration::from_millis(10);
/// Long enough that the store's buffers have seen some load, and the latency has settled.
const WARM_UP: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(60);
/// So many that one client's share stands out of what the allocator does by itself.
const STALLED: usize = 48;
/// Of each kind that read on in the end; the others have shown what they cost.
const CATCHING_UP: usize = 2;
const ALLOWED: u64 = 256 * 1024;
/// A client says that it lives, though it does not read.
const PINGS: Duration = Duration::from_secs(10);
/// A window's p99 is one number; the median of all windows' is robust against a busy second.
const WINDOW: Duration = Duration::from_secs(2);

/// Publishes and reads beside the stalled ones.
struct Load {
    stop: CancellationToken,
    publisher: JoinHandle<u64>,
    reader: JoinHandle<()>,
    /// When a publication came, and how long it took.
    latencies: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl Load {
    async fn start(server: &ServerProcess) -> Self {
        let stop = CancellationToken::new();
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let mut healthy = subscribed(server, &[CHANNEL]).await;
        let reader = tokio::spawn({
            let (stop, latencies) = (stop.clone(), Arc::clone(&latencies));
            async move {
                let mut pings = interval(PINGS);
                loop {
                    let frame = tokio::select! {
                        frame = healthy.next() => frame.unwrap(),
                        _ = pings.tick() => {
                            healthy.send(&ClientFrame::Ping(Ping { id: 9 })).await;
                            continue;
                        }
                        () = stop.cancelled() => return,
                    };
                    if let ServerFrame::Publication(publication) = frame {
                        let data = publication.data.unwrap();
                        let sent: u64 = data.as_str()[1..].split('"').next().unwrap().trim().parse().unwrap();
                        let took = Duration::from_micros(micros().saturating_sub(sent));
                        latencies.lock().await.push((Instant::now(), took));
                    }
                }
            }
        });
        let wire = RawWire::session(server, Via::Websocket, Codec::Json).await;
        let publisher = tokio::spawn(publish_until(wire, stop.clone()));
        Self { stop, publisher, reader, latencies }
    }

    /// The median over windows of their p99s, since then.
    async fn p99(&self, since: Instant) -> Duration {
        let latencies = self.latencies.lock().await;
        let mut windows: Vec<Vec<Duration>> = Vec::new();
        for (at, took) in latencies.iter().filter(|(at, _)| *at >= since) {
            let window = ((*at - since).as_micros() / WINDOW.as_micros()) as usize;
            windows.resize(windows.len().max(window + 1), Vec::new());
            windows[window].push(*took);
        }
        let p99 = |window: &mut Vec<Duration>| {
            window.sort_unstable();
            window[window.len() * 99 / 100]
        };
        let mut p99s: Vec<_> = windows.iter_mut().filter(|window| !window.is_empty()).map(p99).collect();
        p99s.sort_unstable();
        p99s[p99s.len() / 2]
    }

    /// How many messages were published to each channel.
    async fn stop(self) -> u64 {
        self.stop.cancel();
        self.reader.await.unwrap();
        self.publisher.await.unwrap()
    }
}

/// A message for the durable channel at each of its moments, and every tenth for the recent one too.
async fn publish_until(mut wire: RawWire, stop: CancellationToken) -> u64 {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let per_tick = RATE * TICK.as_millis() as u64 / 1000;
    let (mut count, mut answered) = (0_u64, 0_u64);
    while !stop.is_cancelled() {
        ticks.tick().await;
        for _ in 0..per_tick {
            count += 1;
            // 128 to 1000 bytes, in an order without a pattern that a window could fall into.
            let size = 128 + (count * 7919 % 873) as usize;
            let data = format!("{:<size$}", micros());
            wire.send(&publish(CHANNEL, MessageId::random(), &data)(1)).await;
        }
        wire.send(&publish(RECENT, MessageId::random(), format!("{:<1000}", micros()))(0)).await;
        // Some may be under way: a sync of the disk is no pause of the load.
        while answered + IN_FLIGHT < count {
            wire.published().await;
            answered += 1;
        }
    }
    while answered < count {
        wire.published().await;
        answered += 1;
    }
    count
}

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

async fn subscribed(server: &ServerProcess, names: &[&str]) -> RawWire {
    let mut wire = RawWire::session(server, Via::Websocket, Codec::Json).await;
    for name in names {
        wire.send(&subscribe(name)).await;
        while !matches!(wire.next().await.unwrap(), ServerFrame::Subscribed(_)) {}
    }
    wire
}

fn subscribe(name: &str) -> ClientFrame {
    ClientFrame::Subscribe(Subscribe { id: 2, channel: channel(name), cursor: None, last: None })
}

fn text(frame: &ClientFrame) -> String {
    String::from_utf8(Codec::Json.encode(frame).to_vec()).unwrap()
}

/// What a client that stalled finds when it reads on.
#[derive(Debug)]
struct Found {
    durable: Vec<u64>,
    recent: Vec<u64>,
    gaps: Vec<(u64, u64)>,
    lagged: bool,
    /// The highest offsets so far: asked for after each frame, of tens of thousands.
    top: (u64, u64),
}

impl Found {
    fn new() -> Self {
        Self { durable: Vec::new(), recent: Vec::new(), gaps: Vec::new(), lagged: false, top: (0, 0) }
    }

    fn take(&mut self, frame: ServerFrame) {
        match frame {
            ServerFrame::Publication(publication) if publication.channel.as_str() == CHANNEL => {
                self.durable.push(publication.offset);
                self.top.0 = self.top.0.max(publication.offset);
            }
            ServerFrame::Publication(publication) => {
                self.recent.push(publication.offset);
                self.top.1 = self.top.1.max(publication.offset);
            }
            ServerFrame::Gap(gap) => {
                assert_eq!(gap.channel.as_str(), RECENT, "a durable channel loses nothing");
                self.gaps.push((gap.from, gap.to));
            }
            ServerFrame::Lag(lag) => self.lagged |= lag.behind > 0,
            _ => {}
        }
    }

    /// Each publication once, in order (once sorted, where several streams carry them), and none in silence.
    fn check(mut self, what: &str, in_order: bool, from: (u64, u64), to: (u64, u64)) {
        if !in_order {
            self.durable.sort_unstable();
            self.recent.sort_unstable();
            self.gaps.sort_unstable();
        }
        assert_eq!(self.durable, (from.0 + 1..=to.0).collect::<Vec<_>>(), "{what}");
        let lost: u64 = self.gaps.iter().map(|(first, last)| last + 1 - first).sum();
        println!(
            "{what}: {} durable, {} recent of which {lost} named as lost",
            self.durable.len(),
            to.1 - from.1
        );
        let mut all: Vec<u64> = self.gaps.iter().flat_map(|(first, last)| *first..=*last).collect();
        all.extend(&self.recent);
        all.sort_unstable();
        assert_eq!(all, (from.1 + 1..=to.1).collect::<Vec<_>>(), "{what}");
        assert!(self.lagged, "{what} was not told that it lags");
        assert!(lost > 0, "{what}: a minute is more than a recent channel keeps");
    }

    fn is_at(&self, to: (u64, u64)) -> bool {
        self.top == to
    }
}

/// A client that does not read until it is told to, up to where.
struct Stalled {
    /// Where it began: the cursors' offsets.
    from: (u64, u64),
    read_on: oneshot::Sender<(u64, u64)>,
    task: JoinHandle<Option<Found>>,
}

impl Stalled {
    async fn websocket(address: SocketAddr) -> Self {
        let mut socket = RawSocket::open_narrow(address, 8 * 1024).await;
        socket.say(r#"{"connect":{"id":1}}"#).await;
        let mut from = [0, 0];
        for (place, name) in [CHANNEL, RECENT].into_iter().enumerate() {
            socket.say(&text(&subscribe(name))).await;
            from[place] = loop {
                let frame = socket.hear().await.unwrap();
                if let Some(subscribed) = frame.get("subscribed") {
                    break subscribed["cursor"]["offset"].as_u64().unwrap();
                }
            };
        }
        let (read_on, mut told) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut pings = interval(PINGS);
            let to = loop {
                tokio::select! {
                    to = &mut told => break to,
                    _ = pings.tick() => {
                        socket.frame(TEXT, true, text(&ClientFrame::Ping(Ping { id: 9 })).as_bytes()).await;
                    }
                }
            };
            let to: (u64, u64) = to.ok()?;
            let mut found = Found::new();
            while !found.is_at(to) {
                found.take(serde_json::from_value(socket.hear().await.unwrap()).unwrap());
            }
            Some(found)
        });
        Self { from: (from[0], from[1]), read_on, task }
    }

    async fn quic(dialer: &quic::Dialer, url: &str) -> Self {
        let (_, mut reader, mut writer) = dialer.dial(url).await.unwrap().split();
        let frame =
            |frame: &ClientFrame| vec![Outgoing { bytes: Codec::Json.encode(frame), lane: Lane::Control }];
        writer
            .write(&mut frame(&ClientFrame::Connect(Connect { id: 1, ..Connect::default() })))
            .await
            .unwrap();
        let mut from = [0, 0];
        for (place, name) in [CHANNEL, RECENT].into_iter().enumerate() {
            writer.write(&mut frame(&subscribe(name))).await.unwrap();
            from[place] = loop {
                let bytes = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
                if let ServerFrame::Subscribed(subscribed) = Codec::Json.decode(&bytes).unwrap() {
                    break subscribed.cursor.offset;
                }
            };
        }
        let (read_on, mut told) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut pings = interval(PINGS);
            let to = loop {
                tokio::select! {
                    to = &mut told => break to,
                    _ = pings.tick() => writer.write(&mut frame(&ClientFrame::Ping(Ping { id: 9 }))).await.unwrap(),
                }
            };
            let to: (u64, u64) = to.ok()?;
            let mut found = Found::new();
            while !found.is_at(to) {
                let bytes = timeout(PATIENCE, reader.read()).await.expect("a frame in time").unwrap();
                found.take(Codec::Json.decode(&bytes).unwrap());
            }
            Some(found)
        });
        Self { from: (from[0], from[1]), read_on, task }
    }
}

/// Bytes that wait in the kernel to be sent by this server's sockets.
fn waiting_in_kernel(address: SocketAddr) -> u64 {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = |line: &str| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let queues = columns.nth(2)?;
        local.ends_with(&port).then(|| u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap())
    };
    table.lines().filter_map(queue).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_for_a_minute_costs_little_and_misses_nothing() {
    let (over_tcp, over_udp, control) =
        tokio::join!(ServerProcess::start(), ServerProcess::start(), ServerProcess::start());
    let servers = [&over_tcp, &over_udp, &control];
    let document = get(over_udp.http, "/v1/transports").await.json();
    let hash = STANDARD.decode(document["certificate_hashes"][0].as_str().unwrap()).unwrap();
    let trust = Trust::CertificateHashes(vec![hash.try_into().unwrap()]);
    let dialer = quic::Dialer::new(&trust, &Settings::default()).unwrap();
    let url = format!("quic://{}", over_udp.tls);

    // All are connected before anything is measured; the stalled ones stall from the first message on.
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(("WebSocket", Stalled::websocket(over_tcp.http).await));
        stalled.push(("QUIC", Stalled::quic(&dialer, &url).await));
    }
    let mut idle = Vec::new();
    for _ in 0..STALLED {
        idle.push(RawSocket::session(control.http).await);
    }
    let before = servers.map(ServerProcess::resident);
    let mut loads = Vec::new();
    for server in servers {
        loads.push(Load::start(server).await);
    }
    let began = Instant::now();
    sleep_until((began + STALL).into()).await;

    let after = servers.map(ServerProcess::resident);
    let kernel = waiting_in_kernel(over_tcp.http) / STALLED as u64;
    let mut p99s = Vec::new();
    for load in &loads {
        p99s.push(load.p99(began + WARM_UP).await);
    }
    let grown: Vec<u64> =
        after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
    let each = |grown: u64, control: u64| grown.saturating_sub(control) / STALLED as u64;
    let cost = [each(grown[0], grown[2]), each(grown[1], grown[2])];
    println!(
        "a stalled WebSocket costs {} KiB (and {} KiB in the kernel), a stalled QUIC connection {} KiB; \
         p99 {:?} and {:?} beside {STALLED} of them, {:?} without",
        cost[0] >> 10,
        kernel >> 10,
        cost[1] >> 10,
        p99s[0],
        p99s[1],
        p99s[2]
    );
    assert!(cost[0] + kernel < ALLOWED && cost[1] < ALLOWED, "{cost:?} and {kernel}");
    // The aim is 20 %; a machine with other work is noisier than that.
    let bound = p99s[2] * 2 + Duration::from_millis(5);
    assert!(p99s[..2].iter().all(|p99| *p99 <= bound), "{p99s:?}");
    drop(idle);

    for load in loads {
        let published = load.stop().await;
        assert!(
            published >= RATE * STALL.as_secs() * 9 / 10,
            "the load was not what it should be: {published}"
        );
    }
    let tops = |server: &ServerProcess| {
        let address = server.http;
        async move {
            let mut tops = [0, 0];
            for (place, name) in [CHANNEL, RECENT].into_iter().enumerate() {
                let page =
                    get(address, &format!("/v1/channels/{name}/history?backward=true&limit=1")).await.json();
                tops[place] = page["top"]["offset"].as_u64().unwrap();
            }
            (tops[0], tops[1])
        }
    };
    let (tcp_top, udp_top) = (tops(&over_tcp).await, tops(&over_udp).await);
    let read_on: Vec<_> = stalled.drain(..CATCHING_UP * 2).collect();
    // Who goes away in the middle of it is no loss either.
    drop(stalled);
    let mut reading = Vec::new();
    for (kind, Stalled { from, read_on, task }) in read_on {
        let to = if kind == "QUIC" { udp_top } else { tcp_top };
        read_on.send(to).unwrap();
        reading.push((kind, from, to, task));
    }
    for (kind, from, to, task) in reading {
        let found = timeout(PATIENCE, task).await.expect("an end in time").unwrap().unwrap();
        found.check(kind, kind != "QUIC", from, to);
    }
    until("those who went are counted out", async || {
        get(over_tcp.http, "/readyz").await.json()["sessions"].as_u64().unwrap() <= CATCHING_UP as u64
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_lags_leaves_its_channels() {
    let server = ServerProcess::start().await;
    let mut slow = RawSocket::open_narrow(server.http, 8 * 1024).await;
    slow.say(r#"{"connect":{"id":1}}"#).await;
    slow.say(&text(&subscribe(CHANNEL))).await;
    let presence = async || get(server.http, &format!("/v1/channels/{CHANNEL}/presence")).await.json();
    until("it is there", async || presence().await["sessions"] == 1).await;
    let mut wire = RawWire::session(&server, Via::Websocket, Codec::Json).await;
    // Far more than the kernel and the outbox hold.
    for _ in 0..128 {
        wire.send(&publish(CHANNEL, MessageId::random(), "x".repeat(16_000))(1)).await;
        wire.published().await;
    }
    until("its writer waits", async || waiting_in_kernel(server.http) > 64 * 1024).await;
    drop(slow);
    until("its session is over", async || get(server.http, "/readyz").await.json()["sessions"] == 1).await;
    // It may come back for a while; then it has left.
    until("it is gone", async || presence().await["sessions"] == 0).await;
}
