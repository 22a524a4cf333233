//! Answers a CONNECT: a session, or a status that says why not.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h3::{error::Code, ext::Protocol, server::RequestResolver};
use http::{HeaderMap, Method, Request, Response, StatusCode, header::ORIGIN};
use tokio::time::timeout;
use tracing::debug;
use xpush_protocol::{Codec, TransportKind};

use super::{
    PATH, adapter,
    carrier::{SESSIONS, Step},
    session,
    sessions::Sessions,
};
use crate::{
    Peer, Permit,
    udp::{Wires, address_of},
};

/// Draft 02's header, without which Chromium takes no session.
const DRAFT: (&str, &str) = ("sec-webtransport-http3-draft", "draft02");

/// Which subprotocols the client offers, and the one that was chosen.
const AVAILABLE_PROTOCOLS: &str = "wt-available-protocols";
const PROTOCOL: &str = "wt-protocol";

pub(super) type Stream = h3::server::RequestStream<adapter::Bidirectional, Bytes>;
type Resolver = RequestResolver<adapter::Connection, Bytes>;

/// Reads the request and answers it, within the handshake's deadline.
pub(super) fn answer(
    resolver: Resolver,
    connection: quinn::Connection,
    sessions: Arc<Sessions>,
    wires: Arc<Wires>,
) -> BoxFuture<'static, Step> {
    Box::pin(async move {
        let address = connection.remote_address();
        let deadline = wires.settings.handshake_deadline;
        match timeout(deadline, try_answer(resolver, connection, sessions, wires)).await {
            Ok(Ok(step)) => step,
            Ok(Err(error)) => {
                debug!(%address, %error, "a request broke off");
                Step::Refused
            }
            Err(_) => {
                debug!(%address, "a request took too long");
                Step::Refused
            }
        }
    })
}

async fn try_answer(
    resolver: Resolver,
    connection: quinn::Connection,
    sessions: Arc<Sessions>,
    wires: Arc<Wires>,
) -> Result<Step, h3::error::StreamError> {
    let (request, mut stream) = resolver.resolve_request().await?;
    let id = stream.send_id().into_inner();
    let (permit, peer) = match admit(&request, &connection, &sessions, &wires) {
        Ok(admitted) => admitted,
        Err(status) => {
            debug!(address = %connection.remote_address(), %status, "a session was refused");
            sessions.forget(id);
            return refuse(stream, status).await;
        }
    };
    // Room for it first: a client that is told 200 is accepted next.
    let Ok(room) = wires.sessions.clone().reserve_owned().await else {
        return refuse(stream, StatusCode::SERVICE_UNAVAILABLE).await;
    };
    // Registered before the answer: the client's streams may overtake what follows.
    let (session, keeper) = session::open(id, connection, sessions);
    stream.send_response(welcome(peer.codec)).await?;
    room.send(super::Connection::new(peer, session, permit, wires.settings.clone()));
    Ok(Step::Opened(keeper.keep(stream)))
}

fn admit(
    request: &Request<()>,
    connection: &quinn::Connection,
    sessions: &Sessions,
    wires: &Wires,
) -> Result<(Permit, Peer), StatusCode> {
    let is_session = request.method() == Method::CONNECT
        && request.extensions().get::<Protocol>() == Some(&Protocol::WEB_TRANSPORT);
    if !is_session || request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    let origin = request.headers().get(ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    if !wires.settings.origins.allow(origin, authority) {
        return Err(StatusCode::FORBIDDEN);
    }
    if wires.cancel.is_cancelled() {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let address = address_of(connection);
    if sessions.len() >= SESSIONS {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    let permit = wires.admission.admit(address.ip()).map_err(|_| StatusCode::TOO_MANY_REQUESTS)?;
    let peer = Peer {
        kind: TransportKind::WebTransport,
        address,
        codec: offered(request.headers()),
        origin: origin.map(str::to_owned),
        wants_checkpoints: false,
    };
    Ok((permit, peer))
}

async fn refuse(mut stream: Stream, status: StatusCode) -> Result<Step, h3::error::StreamError> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    stream.send_response(response).await?;
    stream.finish().await?;
    stream.stop_sending(Code::H3_NO_ERROR);
    Ok(Step::Refused)
}

fn welcome(codec: Option<Codec>) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(DRAFT.0, http::HeaderValue::from_static(DRAFT.1));
    if let Some(codec) = codec
        && let Ok(chosen) = http::HeaderValue::from_str(&format!("\"{}\"", codec.subprotocol()))
    {
        headers.insert(PROTOCOL, chosen);
    }
    response
}

/// The first of the client's subprotocols that is ours. They are a list of strings (RFC 8941); parameters mean
/// nothing here.
fn offered(headers: &HeaderMap) -> Option<Codec> {
    let lines = headers.get_all(AVAILABLE_PROTOCOLS).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|item| {
        let string = item.split(';').next().unwrap_or_default().trim();
        Codec::from_subprotocol(string.strip_prefix('"')?.strip_suffix('"')?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_subprotocol_that_is_ours_is_chosen() {
        let codec = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AVAILABLE_PROTOCOLS, http::HeaderValue::from_static(line));
            offered(&headers)
        };
        assert_eq!(codec(r#""other", "xpush.v1.msgpack";q=1,"xpush.v1.json""#), Some(Codec::MessagePack));
        assert_eq!(codec(r#""xpush.v1.json""#), Some(Codec::Json));
        assert_eq!(codec("xpush.v1.json"), None);
        assert_eq!(codec(r#"""#), None);
        assert_eq!(offered(&HeaderMap::new()), None);
    }
}
