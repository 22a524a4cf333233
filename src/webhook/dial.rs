//! The HTTP client that calls what others name: webhooks, and the keys of token issuers.
//!
//! It resolves a name itself, and connects to exactly the addresses that it has checked: a name that leads elsewhere
//! a moment later (DNS rebinding) leads nobody there. TLS and the `Host` header keep the name. Redirects are not followed,
//! no cookie is kept, no proxy is asked, and everything has a bound: connections, time, headers, body.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto, pki_types::ServerName},
};
use url::Host;

use super::{
    call::{Answer, Call, CallError, Dial, Target},
    network::{Kind, Reach, Resolve, System},
};

/// For a connection, TLS included: a target that is so far away is no use to anybody who waits for it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_TRIED: usize = 4;
/// To one target (scheme, host and port) at once, so that a slow one does not take the files of all.
const CONNECTIONS_PER_TARGET: usize = 32;
/// Of those, that are kept open for the next request.
const IDLE_PER_TARGET: usize = 8;
/// They are kept for as long: less than servers keep them, and a name that leads elsewhere now is soon followed.
const IDLE_KEPT: Duration = Duration::from_secs(10);
/// Targets beyond which those that are not in use are forgotten.
const TARGETS_KEPT: usize = 1_000;
/// An answer's status line and headers.
const HEADER_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;

/// Calls targets within a reach.
pub struct Dialer {
    reach: Reach,
    resolver: Arc<dyn Resolve>,
    /// Made with the first call that needs it. The error is for a person.
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    targets: Mutex<HashMap<String, Arc<Connections>>>,
}

/// What there is of one target.
struct Connections {
    room: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

/// Nothing but itself polls a connection that is idle, so what its other end does is seen when it is used again.
struct Idle {
    wire: Wire,
    since: Instant,
}

/// An HTTP connection: what takes requests, and what has to be polled for that.
struct Wire {
    send: SendRequest<Full<Bytes>>,
    /// `None`: the connection is over. Dropped, it tells so to who waits to send.
    driver: Option<BoxFuture<'static, Result<(), hyper::Error>>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Dialer {
    /// With the resolver and the authorities of the operating system.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self::with(reach, Arc::new(System))
    }

    #[must_use]
    pub fn with(reach: Reach, resolver: Arc<dyn Resolve>) -> Self {
        Self { reach, resolver, tls: OnceLock::new(), targets: Mutex::new(HashMap::new()) }
    }

    /// Believes these authorities in the place of the system's.
    #[must_use]
    pub fn trusting(self, roots: RootCertStore) -> Self {
        Self { tls: OnceLock::from(client_config(roots)), ..self }
    }

    async fn call_in_time(&self, call: &Call) -> Result<Answer, CallError> {
        let connections = self.connections(&call.target);
        // It is never closed.
        let _room = connections.room.acquire().await.map_err(|_| CallError::Nobody)?;
        if let Some(mut wire) = connections.take_idle() {
            match exchange(&mut wire, call).await {
                // It was closed while nobody looked. Receivers know a delivery by its id.
                Err(CallError::Broken(_)) => {}
                Ok((answer, reusable)) => {
                    connections.keep(wire, reusable);
                    return Ok(answer);
                }
                Err(error) => return Err(error),
            }
        }
        let mut wire = timeout(CONNECT_DEADLINE, self.connect(&call.target))
            .await
            .unwrap_or(Err(CallError::TimedOut(CONNECT_DEADLINE)))?;
        let (answer, reusable) = exchange(&mut wire, call).await?;
        connections.keep(wire, reusable);
        Ok(answer)
    }

    fn connections(&self, target: &Target) -> Arc<Connections> {
        let mut targets = lock(&self.targets);
        if let Some(connections) = targets.get(target.origin()) {
            return Arc::clone(connections);
        }
        if targets.len() >= TARGETS_KEPT {
            targets.retain(|_, connections| Arc::strong_count(connections) > 1);
        }
        let connections = Arc::new(Connections {
            room: Semaphore::new(CONNECTIONS_PER_TARGET),
            idle: Mutex::new(Vec::new()),
        });
        targets.insert(target.origin().to_owned(), Arc::clone(&connections));
        connections
    }

