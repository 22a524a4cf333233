//! A port stays its server's own, also while that server is dead and waits to be restarted.
//!
//! The kernel's choice (bind port 0) would come from the range of outgoing connections: one of the tests' own
//! clients could then take the port of a killed server, even by connecting to it. So ports come from below that
//! range, and a name that only one process can bind keeps other test processes away.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;

/// A node of a Redis cluster speaks to the others on the port this far above its own.
/// All of these lie above the ports that are handed out.
const CLUSTER_BUS: u16 = 10_000;

static HANDED_OUT: AtomicU16 = AtomicU16::new(0);

/// A free port of the loopback, and a free one for the cluster's bus above it.
pub(crate) struct Port {
    number: u16,
    /// Bound in the abstract namespace: the kernel frees the name with the process, however that ends.
    _claim: UnixListener,
}

impl Port {
    pub(crate) fn claim() -> Self {
        let start = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            // Spread by a prime, so that processes with neighbouring pids don't try the same ports in turn.
            let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
            let offset = (u32::from(start) * 7_919 + u32::from(step)) % u32::from(COUNT);
            let number = FIRST + offset as u16;
            let Ok(name) = UnixAddress::from_abstract_name(format!("xpush-test-port-{number}")) else {
                continue;
            };
            let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
            if is_free(number) && is_free(number + CLUSTER_BUS) {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port from {FIRST} to {} on 127.0.0.1", FIRST + COUNT - 1);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}
