//! `xpush serve`: the one place that knows which backends and wires there are, and puts them together.

mod document;

use std::{collections::HashMap, io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Extension, Router, extract::Request, routing::any};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use xpush::{
    broker,
    channel::Channels,
    config::{Access, Config, LogFormat},
    http::{self, Api, PeerAddress, server::Server},
    log::{Capacity, Embedded, Keep, KeepByNamespace, Log, Memory},
    metrics::Metrics,
    namespace::{Namespaces, Retention},
    node::{Limits, Node, Parts},
    presence,
    session::serve_all,
};
use xpush_transports::{Admission, CLOSE_DEADLINE, longpoll, tls, tls::Certificates, udp, websocket};

use crate::cli::{self, ServeArgs};
use document::Document;

/// Channels in memory at once, over all namespaces without a durable log.
const MEMORY_CHANNELS: usize = 1_000_000;
/// Bytes of messages in memory at once, over the same namespaces: half of what the smallest machine that one would
/// rent has, so that the connections and the store fit beside it.
const MEMORY_BYTES: usize = 256 << 20;
/// HTTP connections at once, whatever they carry; the files that a process may open are shared with the store.
const SOCKETS_LIMIT: usize = 16_384;
/// From SIGTERM until the clients have to be elsewhere.
const DRAIN: Duration = Duration::from_secs(5);
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Runs a server until it is told to stop.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = cli::config::of_server(&args)?;
    start_log(&config)?;
    let access = config.access()?;
    let running = Running::start(&config, access).await?;
    // Who starts a server need not read what it says.
    let _ = cli::print(&running.banner);
    running.until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let level = &config.log.level;
    // A plain level is meant for what this server does; libraries only speak up when something is wrong.
    let directives = if level.contains(['=', ',']) {
        level.clone()
    } else {
        format!("warn,xpush={level},xpush_transports={level}")
    };
    let filter = EnvFilter::try_new(&directives).with_context(|| {
        format!("`log.level` is {level:?}, which is neither a level nor a list of target=level")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Everything that runs, and how it is stopped, in order.
struct Running {
    node: Arc<Node>,
    store: Arc<Embedded>,
    banner: String,
    /// Sessions and wires: ended first, so that every goodbye still has a server to carry it.
    sessions: Stage,
    /// What carries them, and what looks after the node.
    servers: Stage,
}

/// Tasks that end together.
struct Stage {
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stage {
    fn new() -> Self {
        Self { cancel: CancellationToken::new(), tasks: JoinSet::new() }
    }

    async fn stop(mut self, what: &str) {
        self.cancel.cancel();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(CLOSE_DEADLINE * 2, rest).await.is_err() {
            warn!("{what} did not end in time and were cut");
        }
    }
}

impl Running {
    async fn start(config: &Config, access: Access) -> anyhow::Result<Self> {
        let (mut sessions, mut servers) = (Stage::new(), Stage::new());
        let settings = config.transport_settings();
        let limits = &config.limits;
        let admission = Admission::new(limits.connections, limits.connections_per_address);

        // Ports first: a second server on this machine should hear of the port, not of the store's lock.
        let certificates = certificates(config)?;
        let tls = certificates.server_config(&[b"h2", b"http/1.1"]);
        let sockets = Admission::new(SOCKETS_LIMIT, limits.connections_per_address);
        let plain = Server::bind(config.listen.http, None, sockets.clone()).await?;
        let secure = Server::bind(config.listen.tls, Some(TlsAcceptor::from(Arc::new(tls))), sockets).await?;
        let (http_address, tls_address) = (plain.local_address()?, secure.local_address()?);
        let cancel = sessions.cancel.clone();
        let udp = udp::bind(tls_address, &certificates, settings.clone(), admission.clone(), cancel.clone())?;

        let (node, store) = node(config, access)?;
        let (upgrader, websockets) = websocket::listener(settings.clone(), admission.clone(), cancel.clone());
        let (poller, polls) = longpoll::listener(settings.clone(), admission, cancel.clone());
        sessions.tasks.spawn(serve_all(Arc::clone(&node), udp.quic, cancel.clone()));
        sessions.tasks.spawn(serve_all(Arc::clone(&node), udp.webtransport, cancel.clone()));
        sessions.tasks.spawn(serve_all(Arc::clone(&node), websockets, cancel.clone()));
        sessions.tasks.spawn(serve_all(Arc::clone(&node), polls, cancel));

        let document =
            Document::new(config, &node.name, http_address, tls_address, Arc::clone(&certificates));
        let banner = document.banner(config, &node);
        let api = Api {
            node: Arc::clone(&node),
            origins: settings.origins,
            transports: Arc::new(move |host, secure| document.answer(host, secure)),
        };
        let router = http::router(api).merge(wires(upgrader, poller));
        let cancel = servers.cancel.clone();
        servers.tasks.spawn(udp.driver.run());
        servers.tasks.spawn(plain.run(router.clone(), cancel.clone()));
        servers.tasks.spawn(secure.run(router, cancel.clone()));
        servers.tasks.spawn(certificates.run(cancel.clone()));
        servers.tasks.spawn(Arc::clone(&node).tend(cancel));
        info!(node = %node.name, http = %http_address, tls = %tls_address, "started");
        Ok(Self { node, store, banner, sessions, servers })
    }

    /// Ctrl-C ends it at once, SIGTERM lets the clients go elsewhere first; both say goodbye.
    async fn until_stopped(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {
                info!(sessions = self.node.sessions.count(), "draining");
                self.node.drain(DRAIN);
                tokio::select! {
                    () = drained(&self.node) => {}
                    () = tokio::time::sleep(DRAIN) => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ = interrupt.recv() => {}
        }
        self.sessions.stop("sessions").await;
        self.servers.stop("servers").await;
        self.node.finish().await;
        let store = self.store;
        tokio::task::spawn_blocking(move || store.close()).await?;
        info!("stopped");
        Ok(())
    }
}

async fn drained(node: &Node) {
    let mut ticks = interval(DRAIN_POLL);
    while node.sessions.count() > 0 {
        ticks.tick().await;
    }
}

/// The wires that live on an HTTP server.
fn wires(upgrader: websocket::Upgrader, poller: longpoll::Poller) -> Router {
    let connect = move |Extension(PeerAddress(peer)): Extension<PeerAddress>, request: Request| async move {
        upgrader.upgrade(peer, request)
    };
    let poll = move |Extension(PeerAddress(peer)): Extension<PeerAddress>, request: Request| async move {
        poller.poll(peer, request).await
    };
    Router::new().route("/v1/connect", any(connect)).route("/v1/poll", any(poll))
}

fn certificates(config: &Config) -> anyhow::Result<Arc<Certificates>> {
    Ok(match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => Certificates::from_files(cert, key)?,
        _ => Certificates::self_signed(&config.store.path.join("tls"), &[], tls::system_clock())?,
    })
}

fn node(config: &Config, access: Access) -> anyhow::Result<(Arc<Node>, Arc<Embedded>)> {
    let namespaces = config.namespaces();
    let store = Arc::new(Embedded::open(&config.store.path.join("log"), namespaces.keep())?);
    let channels = Arc::new(Channels::default());
    let limits = &config.limits;
    let node = Node::new(Parts {
        name: config.node.name.clone(),
        limits: Limits {
            frame: size(limits.frame),
            data: size(limits.data),
            in_flight: limits.in_flight as usize,
            subscriptions: limits.subscriptions as usize,
            publishes_per_second: limits.publishes_per_second,
            ping_interval: limits.ping_interval.duration(),
        },
        auth: access.auth,
        recent: Arc::new(Memory::new(
            kept_in_memory(&namespaces),
            Capacity { channels: MEMORY_CHANNELS, bytes: MEMORY_BYTES },
        )),
        durable: Arc::clone(&store) as Arc<dyn Log>,
        broker: Arc::new(broker::InProcess::new(Arc::clone(&channels))),
        presence: Arc::new(presence::InProcess::default()),
        metrics: Arc::new(Metrics::default()),
        namespaces,
        channels,
    });
    Ok((node, store))
}

fn size(size: xpush::config::Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn kept_in_memory(namespaces: &Namespaces) -> KeepByNamespace {
    let keep = namespaces.iter().filter_map(|(name, policy)| {
        let keep = match policy.retention {
            Retention::None => Keep { count: Some(0), age: None },
            Retention::Recent { size, ttl } => Keep { count: Some(size as u64), age: Some(ttl) },
            Retention::Durable { .. } => return None,
        };
        Some((name.clone(), keep))
    });
    keep.collect::<HashMap<_, _>>()
}
