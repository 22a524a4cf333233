//! The bodies: from bytes to a poll, and from an answer to bytes.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use xpush_protocol::{Codec, ErrorCode, PollRequest};

use super::{FRAMES_PER_REQUEST, LONGEST_WAIT, exchange::Answer, state::State};
use crate::{Settings, refusal::Refusal};

/// A body may hold this many frames of the largest size.
const LARGEST_FRAMES_PER_BODY: usize = 4;

/// What a body holds beside its frames: the state (with the checkpoint of a session with many channels), and
/// punctuation.
const BODY_OVERHEAD: usize = 1024 * 1024;

/// The shortest time that a poll hangs: what is ready to be written needs a moment to get there.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// One request.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) state: Option<State>,
    pub(super) frames: Vec<Bytes>,
    pub(super) send: bool,
    pub(super) wait: Duration,
}

impl Poll {
    /// Reads a body whatever its content type: a browser of 2012 sends JSON as text/plain.
    pub(super) async fn read<B>(body: B, settings: &Settings) -> Result<Self, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let limit = settings.frame_limit * LARGEST_FRAMES_PER_BODY + BODY_OVERHEAD;
        let body = match timeout(settings.handshake_deadline, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(too_large(format!("the body may have {limit} bytes")));
            }
            Ok(Err(error)) => return Err(Refusal::bad_request(ErrorCode::Malformed, error.to_string())),
            Err(_) => {
                let message = "the body did not come in time";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Malformed, message));
            }
        };
        Self::parse(&body)
    }

    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let request: PollRequest = serde_json::from_slice(body).map_err(|error| {
            Refusal::bad_request(ErrorCode::Malformed, format!("the body is no poll: {error}"))
        })?;
        if request.frames.len() > FRAMES_PER_REQUEST {
            return Err(too_large(format!("a request may have {FRAMES_PER_REQUEST} frames")));
        }
        let state = request.state.as_deref().map(State::parse).transpose()?;
        let frames =
            request.frames.into_iter().map(|frame| Bytes::from(String::from(Box::<str>::from(frame))));
        let wait = request.wait.map_or(LONGEST_WAIT, |seconds| Duration::from_secs(seconds.into()));
        Ok(Self {
            state,
            frames: frames.collect(),
            send: request.send,
            wait: wait.clamp(SHORTEST_WAIT, LONGEST_WAIT),
        })
    }

    pub(super) fn largest_frame(&self) -> usize {
        self.frames.iter().map(Bytes::len).max().unwrap_or_default()
    }
}

pub(super) fn too_large(message: String) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, message)
}

impl Answer {
    /// The frames are joined as they are: every session that a publication goes to shares its bytes.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut body =
            Vec::with_capacity(64 + self.frames.iter().map(|frame| frame.len() + 1).sum::<usize>());
        body.push(b'{');
        if let Some(state) = &self.state {
            body.extend_from_slice(b"\"state\":");
            body.extend_from_slice(&Codec::Json.encode(&state.to_string()));
            body.push(b',');
        }
        body.extend_from_slice(b"\"frames\":");
        join(&mut body, &self.frames);
        body.push(b'}');
        let mut response = Response::new(Full::new(body.into()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A JSON array of what is JSON already.
pub(super) fn join(body: &mut Vec<u8>, frames: &[Bytes]) {
    body.push(b'[');
    for (place, frame) in frames.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(frame);
    }
    body.push(b']');
}
