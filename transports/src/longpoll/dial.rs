//! The client's end.
//!
//! A poll is made when its frames are asked for, and not before: who does not read is not sent anything. What is
//! written goes beside it, in requests of its own, but for the first frames, which the first poll brings.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use thiserror::Error;
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use xpush_protocol::{CloseCode, Codec, PollAnswer, ServerFrame, TransportKind};

use super::{FRAMES_PER_REQUEST, LONGEST_WAIT, request::join};
use crate::{Closed, Farewell, Outgoing, Peer, Settings};

/// Frames are joined into one request up to this size.
const REQUEST_SIZE: usize = 64 * 1024;

/// The largest answer: all that a session has waiting.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A request that failed on its way is made again this often. The server tells an answer that was lost from one
/// that was not given.
const ATTEMPTS: u32 = 4;

/// Between attempts, times their number.
const PAUSE: Duration = Duration::from_millis(100);

/// Beyond the longest wait: for a slow network.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers that came to a `send`, of a node that did not know the client; further ones wait.
const ASIDE: usize = 64;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0} is no http: or https: URL")]
    Url(String),
    #[error("an https: URL needs a TLS configuration")]
    NoTls,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The client's end of a connection. Nothing is sent before the first frame.
#[derive(Debug)]
pub struct Dialled {
    peer: Peer,
    reader: ClientReader,
    writer: ClientWriter,
}

#[derive(Debug)]
pub struct ClientReader {
    line: Arc<Line>,
    frames: VecDeque<Bytes>,
    poll: Option<InFlight>,
    aside: mpsc::Receiver<Vec<Bytes>>,
    end: Option<Closed>,
}

#[derive(Debug)]
pub struct ClientWriter {
    line: Arc<Line>,
    begun: bool,
    aside: mpsc::Sender<Vec<Bytes>>,
}

type InFlight = AbortOnDropHandle<Result<PollAnswer, Closed>>;

/// What both halves share.
#[derive(Debug)]
struct Line {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    request_size: usize,
    /// The newest. A poll that is under way has the one before.
    state: watch::Sender<Option<String>>,
    /// The first poll: the writer makes it, the reader waits for it.
    first: Mutex<Option<InFlight>>,
    begun: CancellationToken,
    /// From this end.
    closed: CancellationToken,
    /// By the server, or for want of one.
    ended: CancellationToken,
}

/// Prepares a client of the `http:` or `https:` URL of a node's `/v1/poll`. It resolves the name; the first write
/// connects.
pub async fn dial(
    url: &str,
    settings: &Settings,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Dialled, DialError> {
    let not_ours = || DialError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_ours())?;
    let host = uri.host().ok_or_else(not_ours)?.trim_start_matches('[').trim_end_matches(']');
    let (port, config) = match (uri.scheme_str(), tls) {
        (Some("http"), _) => (80, plain()),
        (Some("https"), Some(tls)) => {
            let mut tls = (*tls).clone();
            // The connector offers HTTP/2 and HTTP/1.1 itself.
            tls.alpn_protocols.clear();
            (443, tls)
        }
        (Some("https"), None) => return Err(DialError::NoTls),
        _ => return Err(not_ours()),
    };
    let port = uri.port_u16().unwrap_or(port);
    let address = lookup_host((host, port))
        .await?
        .next()
        .ok_or(io::ErrorKind::AddrNotAvailable)
        .map_err(io::Error::from)?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    let line = Arc::new(Line {
        http: Client::builder(TokioExecutor::new()).build(connector),
        uri,
        request_size: settings.frame_limit.min(REQUEST_SIZE),
        state: watch::Sender::new(None),
        first: Mutex::new(None),
        begun: CancellationToken::new(),
        closed: CancellationToken::new(),
        ended: CancellationToken::new(),
    });
    let (sender, aside) = mpsc::channel(ASIDE);
    let peer = Peer {
        kind: TransportKind::LongPoll,
        address,
        codec: Some(Codec::Json),
        origin: None,
        wants_checkpoints: false,
    };
    let reader =
        ClientReader { line: Arc::clone(&line), frames: VecDeque::new(), poll: None, aside, end: None };
    Ok(Dialled { peer, reader, writer: ClientWriter { line, begun: false, aside: sender } })
}

/// Trusts nobody: it is never asked, where the URL is http.
fn plain() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    // Fails only where the provider has no suite for a version; ring has them all.
    #[allow(clippy::expect_used)]
    let builder = builder.with_safe_default_protocol_versions().expect("ring serves TLS 1.2 and 1.3");
    builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

impl crate::Connection for Dialled {
    type Reader = ClientReader;
    type Writer = ClientWriter;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, ClientReader, ClientWriter) {
        (self.peer, self.reader, self.writer)
    }
}

