//! The UDP socket that all connections of an endpoint share, and what the kernel may keep for it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use quinn::{EndpointConfig, default_runtime};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

/// What the kernel keeps in each direction until it is read, or sent. With its own default (208 KiB, some ninety
/// datagrams) it threw 4 in 100 away where a hundred clients came back at once, and each that was lost in a handshake
/// cost a second. The kernel gives what `net.core.rmem_max` and `wmem_max` allow.
const BUFFER: usize = 4 * 1024 * 1024;

/// Binds an endpoint; with a `server` configuration, one that accepts.
pub(super) fn endpoint(
    address: SocketAddr,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let runtime = default_runtime().ok_or_else(|| io::Error::other("no async runtime is running"))?;
    quinn::Endpoint::new(EndpointConfig::default(), server, bind(address)?, runtime)
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // It takes IPv4 too, whatever the system's default is.
        if let Err(error) = socket.set_only_v6(false) {
            debug!(%error, "this system has no socket for both IPv6 and IPv4");
        }
    }
    // Less is slower, and nothing else.
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        if let Err(error) = set(&socket, BUFFER) {
            debug!(%error, "the UDP socket keeps its default buffer");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
