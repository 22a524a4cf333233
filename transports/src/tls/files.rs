//! A certificate in files that somebody else renews.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::{Certificate, CertificateError};

pub(super) struct Pair {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Changes whenever the files do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(SystemTime, u64)>; 2]);

impl Pair {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp([&self.chain, &self.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        }))
    }

    pub(super) fn read(&self) -> Result<Certificate, CertificateError> {
        let chain = chain_in(&self.chain, &read(&self.chain)?)?;
        let key = key_in(&self.key, &read(&self.key)?)?;
        Certificate::new(chain, key)
            .map_err(|reason| CertificateError::Invalid { path: self.chain.clone(), reason })
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.into(), source })
}

pub(super) fn chain_in(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| CertificateError::Invalid {
        path: path.into(),
        reason: format!("no certificate chain can be read from it ({error})"),
    })
}

pub(super) fn key_in(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| CertificateError::Invalid {
        path: path.into(),
        reason: format!("no private key can be read from it ({error})"),
    })
}
