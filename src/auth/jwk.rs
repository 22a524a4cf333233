//! Keys as other issuers publish them (RFC 7517): those of a set that can verify a token here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::key::{Algorithm, Key};

/// Keys of one set that are looked at: an issuer has one or two in use, and some that were.
const MAX_KEYS: usize = 32;

/// A set of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

/// One public key. Members that are not here decide nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig` or absent; one of another use verifies nothing.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

impl JwkSet {
    /// The keys of it that can be used: a set may have keys for others, too.
    #[must_use]
    pub fn usable(&self) -> Vec<Key> {
        self.keys.iter().take(MAX_KEYS).filter_map(Jwk::key).collect()
    }
}

impl Jwk {
    /// The public part of an Ed25519 key.
    #[must_use]
    pub fn ed25519(kid: &str, public: &[u8]) -> Self {
        Self {
            kty: "OKP".into(),
            kid: Some(kid.into()),
            alg: Some(Algorithm::EdDsa.as_str().into()),
            usage: Some("sig".into()),
            crv: Some("Ed25519".into()),
            x: Some(URL_SAFE_NO_PAD.encode(public)),
            ..Self::default()
        }
    }

    fn key(&self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let part = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let (algorithm, der) = match (&*self.kty, self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, part(&self.x)?),
            ("EC", Some("P-256")) => (
                Algorithm::Es256,
                [&[4][..], &field_element(part(&self.x)?)?, &field_element(part(&self.y)?)?].concat(),
            ),
            ("RSA", _) => (Algorithm::Rs256, rsa_public_key(&part(&self.n)?, &part(&self.e)?)),
            _ => return None,
        };
        if self.alg.as_deref().is_some_and(|alg| alg != algorithm.as_str()) {
            return None;
        }
        Some(Key::from_der(algorithm, &der).ok()?.with_id(self.kid.clone()))
    }
}

/// 32 bytes; RFC 7518, section 6.2.1.2, wants all of them written, and not everybody does.
fn field_element(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let missing = 32_usize.checked_sub(bytes.len())?;
    Some([vec![0; missing], bytes].concat())
}

/// `RSAPublicKey` of PKCS #1: a sequence of two integers.
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    const INTEGER: u8 = 2;
    const SEQUENCE: u8 = 0x30;
    der(SEQUENCE, &[der(INTEGER, &positive(modulus)), der(INTEGER, &positive(exponent))].concat())
}

/// Without zeros in front, but for the one that says that it is not negative.
fn positive(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = &number[first..];
    if digits.first().is_none_or(|byte| byte & 0x80 != 0) { [&[0], digits].concat() } else { digits.to_vec() }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        // No key of a token has 2^64 bytes.
        bytes.push(0x80 | length.len() as u8);
    }
    bytes.extend_from_slice(length);
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::auth::{Claims, Signer, Verifier};

    #[test]
    fn a_key_of_a_set_verifies_what_its_private_half_signed() {
        // The same keys as in `token/keys`, in the form of a set.
        let part = |text: &str| Some(text.to_owned());
        let rsa = include_str!("token/keys/rsa.pub.pem");
        let body: String = rsa.lines().filter(|line| !line.starts_with('-')).collect();
        let spki = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        // A 2048 bit key's SPKI ends with its modulus, and the three bytes of 65537 in two of tag and length.
        let modulus = &spki[spki.len() - 5 - 256..spki.len() - 5];
        let point = |pem: &str| {
            let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            base64::engine::general_purpose::STANDARD.decode(body).unwrap()
        };
        let p256 = point(include_str!("token/keys/p256.pub.pem"));
        let ed = point(include_str!("token/keys/ed25519.pub.pem"));
        let set = JwkSet {
            keys: vec![
                Jwk { kty: "oct".into(), ..Jwk::default() },
                Jwk {
                    kty: "RSA".into(),
                    kid: part("r"),
                    n: Some(URL_SAFE_NO_PAD.encode(modulus)),
                    e: part("AQAB"),
                    ..Jwk::default()
                },
                Jwk {
                    kty: "EC".into(),
                    kid: part("p"),
                    crv: part("P-256"),
                    x: Some(URL_SAFE_NO_PAD.encode(&p256[p256.len() - 64..p256.len() - 32])),
                    y: Some(URL_SAFE_NO_PAD.encode(&p256[p256.len() - 32..])),
                    ..Jwk::default()
                },
                Jwk::ed25519("e", &ed[ed.len() - 32..]),
            ],
        };
        let verifier = Verifier::new(set.usable());
        let claims = Claims { sub: Some("ann".parse().unwrap()), ..Claims::default() };
        for (algorithm, kid, private) in [
            (Algorithm::Rs256, "r", &include_bytes!("token/keys/rsa.pem")[..]),
            (Algorithm::Es256, "p", include_bytes!("token/keys/p256.pem")),
            (Algorithm::EdDsa, "e", include_bytes!("token/keys/ed25519.pem")),
        ] {
            let token = Signer::new(algorithm, Some(kid.into()), private).unwrap().sign(&claims).unwrap();
            assert!(verifier.verify(&token, SystemTime::now()).is_ok(), "{algorithm}");
        }
    }

    #[test]
    fn a_key_for_something_else_verifies_nothing() {
        let good = Jwk::ed25519("e", &[7; 32]);
        assert_eq!(JwkSet { keys: vec![good.clone()] }.usable().len(), 1);
        for bad in [
            Jwk { usage: Some("enc".into()), ..good.clone() },
            Jwk { alg: Some("HS256".into()), ..good.clone() },
            Jwk { x: Some("AAAA".into()), ..good.clone() },
            Jwk { x: None, ..good.clone() },
            Jwk { crv: Some("X25519".into()), ..good.clone() },
            Jwk { kty: "RSA".into(), n: Some("AQ".into()), e: Some("AQAB".into()), ..Jwk::default() },
        ] {
            assert!(JwkSet { keys: vec![bad.clone()] }.usable().is_empty(), "{bad:?}");
        }
    }
}
