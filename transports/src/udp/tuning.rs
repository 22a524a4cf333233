//! What a QUIC connection may cost. Most connections are idle most of the time, and there are many: the number of
//! streams that a client may open makes most of an idle connection's memory (measured: 40 kB with 16 streams,
//! 170 kB with 1,000), the windows make most of a stalled one's.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};

use crate::{Settings, tls::Certificates};

/// Streams that a client may open each way. It needs one; HTTP/3 opens three to begin with.
const CLIENT_STREAMS: u32 = 4;

/// Sent and not yet acknowledged bytes of a connection: what a stalled client costs.
const SEND_WINDOW: u64 = 160 * 1024;

/// The smallest window of a stream, whatever the limit of frames: HTTP/3's own streams live in it too.
const STREAM_WINDOW_MIN: usize = 16 * 1024;

/// Datagrams are small and the latest wins: some twenty full ones wait each way, then the oldest are dropped.
const DATAGRAM_BUFFER: usize = 24 * 1024;

/// How much later than our own deadline QUIC gives a silent peer up: who is idle is told so, who is gone is not.
const IDLE_MARGIN: Duration = Duration::from_secs(5);

/// The endpoint's configuration. The error is for a person.
pub(super) fn server(
    certificates: &Arc<Certificates>,
    settings: &Settings,
) -> Result<quinn::ServerConfig, String> {
    let mut tls = certificates.server_config(&[
        #[cfg(feature = "webtransport")]
        super::ALPN_HTTP,
        xpush_protocol::ALPN,
    ]);
    // A replayed first flight would replay its commands.
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.migration(true);
    config.transport_config(Arc::new(transport(settings)));
    Ok(config)
}

fn transport(settings: &Settings) -> TransportConfig {
    let window = (settings.frame_limit * 2).max(STREAM_WINDOW_MIN) as u64;
    let idle = settings.idle_deadline.max(settings.handshake_deadline) + IDLE_MARGIN;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(CLIENT_STREAMS.into())
        .max_concurrent_uni_streams(CLIENT_STREAMS.into())
        .stream_receive_window(varint(window))
        // The control stream is the only one that is read at length.
        .receive_window(varint(window * 2))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // The clients ping: a server that did would wake every phone.
        .keep_alive_interval(None)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok());
    config
}

/// HTTP/3 takes streams for itself, and WebTransport two a session.
#[cfg(feature = "webtransport")]
pub(crate) fn raise_for_http(connection: &quinn::Connection, bidirectional: u32, unidirectional: u32) {
    connection.set_max_concurrent_bi_streams(bidirectional.into());
    connection.set_max_concurrent_uni_streams(unidirectional.into());
}

/// A client's: it reads little at a time from few streams, and pings so that it notices a dead server.
#[cfg(feature = "dial")]
pub(crate) fn client(settings: &Settings, server_streams: u32) -> TransportConfig {
    /// Two are missed before QUIC gives up on the server.
    const PINGS: u32 = 3;
    let mut config = transport(settings);
    config
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(server_streams.into())
        .receive_window(varint((settings.frame_limit * 2).max(STREAM_WINDOW_MIN) as u64 * 4))
        .keep_alive_interval(Some(settings.idle_deadline / PINGS));
    config
}

/// The largest there is, for a window beyond what QUIC can say.
fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
