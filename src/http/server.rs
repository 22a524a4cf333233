//! The TCP side: HTTP/1.1 and HTTP/2, with or without TLS, on one listener each.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};
use xpush_transports::{Admission, Permit};

use super::PeerAddress;

/// For TLS, and for each request's headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// HTTP/2 peers are asked this often whether they are still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For what is under way when the server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(3);
/// What the kernel may hold for one connection that does not read; it doubles this for its own bookkeeping. Left to
/// itself it goes up to 4 MiB (measured: 3.2 MiB for each client that stalls under 1,000 messages/s), which a network
/// full of phones makes the machine's memory. It also bounds what is under way: at 100 ms, some 640 KiB/s.
const SEND_BUFFER: u32 = 64 * 1024;
/// Connections that wait to be accepted, as tokio would have it.
const LISTEN_BACKLOG: u32 = 1024;
/// After an accept failed for want of files: until some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests of one HTTP/2 connection at once: a poll that waits, and what is sent beside it.
const STREAMS_LIMIT: u32 = 16;

/// Marks a request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Secure;

/// Why the server can't listen.
#[derive(Debug, Error)]
#[error("can't listen on {address} (TCP): {error}{hint}")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
    hint: &'static str,
}

/// One listener.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    admission: Admission,
}

impl Server {
    /// `admission` counts the sockets, beside the sessions that they may carry: a WebSocket holds its place here
    /// only until it is upgraded.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        admission: Admission,
    ) -> Result<Self, BindError> {
        let listener = listen(address).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    ". Another program uses it: stop that one, or choose another port"
                }
                io::ErrorKind::PermissionDenied => ". Ports below 1024 need a privilege: choose another",
                io::ErrorKind::AddrNotAvailable => ". This machine has no such address",
                _ => "",
            };
            BindError { address, error, hint }
        })?;
        Ok(Self { listener, tls, admission })
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled, then lets what is under way end.
    pub async fn run(self, router: Router, cancel: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = cancel.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a TCP connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.admission.admit(peer.ip()) {
                Ok(permit) => {
                    connections.spawn(serve(
                        stream,
                        peer,
                        self.tls.clone(),
                        router.clone(),
                        permit,
                        cancel.clone(),
                    ));
                }
                // No answer: whoever opens so many would not read it.
                Err(refused) => debug!(%peer, %refused, "a TCP connection was dropped"),
            }
        }
        let rest = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_DEADLINE, rest).await.is_err() {
            debug!("HTTP connections were cut at the end");
        }
    }
}

/// As `TcpListener::bind`, but for the buffer, which accepted connections inherit.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    permit: Permit,
    cancel: CancellationToken,
) {
    let _permit = permit;
    // Answers are small and wanted at once. A socket that is gone already shows it at the next read.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_http(TokioIo::new(stream), peer, router, false, cancel).await };
    match timeout(HEADER_DEADLINE, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(TokioIo::new(stream), peer, router, true, cancel).await,
        Ok(Err(error)) => debug!(%peer, %error, "TLS failed"),
        Err(_) => debug!(%peer, "TLS took too long"),
    }
}

async fn serve_http<I>(io: I, peer: SocketAddr, router: Router, secure: bool, cancel: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddress(peer));
        if secure {
            request.extensions_mut().insert(Secure);
        }
        async move {
            let response = router.call(request).await.unwrap_or_else(|never: Infallible| match never {});
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).max_buf_size(16 * 1024);
    builder
        .http2()
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(HEADER_DEADLINE)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_LIMIT)
        .max_header_list_size(16 * 1024);
    let connection = builder.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "an HTTP connection ended badly");
    }
}
