//! The client's end.

use std::{io, sync::Arc};

use http::{HeaderValue, Uri, header};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Error as WebSocketError, client::IntoClientRequest as _, protocol::Role},
};
use xpush_protocol::{Codec, TransportKind};

use super::{Connection, buffered::Buffered, connection::config, stream::Stream};
use crate::{Peer, Settings, patience::Patience};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0} is no ws: or wss: URL")]
    Url(String),
    #[error("a wss: URL needs a TLS configuration")]
    NoTls,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server said no; the body says why.
    #[error("the server refused with status {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("the handshake failed: {0}")]
    Handshake(String),
    #[error("no connection came about in time")]
    TimedOut,
}

/// Connects to a `ws:` or `wss:` URL within `Settings::handshake_deadline`.
///
/// `codec` is offered as the subprotocol; without it none is, and the first frame tells.
pub async fn dial(
    url: &str,
    codec: Option<Codec>,
    settings: &Settings,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connection, DialError> {
    let connect = Box::pin(connect(url, codec, settings, tls));
    timeout(settings.handshake_deadline, connect).await.map_err(|_| DialError::TimedOut)?
}

async fn connect(
    url: &str,
    codec: Option<Codec>,
    settings: &Settings,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connection, DialError> {
    let not_ours = || DialError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_ours())?;
    let secure = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(not_ours()),
    };
    // An IPv6 address stands in brackets in a URL only.
    let host = uri.host().ok_or_else(not_ours)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });

    let mut request = uri.into_client_request().map_err(|_| not_ours())?;
    if let Some(codec) = codec {
        let subprotocol = HeaderValue::from_static(codec.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }

    let socket = TcpStream::connect((host.as_str(), port)).await?;
    let address = socket.peer_addr()?;
    let stream = if secure {
        socket.set_nodelay(true)?;
        let mut tls = (*tls.ok_or(DialError::NoTls)?).clone();
        // A server that would choose HTTP/2 has no upgrade there.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let name = ServerName::try_from(host).map_err(|_| not_ours())?;
        Stream::Other(Box::new(connector.connect(name, socket).await?))
    } else {
        Stream::tcp(socket)
    };
    let (socket, _) =
        client_async_with_config(request, Buffered::new(stream), Some(config(settings.frame_limit)))
            .await
            .map_err(failed)?;
    let peer =
        Peer { kind: TransportKind::WebSocket, address, codec, origin: None, wants_checkpoints: false };
    Ok(Connection::of(socket, Role::Client, peer, Patience::with_server(settings), None))
}

fn failed(error: WebSocketError) -> DialError {
    match error {
        WebSocketError::Http(response) => DialError::Refused {
            status: response.status().as_u16(),
            body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
        },
        WebSocketError::Io(error) => DialError::Io(error),
        error => DialError::Handshake(error.to_string()),
    }
}
