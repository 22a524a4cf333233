//! The keys in `keys/` are for these tests alone.

use ring::hmac;

use super::*;
use crate::auth::{Algorithm, KeyError, MAX_GRANTS, Permission, Signer};

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

const KEYS: [(Algorithm, &[u8], &[u8]); 4] = [
    (Algorithm::EdDsa, include_bytes!("keys/ed25519.pem"), include_bytes!("keys/ed25519.pub.pem")),
    (Algorithm::Es256, include_bytes!("keys/p256.pem"), include_bytes!("keys/p256.pub.pem")),
    (Algorithm::Rs256, include_bytes!("keys/rsa.pem"), include_bytes!("keys/rsa.pub.pem")),
    (Algorithm::Hs256, SECRET, SECRET),
];

const NOW: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn hs256() -> Key {
    Key::new(Algorithm::Hs256, SECRET).unwrap()
}

fn verify_with(key: Key, token: &str) -> Result<Rights, TokenError> {
    Verifier::new(vec![key]).verify(token, at(NOW))
}

/// Signed by the right secret, whatever it says.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn hs256_signed(claims: &str) -> String {
    signed(r#"{"alg":"HS256"}"#, claims)
}

fn ann() -> Claims {
    Claims {
        sub: Some("ann".parse().unwrap()),
        exp: Some(NOW + 60),
        channels: [("room:*".to_owned(), [Permission::Subscribe].into_iter().collect())].into(),
        ..Claims::default()
    }
}

#[test]
fn a_token_of_each_algorithm_gives_its_rights() {
    for (algorithm, private, public) in KEYS {
        let token = Signer::new(algorithm, None, private).unwrap().sign(&ann()).unwrap();
        let rights = verify_with(Key::new(algorithm, public).unwrap(), &token).unwrap();
        assert_eq!(rights.user().unwrap().as_str(), "ann", "{algorithm}");
        assert_eq!(rights.expires(), Some(at(NOW + 60) + LEEWAY));
        assert!(rights.allows(Permission::Subscribe, &"room:a".parse().unwrap()));
        assert!(!rights.allows(Permission::Publish, &"room:a".parse().unwrap()));
    }
}

#[test]
fn a_token_of_one_key_is_not_taken_by_another() {
    let verifiers = || KEYS.into_iter().map(|(algorithm, _, public)| Key::new(algorithm, public).unwrap());
    for (algorithm, private, _) in KEYS {
        let token = Signer::new(algorithm, None, private).unwrap().sign(&ann()).unwrap();
        for key in verifiers().filter(|key| key.algorithm != algorithm) {
            assert!(matches!(verify_with(key, &token), Err(TokenError::Algorithm(_))), "{algorithm}");
        }
        // The right key is found among the others.
        assert!(Verifier::new(verifiers().collect()).verify(&token, at(NOW)).is_ok());
    }
    let other = Signer::new(Algorithm::Hs256, None, &[b'x'; 32]).unwrap().sign(&ann()).unwrap();
    assert_eq!(verify_with(hs256(), &other), Err(TokenError::Signature));
}

#[test]
fn a_public_key_does_not_sign_as_a_secret() {
    let (_, _, public) = KEYS[2];
    let token = Signer::new(Algorithm::Hs256, None, public).unwrap().sign(&ann()).unwrap();
    let error = verify_with(Key::new(Algorithm::Rs256, public).unwrap(), &token).unwrap_err();
    assert_eq!(error, TokenError::Algorithm("RS256".into()));
    assert_eq!(error.code(), ErrorCode::InvalidToken);
    // The same with the header changed to the key's algorithm, and the secret's signature left.
    let (_, rest) = token.split_once('.').unwrap();
    let renamed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#));
    let error = verify_with(Key::new(Algorithm::Rs256, public).unwrap(), &renamed).unwrap_err();
    assert_eq!(error, TokenError::Signature);
}

#[test]
fn an_unsigned_token_is_refused() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"ann","channels":{"**":["publish"]}}"#);
        for signature in ["", "AAAA"] {
            let error = verify_with(hs256(), &format!("{header}.{claims}.{signature}")).unwrap_err();
            assert_eq!(error, TokenError::Algorithm("HS256".into()), "{alg:?}");
        }
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let claims = URL_SAFE_NO_PAD.encode("{}");
    assert_eq!(verify_with(hs256(), &format!("{header}.{claims}.")), Err(TokenError::Signature));
}

