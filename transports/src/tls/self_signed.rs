//! A certificate of our own, kept on disk so that its hash outlives a restart.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
};

use super::{Certificate, CertificateError, files};

/// Key and certificate in one file: renewed in one rename, never a pair that does not match.
pub(super) const FILE: &str = "self-signed.pem";

/// Browsers allow 14 days at most, from its beginning, which lies `CLOCK_SKEW` back.
const VALID_FOR: Duration = Duration::from_secs(13 * 24 * 60 * 60);

/// A client whose clock is behind by this much accepts a new certificate.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A server that is down over a weekend comes back with the hash that its clients know.
pub(super) const RENEW_BEFORE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Those of this machine, and the given ones.
pub(super) fn all_names(names: &[String]) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let all: BTreeSet<String> = own.into_iter().chain(names.iter().cloned()).collect();
    all.into_iter().collect()
}

pub(super) fn load_or_issue(
    directory: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Certificate, CertificateError> {
    let path = directory.join(FILE);
    if path.exists() {
        let pem = files::read(&path)?;
        let stored = Certificate::new(files::chain_in(&path, &pem)?, files::key_in(&path, &pem)?)
            .map_err(|reason| CertificateError::Invalid { path, reason })?;
        if !stored.is_due(now) && stored.names.iter().collect::<BTreeSet<_>>() == names.iter().collect() {
            return Ok(stored);
        }
    }
    issue(directory, names, now)
}

/// Makes a new one and stores it over the old one.
pub(super) fn issue(
    directory: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Certificate, CertificateError> {
    let refused = |error: rcgen::Error| CertificateError::Issue(error.to_string());
    let mut params = CertificateParams::new(names).map_err(refused)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "xpush");
    params.not_before = OffsetDateTime::from(now - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(now + VALID_FOR);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(refused)?;
    let certificate = params.self_signed(&key).map_err(refused)?;
    let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
    let path = directory.join(FILE);
    store(&path, pem.as_bytes())
        .map_err(|source| CertificateError::Unwritable { path: path.clone(), source })?;
    Certificate::new(vec![certificate.der().clone()], files::key_in(&path, pem.as_bytes())?)
        .map_err(CertificateError::Issue)
}

/// Whole or not at all, and for the server's user only.
fn store(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    // A leftover of a crash may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// The subject's alternative names, as `CertificateParams::new` takes them.
pub(super) fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(subject) = extension.parsed_extension() else { continue };
        for name in &subject.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
