//! How a receiver knows that a delivery is ours, and not an old one that somebody kept:
//! `Xpush-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.

use ring::hmac;

use super::HookSecret;

/// The header's value.
#[must_use]
pub fn signature(secret: &HookSecret, seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_any_other_hmac_makes() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_0123456789
        let made = signature(&"whsec_0123456789".into(), 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(made, "t=1700000000,v1=c75d84a628205406f4ed4a2276b40fda417d7ffa69dc3886db7fb9bf0cbd7cc1");
    }
}
