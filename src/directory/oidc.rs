//! Tokens of other issuers: their keys, fetched and kept.
//!
//! Keys are fetched from where the app's policy says, by the dialer of the webhooks: to public addresses alone, within
//! bounds, without following anybody elsewhere. A token that names a key which is not known has them fetched again, at
//! most so often, whoever sends such tokens. Keys that were fetched hold on while their server is away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::warn;
use xpush_protocol::AppId;

use super::{
    Directory, Result,
    app::issuer_prefix,
    policy::{Issuer, MAX_ISSUER},
    store::Scan,
};
use crate::{
    auth::{JwkSet, Rights, TokenError, Verifier},
    webhook::{Call, CallError, Dial, Target},
};

/// Apps that name the same issuer are told apart by the audience; so many are tried.
const APPS_PER_ISSUER: usize = 16;
/// Between two fetches of the same keys.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// A client waits for its connection meanwhile.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a set of keys: those of the large issuers have some 3 KiB.
const SET_LIMIT: usize = 64 * 1024;
/// Sets that are held at once.
const SETS_LIMIT: usize = 256;

/// The keys that were fetched, by their address.
#[derive(Default)]
pub(super) struct IssuerKeys {
    dial: OnceLock<Arc<dyn Dial>>,
    /// Each behind a lock of its own, so that many who wait for the same keys have them fetched once.
    sets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Fetched>>>>,
}

#[derive(Default)]
struct Fetched {
    verifier: Option<Arc<Verifier>>,
    tried: Option<Instant>,
}

impl IssuerKeys {
    fn entry(&self, url: &str) -> Arc<tokio::sync::Mutex<Fetched>> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= SETS_LIMIT && !sets.contains_key(url) {
            sets.clear();
        }
        Arc::clone(sets.entry(url.to_owned()).or_default())
    }

    /// The keys of an address; `anew`: those that are held don't do.
    async fn get(&self, url: &str, anew: bool) -> Option<Arc<Verifier>> {
        let entry = self.entry(url);
        let mut fetched = entry.lock().await;
        let is_enough = fetched.verifier.is_some() && !anew;
        if is_enough || fetched.tried.is_some_and(|tried| tried.elapsed() < FETCH_PAUSE) {
            return fetched.verifier.clone();
        }
        fetched.tried = Some(Instant::now());
        match self.fetch(url).await {
            Ok(set) => fetched.verifier = Some(Arc::new(Verifier::new(set.usable()))),
            Err(why) => warn!(%url, %why, "an issuer's keys can't be fetched"),
        }
        fetched.verifier.clone()
    }

    async fn fetch(&self, url: &str) -> std::result::Result<JwkSet, String> {
        let dial = self.dial.get().ok_or_else(|| CallError::Nobody.to_string())?;
        let call = Call {
            target: Target::parse(url).map_err(|error| error.to_string())?,
            headers: vec![("accept", "application/jwk-set+json, application/json".into())],
            body: None,
            within: FETCH_WITHIN,
            answer_limit: SET_LIMIT,
        };
        let answer = dial.call(call).await.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            return Err(format!("it answers {}", answer.status));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| format!("it answers with no set of keys: {error}"))
    }
}

impl Directory {
    /// Fetches keys by this. The first one stays.
    pub fn dial_by(&self, dial: Arc<dyn Dial>) {
        let _ = self.issuer_keys.dial.set(dial);
    }

