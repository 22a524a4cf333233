//! Server certificates that change while the server runs: no connection ends and no restart is needed for it.
//!
//! A browser accepts a self-signed certificate by its hash (`serverCertificateHashes`) only where it is of ECDSA
//! P-256 and valid for at most 14 days (<https://www.w3.org/TR/webtransport/#dom-webtransportoptions-servercertificatehashes>),
//! so such a one must be renewed under way; one from a public authority is replaced by whoever renews it.

mod files;
mod self_signed;
#[cfg(feature = "dial")]
mod trust;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

#[cfg(feature = "dial")]
pub use trust::{Trust, TrustError};

/// How often files and ends of validity are looked at: whoever replaces a file waits no longer than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the time; tests bring their own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The certificate that new connections are shown.
pub struct Certificates {
    source: Source,
    clock: Clock,
    state: Mutex<State>,
}

enum Source {
    SelfSigned { directory: PathBuf, names: Vec<String> },
    Files(files::Pair),
}

struct State {
    current: Arc<Certificate>,
    /// Renewed, but still valid: clients that connected by its hash may still show it around.
    previous: Option<Arc<Certificate>>,
    /// What the files looked like when they were last read, well or not.
    stamp: Option<files::Stamp>,
}

/// A chain with its key.
struct Certificate {
    key: Arc<CertifiedKey>,
    /// SHA-256 of the end entity's DER.
    hash: [u8; 32],
    not_after: SystemTime,
    names: Vec<String>,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("cannot read {}: {source}; the server's user must be allowed to read it", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}; the server's user must be allowed to write there", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("{} is not usable: {reason}; it must hold PEM text", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("cannot make a self-signed certificate: {0}")]
    Issue(String),
}

impl Certificates {
    /// A certificate of our own for `localhost`, the loopback addresses and `names`. It is kept in `directory`, so
    /// that a restart does not change its hash.
    pub fn self_signed(
        directory: &Path,
        names: &[String],
        clock: Clock,
    ) -> Result<Arc<Self>, CertificateError> {
        let names = self_signed::all_names(names);
        let current = self_signed::load_or_issue(directory, &names, clock())?;
        Ok(Arc::new(Self {
            source: Source::SelfSigned { directory: directory.into(), names },
            clock,
            state: Mutex::new(State { current: Arc::new(current), previous: None, stamp: None }),
        }))
    }

    /// A certificate chain and its key out of PEM files, read again whenever they change.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let pair = files::Pair { chain: chain.into(), key: key.into() };
        // Looked at before it is read: a file that is replaced in between is read once more.
        let stamp = pair.stamp();
        let current = pair.read()?;
        Ok(Arc::new(Self {
            source: Source::Files(pair),
            clock: system_clock(),
            state: Mutex::new(State { current: Arc::new(current), previous: None, stamp: Some(stamp) }),
        }))
    }

    /// SHA-256, in base64, of each self-signed certificate that is valid and that a client may meet. Empty for
    /// files: there an authority vouches.
    #[must_use]
    pub fn hashes(&self) -> Vec<String> {
        if matches!(self.source, Source::Files(_)) {
            return Vec::new();
        }
        let now = (self.clock)();
        let state = self.state();
        let previous = state.previous.iter().filter(|certificate| certificate.not_after > now);
        std::iter::once(&state.current)
            .chain(previous)
            .map(|certificate| STANDARD.encode(certificate.hash))
            .collect()
    }

    /// TLS as a server that offers the protocols `alpn`, the first one preferred.
    #[must_use]
    pub fn server_config(self: &Arc<Self>, alpn: &[&[u8]]) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        // Fails only where the provider has no suite for a version; ring has them all.
        #[allow(clippy::expect_used)]
        let builder = builder.expect("ring serves TLS 1.2 and 1.3");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // A client that comes back is spared the certificate, and its session is in its ticket: nothing is kept here.
        // Without randomness for a key there are no tickets, and every handshake is a full one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if let Ok(tickets) = ring::Ticketer::new() {
            config.ticketer = tickets;
        }
        config
    }

    /// Renews and reads again what is due, until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                // Some kilobytes from the local disk, rarely: not worth a thread.
                _ = look.tick() => self.refresh(),
            }
        }
    }

    /// One look: what `run` does every few seconds.
    fn refresh(&self) {
        match &self.source {
            Source::SelfSigned { directory, names } => self.renew(directory, names),
            Source::Files(pair) => self.read_again(pair),
        }
    }

    fn renew(&self, directory: &Path, names: &[String]) {
        let now = (self.clock)();
        if !self.state().current.is_due(now) {
            return;
        }
        match self_signed::issue(directory, names, now) {
            Ok(new) => {
                info!(hash = STANDARD.encode(new.hash), "renewed the self-signed certificate");
                let mut state = self.state();
                state.previous = Some(std::mem::replace(&mut state.current, Arc::new(new)));
            }
            Err(error) => warn!(%error, "cannot renew the self-signed certificate; trying again"),
        }
    }

    fn read_again(&self, pair: &files::Pair) {
        let stamp = pair.stamp();
        if self.state().stamp.as_ref() == Some(&stamp) {
            return;
        }
        let read = pair.read();
        let mut state = self.state();
        state.stamp = Some(stamp);
        match read {
            Ok(new) => {
                info!(chain = %pair.chain.display(), "the certificate changed; new connections get it");
                state.current = Arc::new(new);
            }
            Err(error) => {
                warn!(%error, "the certificate's files changed, and are of no use; the old one stays");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement: a panic elsewhere can't have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state().current.key.clone())
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hashes", &self.hashes()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// The error is for a person.
    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let end_entity = chain.first().ok_or("it holds no certificate")?;
        let hash = sha256(end_entity);
        let (_, parsed) =
            x509_parser::parse_x509_certificate(end_entity).map_err(|error| error.to_string())?;
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let names = self_signed::names_of(&parsed);
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())?;
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(not_after);
        Ok(Self { key: Arc::new(key), hash, not_after, names })
    }

    /// Whether a self-signed one must be renewed.
    fn is_due(&self, now: SystemTime) -> bool {
        self.not_after < now + self_signed::RENEW_BEFORE
    }
}

