//! The requests.

use std::{error::Error, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{ClientFrame, Close, CloseCode, Codec, Connect, ErrorCode};

use super::{
    Connection,
    connection::Exchanges,
    exchange::{Answer, Begun, Exchange, Hung},
    request::{Poll, too_large},
    state::{PollId, State},
};
use crate::{
    Admission, Closed, Settings,
    refusal::{Refusal, host, origin},
};

/// How long a request's frames wait for room: a session that takes none for so long is stuck, and the client had
/// better ask again later than hold a request.
const ROOM_DEADLINE: Duration = Duration::from_secs(10);

/// How long the answer to frames that were handed to a node that does not know the client waits for their session.
const DETACHED_DEADLINE: Duration = Duration::from_secs(10);

/// How long a browser remembers that it may post here.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");

/// Answers polls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Poller {
    settings: Settings,
    admission: Admission,
    exchanges: Exchanges,
    opened: mpsc::Sender<Connection>,
    cancel: CancellationToken,
}

impl Poller {
    pub(super) fn new(
        settings: Settings,
        admission: Admission,
        opened: mpsc::Sender<Connection>,
        cancel: CancellationToken,
    ) -> Self {
        Self { settings, admission, exchanges: Exchanges::default(), opened, cancel }
    }

    /// The answer to one request (`POST`, or a browser's `OPTIONS` before it); `peer` is the client's address. Takes
    /// as long as the poll hangs. Dropped before that, as when the client hangs up, nothing is lost: the answer is
    /// kept for the next poll.
    ///
    /// Refused are: bodies that are no polls and states that are none of ours (400), pages of another origin (403),
    /// bodies and frames over the limits (413), connections over the limits (429), and what has no room now (503).
    /// The body is then an `error` frame.
    pub async fn poll<B>(&self, peer: SocketAddr, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let origin = origin(&request);
        if !self.settings.origins.allow(origin.as_deref(), host(request.headers(), request.uri())) {
            return Refusal::origin(origin.as_deref().unwrap_or_default()).response();
        }
        let mut response = match *request.method() {
            Method::POST => self
                .answer(peer, origin.clone(), request.into_body())
                .await
                .map_or_else(|refusal| refusal.response(), |answer| answer.response()),
            Method::OPTIONS => preflight(),
            _ => {
                let refusal =
                    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::NotSupported, "polls are posted");
                let mut response = refusal.response();
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
                response
            }
        };
        // The page may read refusals as well.
        if let Some(origin) = origin.and_then(|origin| HeaderValue::try_from(origin).ok()) {
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
        response
    }