impl crate::Reader for ClientReader {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            // Kept where a cancelled read leaves it.
            let poll = match &mut self.poll {
                Some(poll) => poll,
                None => {
                    self.line.begun.cancelled().await;
                    let first = self.line.first.lock().unwrap_or_else(PoisonError::into_inner).take();
                    self.poll.insert(first.unwrap_or_else(|| Line::poll(&self.line, Vec::new())))
                }
            };
            tokio::select! {
                biased;
                () = self.line.closed.cancelled() => {
                    self.end = Some(Closed::Lost("it was closed from this end".into()));
                }
                Some(frames) = self.aside.recv() => self.frames.extend(frames),
                answer = poll => {
                    self.poll = None;
                    match answer.map_err(|error| Closed::Lost(error.to_string())).and_then(|answer| answer) {
                        Ok(answer) => self.take(answer),
                        Err(closed) => self.end = Some(closed),
                    }
                }
            }
        }
    }
}

impl ClientReader {
    fn take(&mut self, answer: PollAnswer) {
        self.frames.extend(frames(answer.frames));
        if answer.state.is_none() {
            let close = self.frames.back().and_then(|frame| Codec::Json.decode::<ServerFrame>(frame).ok());
            self.end = Some(if let Some(ServerFrame::Close(close)) = close {
                self.frames.pop_back();
                Closed::ByPeer { code: close.code, reason: close.reason }
            } else {
                Closed::ByPeer { code: CloseCode::Normal, reason: String::new() }
            });
        }
    }
}

impl crate::Writer for ClientWriter {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        let mut request = Vec::new();
        let mut size = 0;
        for Outgoing { bytes, .. } in frames.drain(..) {
            if Codec::detect(&bytes) != Codec::Json {
                return Err(Closed::Protocol("long-polling carries JSON only".into()));
            }
            if request.len() == FRAMES_PER_REQUEST
                || (size > 0 && size + bytes.len() > self.line.request_size)
            {
                self.send(std::mem::take(&mut request)).await?;
                size = 0;
            }
            size += bytes.len();
            request.push(bytes);
        }
        if request.is_empty() { Ok(()) } else { self.send(request).await }
    }

    /// The protocol has no goodbye: a client that polls no more is idle after a while.
    async fn close(self, _: Farewell) {
        self.line.closed.cancel();
    }
}

impl ClientWriter {
    async fn send(&mut self, request: Vec<Bytes>) -> Result<(), Closed> {
        if !self.begun {
            self.begun = true;
            let poll = Line::poll(&self.line, request);
            *self.line.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(poll);
            self.line.begun.cancel();
            return Ok(());
        }
        let mut states = self.line.state.subscribe();
        let state = tokio::select! {
            () = self.line.ended.cancelled() => return Err(Closed::Lost("the connection has ended".into())),
            state = states.wait_for(Option::is_some) => state.map_or(None, |state| state.clone()),
        };
        let answer = self.line.post(state.as_deref(), &request, true).await?;
        if !answer.frames.is_empty() {
            let _ = self.aside.send(frames(answer.frames).collect()).await;
        }
        Ok(())
    }
}

impl Line {
    /// A poll with the newest state, under way until the handle is dropped.
    fn poll(line: &Arc<Self>, request: Vec<Bytes>) -> InFlight {
        let line = Arc::clone(line);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let state = line.state.borrow().clone();
            let answer = line.post(state.as_deref(), &request, false).await;
            match &answer {
                Ok(PollAnswer { state: Some(state), .. }) => {
                    line.state.send_replace(Some(state.clone()));
                }
                // Nobody is there to send anything to.
                Ok(_) | Err(_) => line.ended.cancel(),
            }
            answer
        }))
    }

    /// Makes a request until it is answered or refused for good.
    async fn post(&self, state: Option<&str>, frames: &[Bytes], send: bool) -> Result<PollAnswer, Closed> {
        let mut body = b"{".to_vec();
        if let Some(state) = state {
            body.extend_from_slice(b"\"state\":");
            body.extend_from_slice(&Codec::Json.encode(&state));
            body.push(b',');
        }
        body.extend_from_slice(if send { b"\"send\":true,\"frames\":" } else { b"\"frames\":" });
        join(&mut body, frames);
        body.push(b'}');
        let body = Bytes::from(body);
        let mut attempt = 1;
        loop {
            match timeout(LONGEST_WAIT + PATIENCE, self.attempt(body.clone())).await {
                Ok(Ok((StatusCode::OK, body))) => {
                    return serde_json::from_slice(&body)
                        .map_err(|error| Closed::Protocol(error.to_string()));
                }
                // The server held it for a while, and took nothing.
                Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, _))) if state.is_some() => {}
                Ok(Ok((status, body))) => {
                    let body = String::from_utf8_lossy(&body);
                    return Err(Closed::Lost(format!("the server refused with status {status}: {body}")));
                }
                Ok(Err(error)) if attempt >= ATTEMPTS => return Err(Closed::Lost(error)),
                Err(_) if attempt >= ATTEMPTS => return Err(Closed::Idle),
                Ok(Err(_)) | Err(_) => attempt += 1,
            }
            sleep(PAUSE * attempt).await;
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

fn frames(raw: Vec<Box<serde_json::value::RawValue>>) -> impl Iterator<Item = Bytes> {
    raw.into_iter().map(|frame| Bytes::from(String::from(Box::<str>::from(frame))))
}
