//! `xpush serve`: the one place that knows which backends and wires there are, and puts them together.

mod backends;
mod document;
mod watched;

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

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
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};
use xpush::{
    broker::Inbox,
    config::{Access, Config, LogFormat, Role},
    directory::Directory,
    http::{self, Api, PeerAddress, server::Server},
    membership::Roles,
    metrics::Metrics,
    node::{Limits, Node, Parts},
    session::serve_all,
    webhook::{dial::Dialer, network::Reach},
};
use xpush_transports::{Admission, CLOSE_DEADLINE, longpoll, tls, tls::Certificates, udp, websocket};

use crate::cli::{self, ServeArgs};
use backends::Backends;
use document::Document;
use watched::Level;

/// HTTP connections at once, whatever they carry; the files that a process may open are shared with the store.
const SOCKETS_LIMIT: usize = 16_384;
/// From leaving the look-up until the clients are told: nobody shall be sent back here.
const LOOKUP_DELAY: Duration = Duration::from_millis(500);
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Runs a server until it is told to stop.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = cli::config::of_server(&args)?;
    let level = start_log(&config)?;
    use_small_pages();
    let access = config.access()?;
    let running = Running::start(&config, access, level).await?;
    // Who starts a server need not read what it says.
    let _ = cli::print(&running.banner);
    running.until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}

/// A server's memory is many small pieces that come and go. In pages of 2 MiB, which Linux gives where it may, it keeps and
/// clears more than it uses: 5.1 KiB instead of 4.7 for an idle connection, and a tenth of the time of a durable message
/// (`docs/PERFORMANCE.md`).
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages can't be turned off");
    }
}

fn start_log(config: &Config) -> anyhow::Result<Level> {
    let (filter, level) = reload::Layer::new(filter(&config.log.level)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(level)
}

/// A plain level is meant for what this server does; libraries only speak up when something is wrong.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let directives = if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("warn,xpush={level},xpush_transports={level}")
    };
    EnvFilter::try_new(&directives).with_context(|| {
        format!("`log.level` is {level:?}, which is neither a level nor a list of target=level")
    })
}

/// Everything that runs, and how it is stopped, in order.
struct Running {
    node: Arc<Node>,
    backends: Backends,
    drain: Duration,
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
    async fn start(config: &Config, access: Access, level: Level) -> anyhow::Result<Self> {
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
        let roles = roles(config);
        let udp = if roles.channel {
            Some(udp::bind(tls_address, &certificates, settings.clone(), admission.clone(), cancel.clone())?)
        } else {
            None
        };

        let document = Document::new(config, http_address, tls_address, Arc::clone(&certificates));
        let namespaces = config.namespaces();
        let inbox = Arc::new(Inbox::new(config.node.name.parse()?));
        let backends = Backends::start(
            config,
            &namespaces,
            &inbox,
            document.node(inbox.node(), roles, config.node.weight),
        )
        .await?;
        let node = Node::new(Parts {
            limits: self::limits(config),
            auth: access.auth,
            inbox,
            recent: Arc::clone(&backends.recent),
            durable: Arc::clone(&backends.durable),
            directory: Arc::new(
                Directory::new(Arc::clone(&backends.directory))
                    .with_open_registration(config.is_development()),
            ),
            broker: Arc::clone(&backends.broker),
            membership: Arc::clone(&backends.membership),
            presence: Arc::clone(&backends.presence),
            metrics: Arc::new(Metrics::default()),
            namespaces,
        });
        let reach = Reach::with_private(config.webhooks.allow_private.clone());
        let dialer = Arc::new(Dialer::new(reach));
        node.directory.dial_by(Arc::clone(&dialer) as _);
        node.webhooks.dial_by(dialer);
        backends::loaded(&node).await?;
        let banner = document.banner(config, &node);
        let api = Api {
            node: Arc::clone(&node),
            roles,
            origins: settings.origins.clone(),
            transports: Arc::new(move |host, secure| document.answer(host, secure)),
        };
        let mut router = http::router(api);
        if let Some(udp) = udp {
            let (upgrader, websockets) =
                websocket::listener(settings.clone(), admission.clone(), cancel.clone());
            let (poller, polls) = longpoll::listener(settings, admission, cancel.clone());
            sessions.tasks.spawn(serve_all(Arc::clone(&node), udp.quic, cancel.clone()));
            sessions.tasks.spawn(serve_all(Arc::clone(&node), udp.webtransport, cancel.clone()));
            sessions.tasks.spawn(serve_all(Arc::clone(&node), websockets, cancel.clone()));
            sessions.tasks.spawn(serve_all(Arc::clone(&node), polls, cancel));
            servers.tasks.spawn(udp.driver.run());
            router = router.merge(wires(upgrader, poller));
        }
        let cancel = servers.cancel.clone();
        servers.tasks.spawn(plain.run(router.clone(), cancel.clone()));
        servers.tasks.spawn(secure.run(router, cancel.clone()));
        servers.tasks.spawn(certificates.run(cancel.clone()));
        if let Some(document) = &backends.document {
            let (document, node) = (document.clone(), Arc::clone(&node));
            servers.tasks.spawn(watched::follow(document, config.clone(), node, level, cancel.clone()));
        }
        servers.tasks.spawn(Arc::clone(&node).tend(cancel));
        info!(node = %node.id, http = %http_address, tls = %tls_address, "started");
        let drain = config.node.drain.duration();
        Ok(Self { node, backends, drain, banner, sessions, servers })
    }

    /// Ctrl-C ends it at once, SIGTERM (or `xpush node drain`) lets the clients go elsewhere first; both say goodbye.
    async fn until_stopped(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let at_once = tokio::select! {
            _ = terminate.recv() => false,
            () = self.node.asked_to_leave() => false,
            _ = interrupt.recv() => true,
        };
        if !at_once {
            info!(sessions = self.node.sessions.count(), "draining");
            tokio::select! {
                () = drain(&self.node, self.drain) => {}
                _ = interrupt.recv() => {}
            }
        }
        self.sessions.stop("sessions").await;
        self.servers.stop("servers").await;
        self.node.finish().await;
        drop(self.node);
        self.backends.close().await;
        info!("stopped");
        Ok(())
    }
}

/// Leaves the look-up, tells the clients, and waits until they are elsewhere or their time is over.
async fn drain(node: &Node, within: Duration) {
    node.leave_lookup();
    if node.is_in_cluster() {
        tokio::time::sleep(LOOKUP_DELAY).await;
    }
    node.drain(within);
    let gone = async {
        let mut ticks = interval(DRAIN_POLL);
        while node.sessions.count() > 0 {
            ticks.tick().await;
        }
    };
    // Those that are left are told goodbye.
    let _ = timeout(within, gone).await;
}

fn roles(config: &Config) -> Roles {
    let has = |role| config.node.roles.contains(&role);
    Roles { session: has(Role::Session), channel: has(Role::Channel) }
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

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        frame: size(limits.frame),
        data: size(limits.data),
        in_flight: limits.in_flight as usize,
        subscriptions: limits.subscriptions as usize,
        publishes_per_second: limits.publishes_per_second,
        ping_interval: limits.ping_interval.duration(),
    }
}

fn size(size: xpush::config::Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
