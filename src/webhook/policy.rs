//! What an app says of one webhook: whom to call, for what, and what holds where nobody answers.
//!
//! The secret is written and never shown again. Who takes a list from outside calls `accept`, who shows one `shown`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xpush_protocol::ErrorCode;

use super::{Target, TargetError};
use crate::session::Refusal;

/// Of one app. Each may be asked before a publish, one after the other.
pub const MAX_WEBHOOKS: usize = 10;
/// Bytes of a webhook's id.
const MAX_ID: usize = 32;
/// Characters of a secret: one of fewer may be guessed, one of more is no better.
const MIN_SECRET: usize = 16;
const MAX_SECRET: usize = 256;
/// A client waits for a `before` webhook, and other deliveries for an `after` one.
const TIMEOUT_MILLIS: std::ops::RangeInclusive<u32> = 50..=30_000;
const DEFAULT_TIMEOUT_MILLIS: u32 = 3_000;
/// Tries until a delivery is a dead letter.
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=50;
/// With the pauses of `outbox`, about half an hour.
const DEFAULT_ATTEMPTS: u32 = 12;

/// One webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Unique within the app: 1 to 32 of a-z, 0-9, `-`, `_`.
    pub id: String,
    pub url: String,
    pub events: Vec<HookEvent>,
    /// Signs what is sent. Absent in what is given: the one there is stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<HookSecret>,
    /// For `before` events: what holds if it does not answer.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Milliseconds for one answer.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// For `after` events: tries, until a delivery is a dead letter.
    #[serde(default = "default_attempts")]
    pub max_attempts: u32,
    /// It is not called. What happens meanwhile is not told later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// What a webhook may be called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookEvent {
    /// A client connects: may be refused.
    #[serde(rename = "before.connect")]
    BeforeConnect,
    /// A client subscribes to a channel: may be refused.
    #[serde(rename = "before.subscribe")]
    BeforeSubscribe,
    /// A client publishes: may be refused, or changed.
    #[serde(rename = "before.publish")]
    BeforePublish,
    /// A durable channel has a new message.
    #[serde(rename = "message.published")]
    MessagePublished,
    #[serde(rename = "user.registered")]
    UserRegistered,
    #[serde(rename = "user.deleted")]
    UserDeleted,
    #[serde(rename = "channel.created")]
    ChannelCreated,
    #[serde(rename = "channel.deleted")]
    ChannelDeleted,
    #[serde(rename = "member.joined")]
    MemberJoined,
    #[serde(rename = "member.left")]
    MemberLeft,
    #[serde(rename = "member.kicked")]
    MemberKicked,
}

/// What holds if a `before` webhook does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is as if it had allowed it.
    Open,
    /// It is refused, with an error that may be retried.
    #[default]
    Closed,
}

/// What signs. Kept in the directory as it is: a signature needs it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HookSecret(String);

impl HookSecret {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HookSecret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl HookEvent {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeConnect => "before.connect",
            Self::BeforeSubscribe => "before.subscribe",
            Self::BeforePublish => "before.publish",
            Self::MessagePublished => "message.published",
            Self::UserRegistered => "user.registered",
            Self::UserDeleted => "user.deleted",
            Self::ChannelCreated => "channel.created",
            Self::ChannelDeleted => "channel.deleted",
            Self::MemberJoined => "member.joined",
            Self::MemberLeft => "member.left",
            Self::MemberKicked => "member.kicked",
        }
    }
}

impl Webhook {
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    #[must_use]
    pub fn wants(&self, event: HookEvent) -> bool {
        !self.disabled && self.events.contains(&event)
    }

    pub(super) fn target(&self) -> Result<Target, TargetError> {
        Target::parse(&self.url)
    }

    fn check(&self) -> Result<(), String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if !(1..=MAX_ID).contains(&self.id.len()) || !self.id.chars().all(allowed) {
            return Err(format!("`id` has to be 1 to {MAX_ID} of a-z, 0-9, `-`, `_`"));
        }
        self.target().map_err(|error| error.to_string())?;
        if self.events.is_empty() {
            return Err("`events` is empty, so it would never be called".into());
        }
        let mut events = self.events.clone();
        events.sort_unstable();
        events.dedup();
        if events.len() < self.events.len() {
            return Err("`events` has one twice".into());
        }
        let is_fit = |secret: &HookSecret| {
            (MIN_SECRET..=MAX_SECRET).contains(&secret.0.len())
                && secret.0.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !self.secret.as_ref().is_none_or(is_fit) {
            return Err(format!("`secret` has to be {MIN_SECRET} to {MAX_SECRET} visible ASCII characters"));
        }
        for (field, value, possible) in
            [("timeout_ms", self.timeout_ms, TIMEOUT_MILLIS), ("max_attempts", self.max_attempts, ATTEMPTS)]
        {
            if !possible.contains(&value) {
                return Err(format!("`{field}` has to be {} to {}", possible.start(), possible.end()));
            }
        }
        Ok(())
    }
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_MILLIS
}

