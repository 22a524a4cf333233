//! A wire between two parties that can be slow, cut, or deaf in one direction: the faults of a network that no
//! signal to a process can make.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::port::Port;

const CHUNK_BYTES: usize = 16 * 1024;

/// What one direction of a connection holds while it is slow or stalled: 4 MiB, then the sender feels it.
const CHUNKS_HELD: usize = 256;

/// Forwards TCP connections to a target. Upstream is from whoever connected to the target.
pub struct Proxy {
    port: Port,
    door: Arc<Door>,
    runtime: Handle,
    forwarding: JoinHandle<()>,
}

/// What the test turns, and the task that forwards obeys.
struct Door {
    /// Absent while cut, so that the kernel refuses new connections.
    listener: Mutex<Option<TcpListener>>,
    opened: Notify,
    line: watch::Sender<Line>,
}

/// The state of the wire.
#[derive(Clone, Copy, Default)]
struct Line {
    delay: Duration,
    stalled_upstream: bool,
    stalled_downstream: bool,
    /// A connection ends when this is no longer what it was at its start.
    cuts: u64,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let port = Port::claim();
        let listener = TcpListener::bind(port.address()).await.expect("a claimed port can be bound");
        let door = Arc::new(Door {
            listener: Mutex::new(Some(listener)),
            opened: Notify::new(),
            line: watch::Sender::new(Line::default()),
        });
        let forwarding = tokio::spawn(forward(door.clone(), target));
        Self { port, door, runtime: Handle::current(), forwarding }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Bytes that arrive from now on, in either direction, wait this long before they go on.
    pub fn delay(&self, delay: Duration) {
        self.door.line.send_modify(|line| line.delay = delay);
    }

    /// Drops the connections there are. New ones are refused when this returns.
    pub fn cut(&self) {
        let mut listener = self.door.listener();
        *listener = None;
        // Under the lock: a connection belongs to the time before the cut or is refused.
        self.door.line.send_modify(|line| line.cuts += 1);
    }

    /// Holds what goes to the target, while connections stay open.
    pub fn stall_upstream(&self) {
        self.door.line.send_modify(|line| line.stalled_upstream = true);
    }

    /// Holds what comes from the target, while connections stay open.
    pub fn stall_downstream(&self) {
        self.door.line.send_modify(|line| line.stalled_downstream = true);
    }

    /// Undoes delay, cut and stalls. What was held goes on; what was cut stays cut.
    pub fn heal(&self) {
        let mut listener = self.door.listener();
        if listener.is_none() {
            let _context = self.runtime.enter();
            let bound =
                std::net::TcpListener::bind(self.port.address()).expect("a claimed port can be bound");
            bound.set_nonblocking(true).expect("a listener can be made nonblocking");
            *listener = Some(TcpListener::from_std(bound).expect("the runtime takes a listener"));
            self.door.opened.notify_one();
        }
        self.door.line.send_modify(|line| *line = Line { cuts: line.cuts, ..Line::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns those of its connections, which end with it.
        self.forwarding.abort();
    }
}

impl Door {
    fn listener(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next connection, and the count of cuts it belongs to.
    async fn next(&self) -> io::Result<(TcpStream, u64)> {
        poll_fn(|context| {
            let listener = self.listener();
            let Some(open) = &*listener else { return Poll::Pending };
            open.poll_accept(context).map_ok(|(stream, _)| (stream, self.line.borrow().cuts))
        })
        .await
    }
}

async fn forward(door: Arc<Door>, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = door.opened.notified() => {}
            Some(_) = connections.join_next() => {}
            next = door.next() => {
                let (client, cuts) = next.expect("a listener on the loopback accepts");
                connections.spawn(connection(client, target, door.line.subscribe(), cuts));
            }
        }
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>, cuts: u64) {
    let (up, down) = (line.clone(), line.clone());
    let both = async {
        let server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(
            pump(from_client, to_server, up, |line| line.stalled_upstream),
            pump(from_server, to_client, down, |line| line.stalled_downstream),
        )
    };
    // However it ends, both ends are closed: a party learns of the other's death as it would without the proxy.
    tokio::select! {
        _ = line.wait_for(|line| line.cuts != cuts) => {}
        _ = both => {}
    }
}

/// Carries one direction. Reading does not wait for writing, so a delay costs latency and no throughput.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    stalled: fn(&Line) -> bool,
) -> io::Result<()> {
    let (held, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_HELD);
    let times = line.clone();
    let reads = async move {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = from.read(&mut chunk).await?;
            chunk.truncate(count);
            let at = Instant::now() + times.borrow().delay;
            // The end is an empty chunk: it is delayed and stalled like any other.
            if held.send((at, chunk)).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let writes = async {
        while let Some((at, chunk)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if line.wait_for(|line| !stalled(line)).await.is_err() {
                return Ok(());
            }
            if chunk.is_empty() {
                to.shutdown().await?;
            } else {
                to.write_all(&chunk).await?;
            }
        }
        Ok(())
    };
    tokio::try_join!(reads, writes).map(|_| ())
}