    async fn connect(&self, target: &Target) -> Result<Wire, CallError> {
        let mut failure = None;
        for address in self.addresses(target).await?.into_iter().take(ADDRESSES_TRIED) {
            match TcpStream::connect(SocketAddr::new(address, target.port())).await {
                Ok(stream) => return self.begin(target, stream).await,
                Err(error) => failure = Some(error),
            }
        }
        Err(CallError::Unreachable(failure.map_or_else(|| "no address".into(), |error| error.to_string())))
    }

    /// Those of the target that may be called. Who resolves to some that may not is called at the others only.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, CallError> {
        let found = match target.host() {
            Host::Ipv4(address) => vec![address.into()],
            Host::Ipv6(address) => vec![address.into()],
            Host::Domain(name) => self
                .resolver
                .resolve(name)
                .await
                .map_err(|error: io::Error| CallError::Unresolved(error.to_string()))?,
        };
        let mut failure = CallError::Unresolved("it has no address".into());
        let mut usable = Vec::new();
        for address in found {
            match self.reach.kind(address) {
                Kind::Allowed => usable.push(address),
                Kind::Public if target.is_encrypted() => usable.push(address),
                Kind::Public => failure = CallError::Unencrypted,
                Kind::Refused => failure = CallError::Private(address),
            }
        }
        if usable.is_empty() { Err(failure) } else { Ok(usable) }
    }

    async fn begin(&self, target: &Target, stream: TcpStream) -> Result<Wire, CallError> {
        // A request is one small write, and the answer to it is wanted now.
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = if target.is_encrypted() {
            let config = self.tls.get_or_init(system_config).clone().map_err(CallError::Tls)?;
            let name = match target.host() {
                Host::Domain(name) => ServerName::try_from(name.to_owned())
                    .map_err(|_| CallError::Tls("the host is no name".into()))?,
                Host::Ipv4(address) => ServerName::IpAddress(IpAddr::V4(address).into()),
                Host::Ipv6(address) => ServerName::IpAddress(IpAddr::V6(address).into()),
            };
            let connected = TlsConnector::from(config).connect(name, stream).await;
            Box::new(connected.map_err(|error| CallError::Tls(error.to_string()))?)
        } else {
            Box::new(stream)
        };
        let (send, driver) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        Ok(Wire { send, driver: Some(Box::pin(driver)) })
    }
}

impl Dial for Dialer {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(async move {
            let in_time = timeout(call.within, self.call_in_time(&call)).await;
            in_time.unwrap_or(Err(CallError::TimedOut(call.within)))
        })
    }
}

impl Connections {
    fn take_idle(&self) -> Option<Wire> {
        let mut idle = lock(&self.idle);
        idle.retain(|idle| idle.since.elapsed() < IDLE_KEPT && !idle.wire.send.is_closed());
        idle.pop().map(|idle| idle.wire)
    }

    fn keep(&self, wire: Wire, reusable: bool) {
        let mut idle = lock(&self.idle);
        if reusable && idle.len() < IDLE_PER_TARGET {
            idle.push(Idle { wire, since: Instant::now() });
        }
    }
}

/// One request and its whole answer, and whether the connection can take another.
async fn exchange(wire: &mut Wire, call: &Call) -> Result<(Answer, bool), CallError> {
    let Wire { send, driver } = wire;
    let asking = async {
        send.ready().await.map_err(broken)?;
        let response = send.send_request(request(call)?).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = read(response.into_body(), call.answer_limit).await?;
        let reusable = send.ready().await.is_ok();
        Ok((Answer { status, body }, reusable))
    };
    let mut asking = pin!(asking);
    if let Some(driving) = driver {
        tokio::select! {
            biased;
            answer = &mut asking => return answer,
            _ = driving => {}
        }
    }
    // It is over; what it has read already still comes.
    *driver = None;
    asking.await
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
    let method = if call.body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder()
        .method(method)
        .uri(call.target.path_and_query())
        .header(header::HOST, call.target.authority())
        .header(header::USER_AGENT, concat!("xpush/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json");
    if call.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let body = Full::new(call.body.clone().unwrap_or_default());
    request.body(body).map_err(|error| CallError::Broken(format!("it can't be asked so: {error}")))
}

/// The body, cut where it is longer than it may be: one without end too.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, CallError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing to us.
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            if whole.len() + data.len() > limit {
                return Err(CallError::TooLarge(limit));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

fn broken(error: hyper::Error) -> CallError {
    CallError::Broken(error.to_string())
}

fn system_config() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this system has no certificate authorities; install its CA certificates".into());
    }
    client_config(roots)
}

/// TLS 1.2 as well: these are other people's servers.
fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
