//! The UDP port by itself, through raw QUIC: binding, trust, datagrams and the end.

#![cfg(all(feature = "quic", feature = "dial"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use xpush_protocol::CloseCode;
use xpush_transports::{
    Admission, Closed, Connection as _, Farewell, Lane, Outgoing, Reader as _, Settings, Transport as _,
    Writer as _, quic,
    tls::{Certificates, Trust, system_clock},
    udp::{self, BindError},
};

#[path = "contract/port.rs"]
mod port;

use port::Port;

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

fn admission() -> Admission {
    Admission::new(1000, 1000)
}

fn frame(text: &'static str, lane: Lane) -> Vec<Outgoing> {
    vec![Outgoing { bytes: Bytes::from_static(text.as_bytes()), lane }]
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::self_signed(directory.path(), &[], system_clock()).unwrap();
    let bind = |port: u16| {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        udp::bind(address, &certificates, Settings::default(), admission(), CancellationToken::new())
    };
    let first = bind(0).unwrap();
    let taken = bind(first.local_addr.port()).map(drop).unwrap_err();
    assert!(matches!(taken, BindError::Taken(address) if address == first.local_addr), "{taken}");
    assert!(taken.to_string().contains(&first.local_addr.port().to_string()), "{taken}");
}

#[tokio::test]
async fn a_client_believes_only_what_it_trusts() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let paths = ["chain.pem", "key.pem"].map(|name| directory.path().join(name));
    std::fs::write(&paths[0], made.cert.pem()).unwrap();
    std::fs::write(&paths[1], made.signing_key.serialize_pem()).unwrap();
    let certificates = Certificates::from_files(&paths[0], &paths[1]).unwrap();
    let (address, cancel) = ((Ipv4Addr::LOCALHOST, 0).into(), CancellationToken::new());
    let udp = udp::bind(address, &certificates, Settings::default(), admission(), cancel.clone()).unwrap();
    let driver = tokio::spawn(udp.driver.run());
    let port = udp.local_addr.port();
    let dial = async |host: &str, trust: Trust| {
        let url = format!("quic://{host}:{port}");
        in_time(quic::dial(&url, &trust, &Settings::default())).await.map(drop)
    };
    let roots = || Trust::Roots(made.cert.pem().into_bytes());
    dial("localhost", roots()).await.unwrap();
    dial("127.0.0.1", roots()).await.unwrap_err();
    dial("localhost", Trust::CertificateHashes(vec![[7; 32]])).await.unwrap_err();
    assert!(Trust::Roots(Vec::new()).client_config(b"").is_err());
    cancel.cancel();
    in_time(driver).await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections() {
    let directory = tempfile::tempdir().unwrap();
    let write = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(directory.path().join("chain.pem"), made.cert.pem()).unwrap();
        Trust::Roots(made.cert.pem().into_bytes())
    };
    let old = write();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let certificates = Certificates::from_files(&chain, &key).unwrap();
    let (address, cancel) = ((Ipv4Addr::LOCALHOST, 0).into(), CancellationToken::new());
    let udp = udp::bind(address, &certificates, Settings::default(), admission(), cancel.clone()).unwrap();
    let _driver = tokio::spawn(udp.driver.run());
    let renewals = tokio::spawn(certificates.clone().run(cancel.clone()));
    let url = format!("quic://localhost:{}", udp.local_addr.port());
    in_time(quic::dial(&url, &old, &Settings::default())).await.map(drop).unwrap();
    let new = write();
    in_time(async { while quic::dial(&url, &new, &Settings::default()).await.is_err() {} }).await;
    cancel.cancel();
    in_time(renewals).await.unwrap();
}

#[tokio::test]
async fn datagrams_carry_what_may_be_lost_both_ways() {
    let (mut udp, port) = Port::open(Settings::default(), admission());
    let url = format!("quic://{}", udp.local_addr);
    let client = in_time(quic::dial(&url, &port.trust, &Settings::default())).await.unwrap();
    let (_, mut client_reader, mut client_writer) = client.split();
    let (_, mut reader, mut writer) = in_time(udp.quic.accept()).await.unwrap().split();
    client_writer.write(&mut frame("up", Lane::Ephemeral(3))).await.unwrap();
    assert_eq!(in_time(reader.read()).await.unwrap(), "up");
    // No control stream is open yet, and none is needed.
    writer.write(&mut frame("down", Lane::Ephemeral(3))).await.unwrap();
    assert_eq!(in_time(client_reader.read()).await.unwrap(), "down");
}

#[tokio::test]
async fn the_driver_ends_when_it_is_cancelled_and_the_last_connection_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::self_signed(directory.path(), &[], system_clock()).unwrap();
    let hash = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(&certificates.hashes()[0]).unwrap()
    };
    let trust = Trust::CertificateHashes(vec![hash.try_into().unwrap()]);
    let (address, cancel) = ((Ipv4Addr::LOCALHOST, 0).into(), CancellationToken::new());
    let mut udp =
        udp::bind(address, &certificates, Settings::default(), admission(), cancel.clone()).unwrap();
    let driver = tokio::spawn(udp.driver.run());
    let url = format!("quic://{}", udp.local_addr);
    let client = in_time(quic::dial(&url, &trust, &Settings::default())).await.unwrap();
    let (_, mut client_reader, mut client_writer) = client.split();
    let (_, mut reader, mut writer) = in_time(udp.quic.accept()).await.unwrap().split();
    cancel.cancel();
    in_time(quic::dial(&url, &trust, &Settings::default())).await.map(drop).unwrap_err();
    // The others go on until they are told.
    client_writer.write(&mut frame("up", Lane::Control)).await.unwrap();
    assert_eq!(in_time(reader.read()).await.unwrap(), "up");
    writer.write(&mut frame("down", Lane::Live(1))).await.unwrap();
    assert_eq!(in_time(client_reader.read()).await.unwrap(), "down");
    assert!(!driver.is_finished());
    writer.close(Farewell::new(CloseCode::Draining, "the node leaves")).await;
    let closed = in_time(client_reader.read()).await;
    assert_eq!(closed, Err(Closed::ByPeer { code: CloseCode::Draining, reason: "the node leaves".into() }));
    in_time(driver).await.unwrap();
}