/// The system's.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// Passed explicitly everywhere: a process-wide default would be whoever's came first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(::ring::digest::digest(&::ring::digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    /// A clock that stands at `days` after 2026-01-01.
    fn clock(days: &Arc<AtomicU64>) -> Clock {
        let days = days.clone();
        Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + days.load(Ordering::Relaxed) * DAY)
        })
    }

    #[test]
    fn a_restart_keeps_the_certificate_until_three_days_before_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let days = Arc::new(AtomicU64::new(0));
        let start = || Certificates::self_signed(directory.path(), &[], clock(&days)).unwrap().hashes();
        let first = start();
        days.store(9, Ordering::Relaxed);
        assert_eq!(start(), first);
        days.store(11, Ordering::Relaxed);
        assert_ne!(start(), first);
    }

    #[test]
    fn a_running_server_renews_and_announces_the_old_one_while_it_is_valid() {
        let directory = tempfile::tempdir().unwrap();
        let days = Arc::new(AtomicU64::new(0));
        let certificates = Certificates::self_signed(directory.path(), &[], clock(&days)).unwrap();
        let first = certificates.hashes();
        assert_eq!(first.len(), 1);
        certificates.refresh();
        assert_eq!(certificates.hashes(), first, "nothing is due yet");
        days.store(11, Ordering::Relaxed);
        certificates.refresh();
        let both = certificates.hashes();
        assert_eq!(both.len(), 2);
        assert_eq!(both[1], first[0]);
        days.store(14, Ordering::Relaxed);
        assert_eq!(certificates.hashes(), both[..1]);
    }

    #[test]
    fn another_name_makes_another_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let start = |names: &[String]| {
            Certificates::self_signed(directory.path(), names, system_clock()).unwrap().hashes()
        };
        let first = start(&[]);
        let named = start(&["chat.example".into(), "10.0.0.7".into()]);
        assert_ne!(named, first);
        assert_eq!(start(&["10.0.0.7".into(), "chat.example".into()]), named);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_servers_user_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        Certificates::self_signed(&directory.path().join("tls"), &[], system_clock()).unwrap();
        let file = std::fs::metadata(directory.path().join("tls").join(self_signed::FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    /// Writes a new certificate as two files.
    fn write_pair(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let paths = (directory.join("chain.pem"), directory.join("key.pem"));
        std::fs::write(&paths.0, made.cert.pem()).unwrap();
        std::fs::write(&paths.1, made.signing_key.serialize_pem()).unwrap();
        paths
    }

    #[test]
    fn changed_files_are_read_again_and_broken_ones_are_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = write_pair(directory.path(), "a.example");
        let certificates = Certificates::from_files(&chain, &key).unwrap();
        assert!(certificates.hashes().is_empty());
        let names = || certificates.state().current.names.clone();
        assert_eq!(names(), ["a.example"]);

        std::fs::write(&chain, "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
        certificates.refresh();
        assert_eq!(names(), ["a.example"]);

        write_pair(directory.path(), "another.example");
        certificates.refresh();
        assert_eq!(names(), ["another.example"]);
    }

    #[test]
    fn a_bad_file_at_the_start_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = write_pair(directory.path(), "a.example");
        let missing = directory.path().join("missing.pem");
        let error = Certificates::from_files(&missing, &key).unwrap_err().to_string();
        assert!(error.contains("missing.pem") && error.contains("cannot read"), "{error}");
        let error = Certificates::from_files(&chain, &chain).unwrap_err().to_string();
        assert!(error.contains("chain.pem") && error.contains("key"), "{error}");
        // A key of another certificate.
        let other = tempfile::tempdir().unwrap();
        let (_, other_key) = write_pair(other.path(), "b.example");
        let error = Certificates::from_files(&chain, &other_key).unwrap_err();
        assert!(matches!(error, CertificateError::Invalid { .. }), "{error}");
    }
}