    /// The rights that a token of an app's issuer gives: to be that user. `None`: no app takes this issuer's tokens.
    pub async fn verify_issued(
        &self,
        issuer: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<Option<std::result::Result<Rights, TokenError>>> {
        if issuer.len() > MAX_ISSUER {
            return Ok(None);
        }
        let scan = Scan { limit: APPS_PER_ISSUER, ..Scan::of(issuer_prefix(issuer)) };
        let mut refused = None;
        for (key, _) in self.store.scan(scan).await? {
            let Ok(app) = key.component(2).parse::<AppId>() else { continue };
            let policy = self.policy(&app).await?;
            for known in policy.issuers.iter().filter(|known| known.issuer == issuer) {
                match self.verify_with(known, token, now).await {
                    Ok(rights) => return Ok(Some(Ok(rights.within(app)))),
                    Err(error) => refused = Some(Err(error)),
                }
            }
        }
        Ok(refused)
    }

    async fn verify_with(
        &self,
        known: &Issuer,
        token: &str,
        now: SystemTime,
    ) -> std::result::Result<Rights, TokenError> {
        let (audience, claim) = (known.audience.as_deref(), known.user_claim.as_deref());
        let verify = |verifier: &Verifier| verifier.verify_issued(token, audience, claim, now);
        if let Some(set) = &known.jwks {
            return verify(&Verifier::new(set.usable()));
        }
        let url = known.jwks_url.as_deref().unwrap_or_default();
        let held = self.issuer_keys.get(url, false).await.ok_or(TokenError::UnknownKey)?;
        match verify(&held) {
            // Maybe they have changed meanwhile.
            Err(TokenError::UnknownKey | TokenError::Signature | TokenError::Algorithm(_)) => {
                verify(&*self.issuer_keys.get(url, true).await.ok_or(TokenError::UnknownKey)?)
            }
            verified => verified,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use ring::{
        rand::SystemRandom,
        signature::{Ed25519KeyPair, KeyPair as _},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        auth::{Jwk, Signer},
        directory::store::Memory,
        webhook::Answer,
    };

    /// Somebody who publishes keys, and counts who asks.
    #[derive(Default)]
    struct Publisher {
        set: Mutex<JwkSet>,
        asked: AtomicUsize,
        is_away: std::sync::atomic::AtomicBool,
    }

    impl Dial for Publisher {
        fn call(&self, call: Call) -> BoxFuture<'_, std::result::Result<Answer, CallError>> {
            assert_eq!(call.target.origin(), "https://id.example");
            self.asked.fetch_add(1, Ordering::Relaxed);
            let body = Bytes::from(serde_json::to_vec(&*self.set.lock().unwrap()).unwrap());
            let status = if self.is_away.load(Ordering::Relaxed) { 503 } else { 200 };
            Box::pin(std::future::ready(Ok(Answer { status, body })))
        }
    }

    impl Publisher {
        /// A new key, which is published beside the others.
        fn key(&self, kid: &str) -> Signer {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref()).unwrap();
            self.set.lock().unwrap().keys.push(Jwk::ed25519(kid, pair.public_key().as_ref()));
            Signer::ed25519(kid, pkcs8.as_ref())
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    const ISSUER: &str = "https://id.example";

    async fn directory(publisher: &Arc<Publisher>) -> Directory {
        let directory = Directory::new(Arc::new(Memory::default()));
        directory.dial_by(Arc::clone(publisher) as Arc<dyn Dial>);
        for (app, audience) in [("shop", "shop-client"), ("forum", "forum-client")] {
            let issuer =
                json!({ "issuer": ISSUER, "jwks_url": "https://id.example/keys", "audience": audience });
            let changes = json!({ "issuers": [issuer] });
            let policy = crate::directory::AppPolicy::default().changed(changes.as_object().unwrap().clone());
            directory.create_app(&app.parse().unwrap(), app, policy.unwrap()).await.unwrap();
        }
        directory
    }

    fn claims(changes: &Value) -> Value {
        let now = super::super::millis(SystemTime::now()) / 1000;
        let mut claims =
            json!({ "iss": ISSUER, "aud": "shop-client", "sub": "ann", "exp": now + 60, "iat": now });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    }

    async fn verify(
        directory: &Directory,
        signer: &Signer,
        changes: Value,
    ) -> std::result::Result<Rights, TokenError> {
        let token = signer.sign(&claims(&changes)).unwrap();
        directory.verify_issued(ISSUER, &token, SystemTime::now()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn an_issuers_token_names_a_user_of_the_app_that_its_audience_is_of() {
        let publisher = Arc::new(Publisher::default());
        let signer = publisher.key("one");
        let directory = directory(&publisher).await;
        for (audience, app) in [("shop-client", "shop"), ("forum-client", "forum")] {
            let rights = verify(&directory, &signer, json!({ "aud": audience })).await.unwrap();
            assert_eq!((rights.app().as_str(), rights.user().unwrap().local()), (app, "ann"));
            assert!(!rights.is_everything() && rights.account().unwrap().login.is_none());
        }
        assert_eq!(publisher.asked(), 1);
        for (changes, wrong) in [
            (json!({ "aud": "other" }), TokenError::Audience),
            (json!({ "sub": { "$gt": "" } }), TokenError::Claims("`sub` is no text".into())),
            (json!({ "exp": null }), TokenError::Claims(String::new())),
            (json!({ "exp": 1 }), TokenError::Expired(0)),
        ] {
            let error = verify(&directory, &signer, changes.clone()).await.unwrap_err();
            assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&wrong), "{changes}: {error}");
        }
        let token = signer.sign(&claims(&json!({}))).unwrap();
        assert_eq!(
            directory.verify_issued("https://other.example", &token, SystemTime::now()).await,
            Ok(None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_again_for_an_unknown_one_and_not_too_often() {
        let publisher = Arc::new(Publisher::default());
        let old = publisher.key("old");
        let directory = directory(&publisher).await;
        verify(&directory, &old, json!({})).await.unwrap();
        let new = publisher.key("new");
        for _ in 0..3 {
            assert_eq!(verify(&directory, &new, json!({})).await, Err(TokenError::UnknownKey));
        }
        assert_eq!(publisher.asked(), 1);
        tokio::time::advance(FETCH_PAUSE).await;
        // One of them is of nobody, and the keys come with it.
        let unpublished = Publisher::default().key("unpublished");
        assert_eq!(verify(&directory, &unpublished, json!({})).await, Err(TokenError::UnknownKey));
        verify(&directory, &new, json!({})).await.unwrap();
        assert_eq!(publisher.asked(), 2);
        // While its server is away, the keys hold on.
        publisher.is_away.store(true, Ordering::Relaxed);
        tokio::time::advance(FETCH_PAUSE).await;
        assert!(verify(&directory, &unpublished, json!({})).await.is_err());
        verify(&directory, &old, json!({})).await.unwrap();
        assert_eq!(publisher.asked(), 3);
    }

    #[tokio::test]
    async fn keys_in_the_policy_need_nobody_who_is_called() {
        let publisher = Publisher::default();
        let signer = publisher.key("one");
        let directory = Directory::new(Arc::new(Memory::default()));
        let set = publisher.set.lock().unwrap().clone();
        let issuer = json!({ "issuer": ISSUER, "jwks": set, "user_claim": "email" });
        let policy = json!({ "issuers": [issuer] });
        let default = AppId::default();
        directory.update_app(&default, None, None, policy.as_object().cloned()).await.unwrap();
        let rights = verify(&directory, &signer, json!({ "email": "ann@example.org" })).await.unwrap();
        assert_eq!(rights.user().unwrap().local(), "ann@example.org");
        // What was taken out of the policy is taken no more.
        let none = json!({ "issuers": [] });
        directory.update_app(&default, None, None, none.as_object().cloned()).await.unwrap();
        let token = signer.sign(&claims(&json!({ "email": "ann@example.org" }))).unwrap();
        assert_eq!(directory.verify_issued(ISSUER, &token, SystemTime::now()).await, Ok(None));
    }
}