    async fn answer<B>(&self, peer: SocketAddr, origin: Option<String>, body: B) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut poll = Poll::read(body, &self.settings).await?;
        let client = Client { address: peer, origin };
        let state = poll.state.take();
        let exchange = state.as_ref().and_then(|state| self.exchanges.get(state.id));
        self.check_frames(&poll, exchange.as_deref())?;
        match (state, exchange) {
            (None, _) if poll.send => {
                Err(Refusal::bad_request(ErrorCode::InvalidField, "`send` needs the state of a poll"))
            }
            (None, _) if poll.frames.is_empty() => {
                Err(Refusal::bad_request(ErrorCode::OutOfOrder, "a poll without a state brings `connect`"))
            }
            (None, _) => self.begin(client, poll).await,
            (Some(state), Some(exchange)) if poll.send => match send(&exchange, &poll.frames).await? {
                Some(answer) => Ok(answer),
                None => self.send_detached(client, state, poll.frames).await,
            },
            (Some(state), None) if poll.send => self.send_detached(client, state, poll.frames).await,
            (Some(state), Some(exchange)) => match exchange.begin(state.number) {
                Begun::Hangs(hung) => hang(&exchange, hung, poll).await,
                Begun::Missed { answer, taken: true, .. } => Ok(answer),
                Begun::Missed { answer, taken: false, ticket } => {
                    room(exchange.take(poll.frames, Some(ticket))).await?;
                    Ok(answer)
                }
                Begun::Stale => {
                    exchange.end(Closed::Lost("the client went back to an older state".into()));
                    self.begin_again(client, state, poll).await
                }
            },
            (Some(state), None) => self.begin_again(client, state, poll).await,
        }
    }

    fn check_frames(&self, poll: &Poll, exchange: Option<&Exchange>) -> Result<(), Refusal> {
        let (size, limit) = (poll.largest_frame(), self.settings.frame_limit);
        if size <= limit {
            return Ok(());
        }
        if let Some(exchange) = exchange {
            exchange.end_reader(Closed::FrameTooLarge { size: size as u64, limit });
        }
        Err(too_large(format!("a frame of {size} bytes came, {limit} are allowed")))
    }

    /// A client that this node does not know goes on from its checkpoint.
    async fn begin_again(&self, client: Client, state: State, mut poll: Poll) -> Result<Answer, Refusal> {
        let connect = connect(state.into_checkpoint()?, false);
        poll.frames.insert(0, connect);
        self.begin(client, poll).await
    }

    async fn begin(&self, client: Client, poll: Poll) -> Result<Answer, Refusal> {
        let exchange = self.open(client).await?;
        match exchange.begin(0) {
            Begun::Hangs(hung) => hang(&exchange, hung, poll).await,
            Begun::Missed { .. } | Begun::Stale => Err(gone()),
        }
    }

    /// Frames beside a poll that hangs on another node: a connection of their own takes them. It ends behind them,
    /// so its session reads them all, whether or not somebody waits for what it says to them; the answer to this
    /// request is what it said until it closed.
    async fn send_detached(
        &self,
        client: Client,
        state: State,
        frames: Vec<Bytes>,
    ) -> Result<Answer, Refusal> {
        let mut bring = vec![connect(state.into_checkpoint()?, true)];
        bring.extend(frames);
        let exchange = self.open(client).await?;
        if !room(exchange.take(bring, None)).await? {
            return Err(gone());
        }
        exchange
            .end_reader(Closed::ByPeer { code: CloseCode::Normal, reason: "the frames were sent".into() });
        let deadline = Instant::now() + DETACHED_DEADLINE;
        let mut number = 0;
        let mut answers = Vec::new();
        loop {
            let Begun::Hangs(mut hung) = exchange.begin(number) else { return Err(gone()) };
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = hung.answer(left).await.ok_or_else(gone)?;
            // The time is over. The session goes on without an audience: it may have frames left to read.
            let late = answer.frames.is_empty();
            answers.extend(answer.frames.into_iter().filter(|frame| !is_of_the_connection(frame)));
            match answer.state {
                Some(state) if !late => number = state.number,
                _ => return Ok(Answer { state: None, frames: answers }),
            }
        }
    }

    async fn open(&self, client: Client) -> Result<Arc<Exchange>, Refusal> {
        if self.cancel.is_cancelled() {
            return Err(Refusal::shut_down());
        }
        let permit = self.admission.admit(client.address.ip())?;
        let id = PollId::random().map_err(|error| {
            let message = format!("no random number: {error}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
        })?;
        let (exchange, connection) =
            self.exchanges.open(id, client.address, client.origin, self.settings.idle_deadline, permit);
        match timeout(self.settings.handshake_deadline, self.opened.send(connection)).await {
            Ok(Ok(())) => Ok(exchange),
            Ok(Err(_)) | Err(_) => Err(Refusal::shut_down()),
        }
    }
}

/// Who sent a request.
struct Client {
    address: SocketAddr,
    origin: Option<String>,
}

/// Hands over the poll's frames and waits for its answer, at once: a session that can't write may not read either.
async fn hang(exchange: &Exchange, mut hung: Hung, poll: Poll) -> Result<Answer, Refusal> {
    let ticket = hung.ticket();
    let taken = room(exchange.take(poll.frames, Some(ticket)));
    let answered = async { hung.answer(poll.wait).await.ok_or_else(gone) };
    let (_, answer) = tokio::try_join!(taken, answered)?;
    Ok(answer)
}

/// The answer to `send`. `None`: the connection has ended and took nothing.
async fn send(exchange: &Exchange, frames: &[Bytes]) -> Result<Option<Answer>, Refusal> {
    let taken = room(exchange.take(frames.to_vec(), None)).await?;
    Ok(taken.then(|| Answer { state: None, frames: Vec::new() }))
}

/// Whether the frames were taken before the connection ended; where it has, the poll will be told why.
async fn room<E>(take: impl Future<Output = Result<(), E>>) -> Result<bool, Refusal> {
    match timeout(ROOM_DEADLINE, take).await {
        Ok(taken) => Ok(taken.is_ok()),
        Err(_) => {
            let message = "the session takes no frames now; none of this request's was taken";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Busy, message))
        }
    }
}

fn gone() -> Refusal {
    let message = "the session left this node; poll again with the same state";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Busy, message)
}

fn preflight() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// The first frame of a connection that the client did not begin itself. Nobody waits for an answer to 0.
fn connect(checkpoint: String, detached: bool) -> Bytes {
    Codec::Json.encode(&ClientFrame::Connect(Connect {
        state: Some(checkpoint),
        detached,
        ..Connect::default()
    }))
}

/// Whether a frame is about a connection that the client did not ask for, and not about what it sent: that it began,
/// or that it ended as it should.
fn is_of_the_connection(frame: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Closes {
        close: Close,
    }
    frame.starts_with(br#"{"connected":"#)
        || serde_json::from_slice(frame).is_ok_and(|Closes { close }| close.code == CloseCode::Normal)
}
