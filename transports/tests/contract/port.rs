//! A UDP port with a certificate of its own, for both wires behind it.

#![allow(dead_code, reason = "each test binary that shares this uses what it needs")]

use std::net::Ipv4Addr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xpush_transports::{
    Admission, Settings,
    tls::{Certificates, Trust, system_clock},
    udp,
};

/// Ends with this.
pub(crate) struct Port {
    /// SHA-256 of the certificate.
    pub(crate) hash: [u8; 32],
    pub(crate) trust: Trust,
    pub(crate) cancel: CancellationToken,
    driver: JoinHandle<()>,
    _certificate: TempDir,
}

/// What comes out of the port; the driver runs already.
pub(crate) struct Opened {
    pub(crate) local_addr: std::net::SocketAddr,
    pub(crate) quic: xpush_transports::quic::Listener,
    #[cfg(feature = "webtransport")]
    pub(crate) webtransport: xpush_transports::webtransport::Listener,
}

impl Port {
    pub(crate) fn open(settings: Settings, admission: Admission) -> (Opened, Self) {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::self_signed(directory.path(), &[], system_clock()).unwrap();
        let hash = STANDARD.decode(&certificates.hashes()[0]).unwrap().try_into().unwrap();
        let trust = Trust::CertificateHashes(vec![hash]);
        let cancel = CancellationToken::new();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let udp = udp::bind(address, &certificates, settings, admission, cancel.clone()).unwrap();
        let driver = tokio::spawn(udp.driver.run());
        let opened = Opened {
            local_addr: udp.local_addr,
            quic: udp.quic,
            #[cfg(feature = "webtransport")]
            webtransport: udp.webtransport,
        };
        (opened, Self { hash, trust, cancel, driver, _certificate: directory })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.driver.abort();
    }
}
