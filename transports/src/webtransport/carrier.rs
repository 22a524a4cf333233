//! Serves one QUIC connection that carries sessions, in one task: HTTP/3 itself, the requests under way and what
//! keeps each session.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use xpush_protocol::get_varint;

use super::{adapter, error_code::H3_NO_ERROR, request, sessions::Sessions};
use crate::{
    Permit,
    udp::{Wires, raise_for_http},
};

/// Sessions of one connection. Chromium gives each its own connection; others pool a page's tabs.
pub(super) const SESSIONS: usize = 4;

/// Streams that the client may have open: a CONNECT and a control stream a session, and as many that are refused.
const CLIENT_BIDIRECTIONAL: u32 = 4 * SESSIONS as u32;

/// HTTP/3's control stream and QPACK's two, a reserved one, and some that are refused.
const CLIENT_UNIDIRECTIONAL: u32 = 8;

/// How long a connection without a session stays: a browser never closes it by itself, a page that reloads may use
/// it again, and the last session's farewell has to arrive.
const LINGER: Duration = Duration::from_secs(3);

/// The longest headers of a CONNECT.
const HEADERS_MAX: u64 = 16 * 1024;

/// What a future of a carrier came to.
pub(super) enum Step {
    /// A session is open; what keeps it is to be run.
    Opened(BoxFuture<'static, Step>),
    /// A session ended.
    Ended,
    /// A request was refused, or broke off.
    Refused,
}

/// Returns when the connection is over. `slot` is what it takes among the handshakes until it has a session.
pub(crate) async fn carry(connection: quinn::Connection, slot: Permit, wires: Arc<Wires>) {
    raise_for_http(&connection, CLIENT_BIDIRECTIONAL, CLIENT_UNIDIRECTIONAL);
    let sessions = Arc::new(Sessions::default());
    let address = connection.remote_address();
    let mut builder = h3::server::builder();
    let building = builder
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(SESSIONS as u64)
        .max_field_section_size(HEADERS_MAX)
        // A reserved frame would only wake the radio.
        .send_grease(false)
        .build::<_, Bytes>(adapter::Connection::new(&connection, sessions.clone()));
    // Boxed: its state would stay a part of this one.
    let mut http = match timeout(wires.settings.handshake_deadline, Box::pin(building)).await {
        Ok(Ok(http)) => http,
        Ok(Err(error)) => return debug!(%address, %error, "HTTP/3 failed"),
        Err(_) => return debug!(%address, "HTTP/3 took too long"),
    };
    let mut slot = Some(slot);
    // Bounded by the streams that the client may have open.
    let mut under_way: FuturesUnordered<BoxFuture<'static, Step>> = FuturesUnordered::new();
    // For how long it may be without a session.
    let mut patience = Instant::now() + wires.settings.handshake_deadline;
    loop {
        tokio::select! {
            accepted = http.accept() => match accepted {
                Ok(Some(resolver)) => {
                    under_way.push(request::answer(resolver, connection.clone(), sessions.clone(), wires.clone()));
                }
                Ok(None) => break,
                Err(error) => {
                    debug!(%address, %error, "an HTTP/3 connection ended");
                    break;
                }
            },
            Some(step) = under_way.next() => match step {
                Step::Opened(session) => {
                    slot = None;
                    under_way.push(session);
                }
                Step::Ended => patience = Instant::now() + LINGER,
                // Never longer: who is refused again and again would stay for nothing.
                Step::Refused => patience = patience.min(Instant::now() + LINGER),
            },
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => hand_over(&sessions, datagram),
                Err(_) => break,
            },
            () = sleep_until(patience), if sessions.len() == 0 => break,
            () = wires.cancel.cancelled(), if under_way.is_empty() => break,
        }
    }
    // The sessions learn from their CONNECT streams why it ended.
    connection.close(H3_NO_ERROR, b"");
    while under_way.next().await.is_some() {}
    drop(slot);
}

/// A datagram begins with a quarter of its session's id (RFC 9297, section 2.1).
fn hand_over(sessions: &Sessions, mut datagram: Bytes) {
    if let Ok(quarter) = get_varint(&mut datagram)
        && let Some(id) = quarter.checked_mul(4)
    {
        sessions.datagram(id, datagram.copy_to_bytes(datagram.remaining()));
    }
}
