//! What holds in an app: who comes in, for how long, and how much of everything there may be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use xpush_protocol::Namespace;

use super::{DirectoryError, Result};
use crate::{
    auth::JwkSet,
    namespace::Access,
    webhook::{self, Webhook},
};

/// Seconds of an access token: what was taken back is checked with every use all the same, so it need not be short
/// for that; but it is written down in more places than a refresh token.
const ACCESS_TOKEN_TTL: (u32, u32) = (10, 24 * 3600);
/// Seconds of a refresh token. A year of silence is a farewell.
const REFRESH_TOKEN_TTL: (u32, u32) = (60, 366 * 24 * 3600);
/// Issuers of one app: each may have to be asked for its keys.
const MAX_ISSUERS: usize = 8;
/// Bytes of an issuer's name or address: it is part of a key.
pub(super) const MAX_ISSUER: usize = 256;
/// Namespaces and origins of one policy, which is read with every request.
const MAX_LISTED: usize = 64;

/// An app's policy. What is not said is as `default` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppPolicy {
    pub login: LoginMode,
    /// Seconds.
    pub access_token_ttl: u32,
    /// Seconds, anew with every refresh.
    pub refresh_token_ttl: u32,
    pub registration: Registration,
    /// Users may look for each other.
    pub user_search: bool,
    /// Who sees whether a user is there.
    pub presence: PresenceShown,
    /// The inbox tells what a message says, not only that there is one.
    pub preview: bool,
    /// What holds for namespaces of the configuration, where it is another thing than there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<Namespace, NamespaceRules>,
    pub quotas: Quotas,
    /// If there, only pages of these may use the app, of those that the configuration lets call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<String>>,
    /// Whom the server calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Whose tokens are taken, beside our own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Issuer>,
}

/// What a login does to the user's other logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginMode {
    #[default]
    Many,
    /// It ends those of the same device.
    PerDevice,
    /// It ends all.
    PerUser,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Everybody may become a user.
    Open,
    /// Backends alone make users.
    #[default]
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceShown {
    Everyone,
    #[default]
    Friends,
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceRules {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    pub devices_per_user: u32,
    pub channels_per_user: u32,
    pub members_per_channel: u32,
    pub friends: u32,
    pub groups: u32,
}

/// Somebody else whose tokens (OpenID Connect, or any JWT with a published key) name users of this app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// Where its keys are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Its keys themselves, in place of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwkSet>,
    /// The tokens' `aud`. Two apps with the same issuer are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The claim that names the user; `sub`, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_claim: Option<String>,
}

impl Default for AppPolicy {
    fn default() -> Self {
        Self {
            login: LoginMode::Many,
            access_token_ttl: 600,
            refresh_token_ttl: 30 * 24 * 3600,
            registration: Registration::Closed,
            user_search: true,
            presence: PresenceShown::Friends,
            preview: true,
            namespaces: BTreeMap::new(),
            quotas: Quotas::default(),
            origins: None,
            webhooks: Vec::new(),
            issuers: Vec::new(),
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            devices_per_user: 20,
            channels_per_user: 1000,
            members_per_channel: 1000,
            friends: 1000,
            groups: 100,
        }
    }
}

impl AppPolicy {
    /// With the fields of `changes` in place of its own; `null` is back to what holds if nothing is said.
    pub fn changed(&self, changes: serde_json::Map<String, Value>) -> Result<Self> {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        for (field, value) in changes {
            match (value, whole.get_mut(&field)) {
                (Value::Null, _) => {
                    whole.as_object_mut().map(|fields| fields.remove(&field));
                }
                // Quotas are changed one by one.
                (Value::Object(changes), Some(Value::Object(present))) if field == "quotas" => {
                    present.extend(changes);
                }
                (value, _) => whole[&field] = value,
            }
        }
        let mut policy: Self = strict(whole, "policy")?;
        policy.check()?;
        let given = std::mem::take(&mut policy.webhooks);
        policy.webhooks = webhook::accept(given, &self.webhooks)
            .map_err(|refused| DirectoryError::Invalid(refused.message))?;
        Ok(policy)
    }

    /// As an operator sees it: without the webhooks' secrets.
    #[must_use]
    pub fn shown(&self) -> Self {
        Self { webhooks: webhook::shown(&self.webhooks), ..self.clone() }
    }

    fn check(&self) -> Result<()> {
        for (field, value, (least, most)) in [
            ("access_token_ttl", self.access_token_ttl, ACCESS_TOKEN_TTL),
            ("refresh_token_ttl", self.refresh_token_ttl, REFRESH_TOKEN_TTL),
        ] {
            if !(least..=most).contains(&value) {
                return invalid(format!(
                    "`policy.{field}` is {value}; {least} to {most} seconds are possible"
                ));
            }
        }
        let origins = self.origins.as_deref().unwrap_or_default();
        if self.namespaces.len() > MAX_LISTED || origins.len() > MAX_LISTED {
            return invalid(format!("`policy` has a list of more than {MAX_LISTED}"));
        }
        for origin in origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '@'])) {
                return invalid("`policy.origins` has one that is not as in \"https://app.example\"".into());
            }
        }
        if self.issuers.len() > MAX_ISSUERS {
            return invalid(format!("`policy.issuers` has more than {MAX_ISSUERS}"));
        }
        self.issuers.iter().try_for_each(Issuer::check)
    }
}

