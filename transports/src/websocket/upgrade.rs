//! From an HTTP request to a connection: everything that can be refused is refused here, as an HTTP response, while
//! a client can still read why.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio::{sync::mpsc, time::timeout};
use tokio_tungstenite::tungstenite::{handshake::server::create_response_with_body, protocol::Role};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;
use xpush_protocol::{Codec, ErrorCode, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, TransportKind};

use super::{Connection, stream::Stream};
use crate::{
    Admission, Peer, Permit, Settings,
    patience::Patience,
    refusal::{Refusal, host, origin},
};

/// Answers the requests for a WebSocket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upgrader {
    settings: Settings,
    admission: Admission,
    upgraded: mpsc::Sender<Connection>,
    cancel: CancellationToken,
    upgrades: TaskTracker,
}

impl Upgrader {
    pub(super) fn new(
        settings: Settings,
        admission: Admission,
        upgraded: mpsc::Sender<Connection>,
        cancel: CancellationToken,
        upgrades: TaskTracker,
    ) -> Self {
        Self { settings, admission, upgraded, cancel, upgrades }
    }

    /// The answer to one request; `peer` is the client's address. The HTTP server must serve the connection with
    /// upgrades and send the answer; the connection then comes out of the listener.
    ///
    /// Refused are: what is no WebSocket request or offers only subprotocols that are not ours (400), a page of
    /// another origin (403), and connections over the limits (429).
    pub fn upgrade<B>(&self, peer: SocketAddr, mut request: Request<B>) -> Response<Full<Bytes>> {
        match self.admit(peer, &request) {
            Ok((response, peer, permit)) => {
                let upgrade = hyper::upgrade::on(&mut request);
                self.upgrades.spawn(self.clone().hand_over(upgrade, peer, permit));
                response
            }
            Err(refusal) => refusal.response(),
        }
    }

    fn admit<B>(
        &self,
        address: SocketAddr,
        request: &Request<B>,
    ) -> Result<(Response<Full<Bytes>>, Peer, Permit), Refusal> {
        let mut response = create_response_with_body(request, Full::default)
            .map_err(|error| Refusal::bad_request(ErrorCode::Malformed, error.to_string()))?;
        let origin = origin(request);
        if !self.settings.origins.allow(origin.as_deref(), host(request.headers(), request.uri())) {
            return Err(Refusal::origin(origin.as_deref().unwrap_or_default()));
        }
        let codec = subprotocol(request)?;
        if let Some(codec) = codec {
            let chosen = HeaderValue::from_static(codec.subprotocol());
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        if self.cancel.is_cancelled() {
            return Err(Refusal::shut_down());
        }
        let permit = self.admission.admit(address.ip())?;
        let kind = TransportKind::WebSocket;
        Ok((response, Peer { kind, address, codec, origin, wants_checkpoints: false }, permit))
    }

    /// Waits for the HTTP server to let go of the socket. Owned by the listener, and no longer than a handshake.
    async fn hand_over(self, upgrade: OnUpgrade, peer: Peer, permit: Permit) {
        let patience = Patience::with_stranger(&self.settings);
        let address = peer.address;
        let hand_over = timeout(self.settings.handshake_deadline, async {
            let (stream, read) = Stream::upgraded(upgrade.await.map_err(|error| error.to_string())?);
            let frame_limit = self.settings.frame_limit;
            let connection =
                // A copy: what is read here is the tail of a buffer for headers, which would live as long as this does.
                Connection::new(stream, read.to_vec(), Role::Server, frame_limit, peer, patience, Some(permit))
                    .await;
            self.upgraded.send(connection).await.map_err(|_| "the listener is gone".to_owned())
        });
        let outcome = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return,
            outcome = hand_over => outcome,
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%address, error, "upgrade failed"),
            Err(_) => debug!(%address, "upgrade took too long"),
        }
    }
}

/// The first of the client's subprotocols that is ours. None offered: its first frame will tell.
fn subprotocol<B>(request: &Request<B>) -> Result<Option<Codec>, Refusal> {
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offered =
        offers.iter().filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(','));
    let chosen = offered.find_map(|offer| Codec::from_subprotocol(offer.trim()));
    if chosen.is_none() && request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        let message =
            format!("none of the subprotocols is known; offer {SUBPROTOCOL_JSON} or {SUBPROTOCOL_MSGPACK}");
        return Err(Refusal::bad_request(ErrorCode::NotSupported, message));
    }
    Ok(chosen)
}