fn default_attempts() -> u32 {
    DEFAULT_ATTEMPTS
}

/// Checks a list that shall hold from now on in the place of `present`. One without a secret keeps that of its id.
pub fn accept(given: Vec<Webhook>, present: &[Webhook]) -> Result<Vec<Webhook>, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidField, message);
    if given.len() > MAX_WEBHOOKS {
        return Err(invalid(format!("`webhooks` are {}; {MAX_WEBHOOKS} at most are possible", given.len())));
    }
    let mut accepted: Vec<Webhook> = Vec::with_capacity(given.len());
    for mut webhook in given {
        webhook.check().map_err(|problem| invalid(format!("the webhook {:?}: {problem}", webhook.id)))?;
        if accepted.iter().any(|other| other.id == webhook.id) {
            return Err(invalid(format!("there are two webhooks {:?}", webhook.id)));
        }
        let known = present.iter().find(|other| other.id == webhook.id);
        let kept = || known.and_then(|known| known.secret.clone());
        webhook.secret = webhook.secret.or_else(kept);
        if webhook.secret.is_none() {
            return Err(invalid(format!(
                "the webhook {:?}: `secret` is missing; it signs what is sent",
                webhook.id
            )));
        }
        accepted.push(webhook);
    }
    Ok(accepted)
}

/// As everybody may see it who may see the app: without the secret.
#[must_use]
pub fn shown(webhooks: &[Webhook]) -> Vec<Webhook> {
    webhooks.iter().map(|webhook| Webhook { secret: None, ..webhook.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(change: serde_json::Value) -> Webhook {
        let mut hook = json!({ "id": "a", "url": "https://a.example/in", "events": ["message.published"] });
        hook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(hook).unwrap()
    }

    #[test]
    fn a_secret_is_kept_by_its_id_and_never_shown() {
        assert!(accept(vec![hook(json!({}))], &[]).unwrap_err().message.contains("secret"));
        let first = accept(vec![hook(json!({ "secret": "abcdefghijklmnop" }))], &[]).unwrap();
        let made = first[0].secret.clone().unwrap();
        let again = accept(vec![hook(json!({ "timeout_ms": 500 }))], &first).unwrap();
        assert_eq!(again[0].secret, Some(made.clone()));
        let given = accept(vec![hook(json!({ "secret": "0123456789abcdef" }))], &again).unwrap();
        assert_eq!(given[0].secret, Some("0123456789abcdef".into()));
        assert!(accept(vec![hook(json!({ "id": "b" }))], &given).is_err(), "another one's is not taken");
        let text = serde_json::to_string(&shown(&first)).unwrap();
        assert!(!text.contains(made.expose()) && !text.contains("secret"), "{text}");
        assert!(!format!("{first:?}").contains(made.expose()));
        // As the directory keeps it.
        let kept: Vec<Webhook> = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        assert_eq!(kept, first);
    }

    #[test]
    fn what_can_not_hold_is_refused_by_the_name_of_the_field() {
        for (change, field) in [
            (json!({ "id": "" }), "id"),
            (json!({ "id": "A" }), "id"),
            (json!({ "id": "a".repeat(33) }), "id"),
            (json!({ "url": "a.example" }), "URL"),
            (json!({ "url": "ftp://a.example/" }), "URL"),
            (json!({ "events": [] }), "events"),
            (json!({ "events": ["before.publish", "before.publish"] }), "events"),
            (json!({ "secret": "short" }), "secret"),
            (json!({ "secret": "with a space in it" }), "secret"),
            (json!({ "timeout_ms": 0 }), "timeout_ms"),
            (json!({ "timeout_ms": 60_000 }), "timeout_ms"),
            (json!({ "max_attempts": 0 }), "max_attempts"),
            (json!({}), "secret"),
        ] {
            let refusal = accept(vec![hook(change)], &[]).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidField);
            assert!(refusal.message.contains(field), "{field}: {}", refusal.message);
        }
        let named = |id: String| hook(json!({ "id": id, "secret": "abcdefghijklmnop" }));
        assert!(accept(vec![named("a".into()), named("a".into())], &[]).is_err());
        let many = |n: usize| (0..n).map(|n| named(format!("a{n}"))).collect();
        assert!(accept(many(MAX_WEBHOOKS), &[]).is_ok());
        assert!(accept(many(MAX_WEBHOOKS + 1), &[]).is_err());
    }

    #[test]
    fn an_unknown_field_or_event_is_no_webhook() {
        for text in [
            r#"{"id":"a","url":"https://a.example","events":["message.published"],"admin":true}"#,
            r#"{"id":"a","url":"https://a.example","events":["everything"]}"#,
            r#"{"id":"a","url":"https://a.example"}"#,
        ] {
            assert!(serde_json::from_str::<Webhook>(text).is_err(), "{text}");
        }
    }
}