#[test]
fn a_token_that_was_changed_anywhere_is_refused() {
    for (algorithm, private, public) in KEYS {
        let token = Signer::new(algorithm, None, private).unwrap().sign(&ann()).unwrap();
        let verifier = Verifier::new(vec![Key::new(algorithm, public).unwrap()]);
        for at_byte in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at_byte] = if changed[at_byte] == b'B' { b'C' } else { b'B' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verifier.verify(&changed, at(NOW)).is_err(), "{algorithm}: byte {at_byte}");
            let cut = verifier.verify(&token[..at_byte], at(NOW)).unwrap_err();
            assert_eq!(cut.code(), ErrorCode::InvalidToken, "{algorithm}: cut at {at_byte}");
        }
    }
}

#[test]
fn what_is_no_token_is_refused_with_its_reason() {
    let long = "x".repeat(1024 * 1024);
    let bad = |what| TokenError::Malformed(what);
    for (token, error) in [
        ("", bad("it has not three parts with dots between them")),
        ("hello", bad("it has not three parts with dots between them")),
        ("a.b.c.d", bad("it has not three parts with dots between them")),
        ("!.b.c", bad("its header is not base64url")),
        ("e30.e30.e30", bad("its header is no JSON object with `alg`")),
        (&long, TokenError::TooLarge(1024 * 1024)),
        (&signed(r#"{"alg":"HS256","typ":7}"#, "{}"), bad("its header has a parameter of the wrong type")),
        (&signed(r#"{"alg":"HS256","crit":["exp"]}"#, "{}"), TokenError::Critical),
        (&signed(r#"{"alg":"HS256","crit":null}"#, "{}"), TokenError::Critical),
    ] {
        let found = verify_with(hs256(), token).unwrap_err();
        assert_eq!(found, error, "{}", &token[..token.len().min(40)]);
        assert_eq!(found.code(), ErrorCode::InvalidToken);
    }
}

#[test]
fn a_token_holds_between_its_times_only() {
    let verifier = Verifier::new(vec![hs256()]);
    let token = hs256_signed(&format!(r#"{{"nbf":{NOW},"exp":{}.5}}"#, NOW + 60));
    let leeway = LEEWAY.as_secs();
    for (now, error) in [
        (0, Some(TokenError::NotYetValid(NOW))),
        (NOW - leeway - 1, Some(TokenError::NotYetValid(leeway + 1))),
        (NOW - leeway, None),
        (NOW, None),
        (NOW + 60, None),
        (NOW + 60 + leeway - 1, None),
        (NOW + 60 + leeway, Some(TokenError::Expired(leeway))),
        (NOW * 2, Some(TokenError::Expired(NOW - 60))),
    ] {
        let found = verifier.verify(&token, at(now)).err();
        assert_eq!(found, error, "at {now}");
        if let Some(TokenError::Expired(_)) = found {
            assert_eq!(found.unwrap().code(), ErrorCode::TokenExpired);
        }
    }
    // One without times holds always, and one beyond all times as well.
    assert_eq!(verifier.verify(&hs256_signed("{}"), at(NOW)).unwrap().expires(), None);
    let rights = verifier.verify(&hs256_signed(r#"{"exp":1e300}"#), at(NOW)).unwrap();
    assert_eq!(rights.expires(), None);
}

#[test]
fn audience_and_issuer_must_be_the_keys() {
    let key = || hs256().with_audience(Some("xpush".into())).with_issuer(Some("shop".into()));
    for (claims, error) in [
        (r#"{"iss":"shop","aud":"xpush"}"#, None),
        (r#"{"iss":"shop","aud":["a","xpush"]}"#, None),
        (r#"{"iss":"shop"}"#, Some(TokenError::Audience)),
        (r#"{"iss":"shop","aud":"a"}"#, Some(TokenError::Audience)),
        (r#"{"iss":"shop","aud":[]}"#, Some(TokenError::Audience)),
        (r#"{"iss":"shop","aud":["a","b"]}"#, Some(TokenError::Audience)),
        (r#"{"aud":"xpush"}"#, Some(TokenError::Issuer)),
        (r#"{"iss":"bank","aud":"xpush"}"#, Some(TokenError::Issuer)),
    ] {
        assert_eq!(verify_with(key(), &hs256_signed(claims)).err(), error, "{claims}");
    }
    assert!(verify_with(hs256(), &hs256_signed(r#"{"iss":"any","aud":"any"}"#)).is_ok());
}

#[test]
fn a_key_is_chosen_by_its_id_where_the_token_names_one() {
    let other = Key::new(Algorithm::Hs256, &[b'x'; 32]).unwrap().with_id(Some("old".into()));
    let verifier = Verifier::new(vec![other, hs256().with_id(Some("new".into()))]);
    for (kid, error) in
        [("new", None), ("old", Some(TokenError::Signature)), ("../new", Some(TokenError::UnknownKey))]
    {
        let token = signed(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), "{}");
        assert_eq!(verifier.verify(&token, at(NOW)).err(), error, "{kid}");
    }
    assert!(verifier.verify(&hs256_signed("{}"), at(NOW)).is_ok());
}

#[test]
fn claims_of_the_wrong_kind_are_refused() {
    let many: String = (0..=MAX_GRANTS).map(|i| format!(r#""r:{i}":[],"#)).collect();
    for claims in [
        "[]",
        "null",
        r#"{"exp":null}"#,
        r#"{"exp":"tomorrow"}"#,
        r#"{"exp":-1}"#,
        r#"{"exp":1e999}"#,
        r#"{"nbf":true}"#,
        r#"{"sub":7}"#,
        r#"{"sub":""}"#,
        r#"{"sub":null}"#,
        r#"{"sub":"a\u0000b"}"#,
        r#"{"sub":"a","sub":"b"}"#,
        r#"{"aud":{}}"#,
        r#"{"channels":["room:*"]}"#,
        r#"{"channels":{"room:*":["subscibe"]}}"#,
        r#"{"channels":{"room:**:x":["subscribe"]}}"#,
        r#"{"channels":{"inbox:{user}":["subscribe"]}}"#,
        &format!(r#"{{"channels":{{{}}}}}"#, many.trim_end_matches(',')),
    ] {
        let error = verify_with(hs256(), &hs256_signed(claims)).unwrap_err();
        assert!(matches!(error, TokenError::Claims(_) | TokenError::Grants(_)), "{claims}: {error}");
        assert_eq!(error.code(), ErrorCode::InvalidToken);
    }
}

#[test]
fn a_user_can_not_name_itself_into_more_rights() {
    let token = hs256_signed(r#"{"sub":"**","channels":{"inbox:{user}":["subscribe"]}}"#);
    let rights = verify_with(hs256(), &token).unwrap();
    assert!(!rights.allows(Permission::Subscribe, &"inbox:bob".parse().unwrap()));
}

#[test]
fn a_key_that_can_not_be_used_is_refused_at_the_configuration() {
    let error = |algorithm, material: &[u8]| Key::new(algorithm, material).unwrap_err();
    for (algorithm, private, public) in &KEYS[..3] {
        assert_eq!(error(*algorithm, private), KeyError::Private);
        assert_eq!(Signer::new(*algorithm, None, public).unwrap_err(), KeyError::Public);
        for other in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            assert_eq!(Key::new(other, public).is_ok(), other == *algorithm, "{other} from {algorithm}");
        }
        assert!(matches!(error(*algorithm, b"nonsense"), KeyError::Material(..)));
    }
    assert_eq!(error(Algorithm::Hs256, b"short"), KeyError::ShortSecret(5));
    assert_eq!(error(Algorithm::Rs256, include_bytes!("keys/rsa1024.pub.pem")), KeyError::ShortRsa);
    assert!(matches!(error(Algorithm::Es256, include_bytes!("keys/p384.pub.pem")), KeyError::Material(..)));
}

#[test]
fn no_secret_is_in_what_is_logged() {
    let logged = format!("{:?} {:?}", hs256(), Signer::new(Algorithm::Hs256, None, SECRET).unwrap());
    assert!(!logged.contains("thirty-two"), "{logged}");
}

#[test]
fn a_token_speaks_for_the_app_of_its_key_and_for_no_other() {
    let shop: AppId = "shop".parse().unwrap();
    let sign = |app: Option<&str>| {
        let claims = Claims { app: app.map(|app| app.parse().unwrap()), ..ann() };
        Signer::new(Algorithm::Hs256, None, SECRET).unwrap().sign(&claims).unwrap()
    };
    let of_shop = || hs256().of_app(shop.clone());
    for token in [sign(None), sign(Some("shop"))] {
        let rights = verify_with(of_shop(), &token).unwrap();
        assert_eq!(rights.app(), &shop);
        assert_eq!(rights.user(), Some(&"ann".parse::<UserId>().unwrap().within(&shop)));
        let room: xpush_protocol::ChannelName = "room:a".parse().unwrap();
        assert!(rights.allows(Permission::Subscribe, &room.within(&shop)));
        assert!(!rights.allows(Permission::Subscribe, &room));
    }
    for (key, named) in [(of_shop(), "default"), (of_shop(), "game"), (hs256(), "shop")] {
        assert_eq!(verify_with(key, &sign(Some(named))), Err(TokenError::App), "{named}");
    }
    assert!(verify_with(hs256(), &sign(Some("default"))).is_ok());
    for wrong in ["null", "1", r#""Shop""#, r#""shop\u001f""#, r#"["shop"]"#] {
        let token = hs256_signed(&format!(r#"{{"app":{wrong}}}"#));
        assert!(matches!(verify_with(of_shop(), &token), Err(TokenError::Claims(_))), "{wrong}");
    }
}
