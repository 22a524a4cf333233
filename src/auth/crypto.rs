//! The signatures of tokens, by `ring`.
//!
//! `jsonwebtoken` takes its cryptography from a provider. Its own one for RustCrypto brings the `rsa` crate, whose
//! private-key operations leak through timing (RUSTSEC-2023-0071, no fix), and some forty crates to compile.
//! `ring` is here already, since TLS and QUIC are built on it, and knows the four algorithms that we accept.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, new_error},
    signature::{self, Signer, Verifier},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
    },
};

/// Makes `ring` the provider. A process that has installed one itself keeps it.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| Ok(Box::new(Signing::new(*algorithm, key)?)),
        verifier_factory: |algorithm, key| Ok(Box::new(Verifying::new(*algorithm, key)?)),
        // Only key sets in JWK form need them.
        key_utils: KeyUtils::new_unimplemented(),
    };
    let _ = PROVIDER.install_default();
}

enum Verifying {
    Secret(hmac::Key),
    Public { algorithm: Algorithm, key: UnparsedPublicKey<Vec<u8>> },
}

impl Verifying {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let bytes = key.try_get_as_bytes()?;
        let public: &dyn VerificationAlgorithm = match (algorithm, key.family()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac) => {
                return Ok(Self::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)));
            }
            (Algorithm::EdDSA, AlgorithmFamily::Ed) => &ED25519,
            (Algorithm::ES256, AlgorithmFamily::Ec) => &ECDSA_P256_SHA256_FIXED,
            (Algorithm::RS256, AlgorithmFamily::Rsa) => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(new_error(ErrorKind::InvalidAlgorithm)),
        };
        Ok(Self::Public { algorithm, key: UnparsedPublicKey::new(public, bytes.to_vec()) })
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature),
            Self::Public { key, .. } => key.verify(message, signature),
        }
        .map_err(signature::Error::from_source)
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::HS256,
            Self::Public { algorithm, .. } => *algorithm,
        }
    }
}

enum Signing {
    Secret(hmac::Key),
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signing {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, Error> {
        let bytes = key.as_bytes();
        match (algorithm, key.family()) {
            (Algorithm::HS256, AlgorithmFamily::Hmac) => {
                Ok(Self::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
            }
            (Algorithm::EdDSA, AlgorithmFamily::Ed) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
                .map(Self::Ed25519)
                .map_err(|_| new_error(ErrorKind::InvalidEddsaKey)),
            (Algorithm::ES256, AlgorithmFamily::Ec) => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes, &SystemRandom::new())
                    .map(Self::P256)
                    .map_err(|_| new_error(ErrorKind::InvalidEcdsaKey))
            }
            (Algorithm::RS256, AlgorithmFamily::Rsa) => RsaKeyPair::from_der(bytes)
                .map(Self::Rsa)
                .map_err(|error| new_error(ErrorKind::InvalidRsaKey(error.to_string()))),
            _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
        }
    }
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::P256(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(signature::Error::from_source),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(signature::Error::from_source)?;
                Ok(signature)
            }
        }
    }
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::HS256,
            Self::Ed25519(_) => Algorithm::EdDSA,
            Self::P256(_) => Algorithm::ES256,
            Self::Rsa(_) => Algorithm::RS256,
        }
    }
}
