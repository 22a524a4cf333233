//! Which servers a client believes.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use thiserror::Error;

use super::{provider, sha256};

/// Which certificates a client accepts. There is no way to accept any.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those of the authorities that the operating system trusts.
    System,
    /// Those of the authorities in this PEM text.
    Roots(Vec<u8>),
    /// Those whose DER has one of these SHA-256 hashes, whatever the name in them: a server's self-signed one.
    CertificateHashes(Vec<[u8; 32]>),
}

/// Why a client can believe no server.
#[derive(Debug, Error)]
pub enum TrustError {
    #[error("the system has no authorities that can be read{0}; install its CA certificates, or name others")]
    NoSystemRoots(String),
    #[error("the given authorities can't be read: {0}")]
    BadRoots(String),
}

impl Trust {
    /// TLS as a client that offers the protocol `alpn`.
    pub fn client_config(&self, alpn: &[u8]) -> Result<ClientConfig, TrustError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13]);
        // Fails only where the provider has no suite for a version; ring has them all.
        #[allow(clippy::expect_used)]
        let builder = builder.expect("ring serves TLS 1.3");
        let mut config = match self {
            Self::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
            Self::Roots(pem) => builder.with_root_certificates(roots_in(pem)?).with_no_client_auth(),
            Self::CertificateHashes(hashes) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ByHash {
                    hashes: hashes.clone(),
                    provider: provider(),
                }))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TrustError::NoSystemRoots(why));
    }
    Ok(roots)
}

fn roots_in(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TrustError::BadRoots(error.to_string()))?;
        roots.add(certificate).map_err(|error| TrustError::BadRoots(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TrustError::BadRoots("the text holds no certificate".into()));
    }
    Ok(roots)
}

/// What browsers do with `serverCertificateHashes`.
#[derive(Debug)]
struct ByHash {
    hashes: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.hashes.contains(&sha256(end_entity)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
