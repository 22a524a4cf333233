//! The faults of a wire, each told apart from the others.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use xpush_test_servers::{Proxy, Redis, until};

/// As long as what must not happen is watched for. What must happen has a minute.
const NOTHING: Duration = Duration::from_millis(200);

struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl Ends {
    async fn through(proxy: &Proxy, listener: &TcpListener) -> Self {
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        Self { client, server }
    }
}

async fn proxied() -> (Proxy, TcpListener) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    (Proxy::to(listener.local_addr().unwrap()).await, listener)
}

async fn says(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    hears(to).await;
}

async fn hears(to: &mut TcpStream) {
    let mut heard = [0; 5];
    timeout(Duration::from_secs(60), to.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
}

async fn hears_nothing(to: &mut TcpStream) {
    let mut heard = [0; 5];
    assert!(timeout(NOTHING, to.read(&mut heard)).await.is_err());
}

#[tokio::test]
async fn a_healthy_wire_carries_a_server_s_protocol() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"PING\r\n").await.unwrap();
    let mut reply = [0; 7];
    client.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[tokio::test]
async fn a_delay_is_felt_both_ways_and_costs_no_throughput() {
    let (proxy, listener) = proxied().await;
    let Ends { mut client, mut server } = Ends::through(&proxy, &listener).await;
    let delay = Duration::from_millis(100);
    proxy.delay(delay);
    let began = Instant::now();
    says(&mut client, &mut server).await;
    says(&mut server, &mut client).await;
    assert!(began.elapsed() >= 2 * delay);

    const BYTES: usize = 1 << 20;
    let sends = async { client.write_all(&vec![7; BYTES]).await.unwrap() };
    let receives = async { server.read_exact(&mut vec![0; BYTES]).await.unwrap() };
    let began = Instant::now();
    tokio::join!(sends, receives);
    // Chunk after chunk, each delayed behind the other, it would take more than six seconds.
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_stall_holds_one_direction_and_heals_without_loss() {
    let (proxy, listener) = proxied().await;
    let Ends { mut client, mut server } = Ends::through(&proxy, &listener).await;
    proxy.stall_upstream();
    client.write_all(b"hello").await.unwrap();
    hears_nothing(&mut server).await;
    says(&mut server, &mut client).await;
    proxy.heal();
    hears(&mut server).await;

    proxy.stall_downstream();
    server.write_all(b"hello").await.unwrap();
    hears_nothing(&mut client).await;
    says(&mut client, &mut server).await;
    proxy.heal();
    hears(&mut client).await;
}

#[tokio::test]
async fn a_cut_ends_what_is_connected_and_refuses_what_comes() {
    let (proxy, listener) = proxied().await;
    let Ends { mut client, mut server } = Ends::through(&proxy, &listener).await;
    // A stall on the way must not keep a cut from being felt.
    proxy.stall_upstream();
    client.write_all(b"hello").await.unwrap();
    proxy.cut();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let mut heard = [0; 5];
    let ended = |read: std::io::Result<usize>| !matches!(read, Ok(1..));
    assert!(ended(timeout(Duration::from_secs(60), client.read(&mut heard)).await.unwrap()));
    assert!(ended(timeout(Duration::from_secs(60), server.read(&mut heard)).await.unwrap()));

    proxy.heal();
    let Ends { mut client, mut server } = Ends::through(&proxy, &listener).await;
    says(&mut client, &mut server).await;
}

#[tokio::test]
async fn the_death_of_the_target_is_felt_through_the_wire() {
    let mut redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"PING\r\n").await.unwrap();
    client.read_exact(&mut [0; 7]).await.unwrap();
    redis.kill();
    until("the connection to end", async || !matches!(client.read(&mut [0; 1]).await, Ok(1..))).await;
}
