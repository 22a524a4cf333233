//! Tokens of other issuers: their keys, fetched and kept.

use std::time::SystemTime;

use xpush_protocol::AppId;

use super::{
    Directory, Result,
    app::issuer_prefix,
    policy::{Issuer, MAX_ISSUER},
    store::Scan,
};
use crate::auth::{JwkSet, Rights, TokenError, Verifier};

/// Apps that name the same issuer are told apart by the audience; so many are tried.
const APPS_PER_ISSUER: usize = 16;

impl Directory {
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
                match self.verify_with(known, token, now).await? {
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
    ) -> Result<std::result::Result<Rights, TokenError>> {
        let keys = known.jwks.as_ref().map(JwkSet::usable).unwrap_or_default();
        Ok(Verifier::new(keys).verify_issued(
            token,
            known.audience.as_deref(),
            known.user_claim.as_deref(),
            now,
        ))
    }
}