impl Issuer {
    fn check(&self) -> Result<()> {
        let is_text =
            |text: &str| (1..=MAX_ISSUER).contains(&text.len()) && !text.chars().any(char::is_control);
        let others = [&self.jwks_url, &self.audience, &self.user_claim];
        if !is_text(&self.issuer) || others.into_iter().flatten().any(|text| !is_text(text)) {
            return invalid(format!(
                "`policy.issuers` has a text that is empty or has more than {MAX_ISSUER} bytes"
            ));
        }
        match (&self.jwks_url, &self.jwks) {
            (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => Ok(()),
            (Some(_), None) => invalid("`policy.issuers.jwks_url` is no http(s) address".into()),
            (None, Some(set)) if !set.usable().is_empty() => Ok(()),
            (None, Some(_)) => {
                invalid("`policy.issuers.jwks` has no key that can be used: RS256, ES256 or EdDSA".into())
            }
            _ => invalid("`policy.issuers` need one of `jwks_url` and `jwks`".into()),
        }
    }
}

fn invalid<T>(what: String) -> Result<T> {
    Err(DirectoryError::Invalid(what))
}

/// What came from outside, with no field that its type does not have. The types themselves read over such fields,
/// so that an older node can read what a newer one wrote.
fn strict<T: Serialize + DeserializeOwned>(value: Value, name: &str) -> Result<T> {
    let read: T = serde_json::from_value(value.clone())
        .map_err(|error| DirectoryError::Invalid(format!("`{name}` can't be read: {error}")))?;
    let known = serde_json::to_value(&read).unwrap_or_default();
    match unknown(&value, &known, name) {
        Some(field) => invalid(format!("unknown field `{field}`")),
        None => Ok(read),
    }
}

fn unknown(said: &Value, known: &Value, at: &str) -> Option<String> {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => said.iter().find_map(|(field, value)| {
            let at = format!("{at}.{field}");
            match known.get(field) {
                // Whoever publishes a set of keys has more to say of them than concerns us.
                _ if field == "jwks" => None,
                Some(known) => unknown(value, known, &at),
                // What is left out in writing is what says nothing.
                None if value.is_null() || value == &Value::Array(vec![]) => None,
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(at),
            }
        }),
        (Value::Array(said), Value::Array(known)) => {
            said.iter().zip(known).find_map(|(said, known)| unknown(said, known, at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(changes: Value) -> Result<AppPolicy> {
        AppPolicy::default().changed(changes.as_object().unwrap().clone())
    }

    #[test]
    fn a_policy_is_changed_field_by_field() {
        let policy = changed(json!({
            "login": "per_user", "quotas": {"friends": 5}, "namespaces": {"chat": {"receipts": false}},
        }))
        .unwrap();
        assert_eq!(policy.login, LoginMode::PerUser);
        assert_eq!((policy.quotas.friends, policy.quotas.groups), (5, 100));
        let back =
            policy.changed(json!({"login": null, "quotas": null}).as_object().unwrap().clone()).unwrap();
        assert_eq!((back.login, back.quotas), (LoginMode::Many, Quotas::default()));
        assert!(!back.namespaces.is_empty());
    }

    #[test]
    fn what_a_policy_does_not_have_is_refused_by_name() {
        for (changes, named) in [
            (json!({"role": "admin"}), "policy.role"),
            (json!({"quotas": {"frends": 5}}), "policy.quotas.frends"),
            (json!({"namespaces": {"chat": {"acces": "public"}}}), "policy.namespaces.chat.acces"),
            (json!({"login": {"$gt": ""}}), "policy"),
            (json!({"login": "twice"}), "twice"),
            (json!({"access_token_ttl": 1}), "access_token_ttl"),
            (json!({"quotas": {"friends": -1}}), "-1"),
            (json!({"origins": ["*"]}), "policy.origins"),
            (json!({"issuers": [{"issuer": "https://id.example"}]}), "policy.issuers"),
            (json!({"issuers": [{"issuer": "x", "jwks_url": "ftp://x"}]}), "jwks_url"),
            (
                json!({"issuers": [{"issuer": "x", "jwks_url": "https://x/", "aud": "y"}]}),
                "policy.issuers.aud",
            ),
        ] {
            let error = changed(changes.clone()).unwrap_err().to_string();
            assert!(error.contains(named), "{changes}: {error}");
        }
    }
}
