//! The keys of tokens. Each has one algorithm, so that a token can't choose how it is checked.

use std::fmt;

use jsonwebtoken::{AlgorithmFamily, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xpush_protocol::AppId;

use super::crypto;

/// An HS256 secret has as many bytes as its hash at least (RFC 7518, section 3.2).
pub const MIN_SECRET: usize = 32;

/// A 2048 bit RSA key in PKCS #1 is longer than its modulus.
const MIN_RSA_DER: usize = 2048 / 8;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "HS256")]
    Hs256,
}

/// What verifies tokens.
pub struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) audience: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) app: AppId,
    pub(super) material: DecodingKey,
}

/// What signs tokens.
pub struct Signer {
    header: Header,
    material: EncodingKey,
}

/// Why a key can't be used, or can't sign.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("an HS256 secret needs {MIN_SECRET} bytes, and this one has {0}")]
    ShortSecret(usize),
    #[error("it is a private key; the server needs the public one alone")]
    Private,
    #[error("it is a public key; signing needs the private one")]
    Public,
    #[error("it is no {0} key in PEM form: {1}")]
    Material(Algorithm, String),
    #[error("RSA keys need 2048 bits")]
    ShortRsa,
    #[error("a token can't be signed with this key: {0}")]
    Signing(String),
}

impl Algorithm {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    pub(super) fn of_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Key {
    /// `material` is the secret itself for HS256, a public key in PEM form for the others.
    pub fn new(algorithm: Algorithm, material: &[u8]) -> Result<Self, KeyError> {
        crypto::install();
        if algorithm != Algorithm::Hs256 && is_private(material) {
            return Err(KeyError::Private);
        }
        let parsed = match algorithm {
            Algorithm::Hs256 => Ok(DecodingKey::from_secret(long_enough(material)?)),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(material),
            Algorithm::Es256 => DecodingKey::from_ec_pem(material),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(material),
        };
        let wrong = |error: jsonwebtoken::errors::Error| KeyError::Material(algorithm, error.to_string());
        Self::checked(algorithm, parsed.map_err(wrong)?)
    }

    /// Of the bare bytes of a public key: a point for EdDSA and ES256 (uncompressed), PKCS #1 for RS256.
    pub(super) fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        crypto::install();
        let material = match algorithm {
            Algorithm::Hs256 => {
                return Err(KeyError::Material(algorithm, "a secret is not published".into()));
            }
            Algorithm::EdDsa => DecodingKey::from_ed_der(der),
            Algorithm::Es256 => DecodingKey::from_ec_der(der),
            Algorithm::Rs256 => DecodingKey::from_rsa_der(der),
        };
        Self::checked(algorithm, material)
    }

    /// An Ed25519 key of our own.
    pub(crate) fn ed25519(id: &str, public: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::from_der(Algorithm::EdDsa, public)?.with_id(Some(id.into())))
    }

    fn checked(algorithm: Algorithm, material: DecodingKey) -> Result<Self, KeyError> {
        let wrong = |error: jsonwebtoken::errors::Error| KeyError::Material(algorithm, error.to_string());
        let bytes = material.try_get_as_bytes().map_err(wrong)?;
        match (material.family(), bytes) {
            (AlgorithmFamily::Rsa, der) if der.len() < MIN_RSA_DER => return Err(KeyError::ShortRsa),
            // An uncompressed point; a longer one is of another curve.
            (AlgorithmFamily::Ec, point) if point.len() != 65 || point[0] != 4 => {
                return Err(KeyError::Material(algorithm, "it is of another curve than P-256".into()));
            }
            (AlgorithmFamily::Ed, point) if point.len() != 32 => {
                return Err(KeyError::Material(algorithm, "it is of another curve than Ed25519".into()));
            }
            _ => {}
        }
        Ok(Self { id: None, algorithm, audience: None, issuer: None, app: AppId::default(), material })
    }

    /// Only tokens whose `kid` is this, or that have none, are tried with the key.
    #[must_use]
    pub fn with_id(self, id: Option<String>) -> Self {
        Self { id, ..self }
    }

    /// Only tokens for this `aud` are taken.
    #[must_use]
    pub fn with_audience(self, audience: Option<String>) -> Self {
        Self { audience, ..self }
    }

    /// Only tokens of this `iss` are taken.
    #[must_use]
    pub fn with_issuer(self, issuer: Option<String>) -> Self {
        Self { issuer, ..self }
    }

    /// Its tokens are of this app, and of no other.
    #[must_use]
    pub fn of_app(self, app: AppId) -> Self {
        Self { app, ..self }
    }
}

impl fmt::Debug for Key {
    /// Without the key itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?})", self.algorithm, self.id)
    }
}

impl Signer {
    /// `material` is the secret itself for HS256, a private key in PEM form (PKCS #8, for RSA PKCS #1 as well) for
    /// the others. `id` becomes the token's `kid`.
    pub fn new(algorithm: Algorithm, id: Option<String>, material: &[u8]) -> Result<Self, KeyError> {
        crypto::install();
        if algorithm != Algorithm::Hs256 && is_public(material) {
            return Err(KeyError::Public);
        }
        let parsed = match algorithm {
            Algorithm::Hs256 => Ok(EncodingKey::from_secret(long_enough(material)?)),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(material),
            Algorithm::Es256 => EncodingKey::from_ec_pem(material),
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(material),
        };
        let material = parsed.map_err(|error| KeyError::Material(algorithm, error.to_string()))?;
        let mut header = Header::new(algorithm.of_jwt());
        header.kid = id;
        Ok(Self { header, material })
    }

    /// An Ed25519 key of our own, in PKCS #8.
    pub(crate) fn ed25519(id: &str, pkcs8: &[u8]) -> Self {
        crypto::install();
        let mut header = Header::new(Algorithm::EdDsa.of_jwt());
        header.kid = Some(id.into());
        Self { header, material: EncodingKey::from_ed_der(pkcs8) }
    }

    /// Of `Claims`, or of an `AccessToken`.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        jsonwebtoken::encode(&self.header, claims, &self.material)
            .map_err(|error| KeyError::Signing(error.to_string()))
    }
}

impl fmt::Debug for Signer {
    /// Without the key itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?}, {:?})", self.header.alg, self.header.kid)
    }
}

fn long_enough(secret: &[u8]) -> Result<&[u8], KeyError> {
    if secret.len() < MIN_SECRET { Err(KeyError::ShortSecret(secret.len())) } else { Ok(secret) }
}

fn is_private(pem: &[u8]) -> bool {
    contains(pem, b"PRIVATE KEY-----")
}

fn is_public(pem: &[u8]) -> bool {
    contains(pem, b"PUBLIC KEY-----")
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
