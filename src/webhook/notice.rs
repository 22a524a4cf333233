//! What a webhook is sent: `{"id", "event", "app", "hook", "time", "data"}`, signed.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use xpush_protocol::AppId;

use super::{Call, HookEvent, sign::signature, table::Hook};

/// One delivery's body. The same for every attempt.
#[derive(Debug, Serialize)]
pub(super) struct Notice<'a, D> {
    /// A receiver that has seen it can leave it: it comes again where an answer was lost.
    pub(super) id: &'a str,
    pub(super) event: HookEvent,
    pub(super) app: &'a AppId,
    pub(super) hook: &'a str,
    /// Milliseconds since 1970.
    pub(super) time: u64,
    pub(super) data: D,
}

impl<D: Serialize> Notice<'_, D> {
    /// The attempt counts from 1.
    pub(super) fn call(&self, hook: &Hook, attempt: u32, answer_limit: usize) -> Call {
        let body = crate::directory::record::encode(self);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut headers = vec![
            ("xpush-delivery", self.id.to_owned()),
            ("xpush-event", self.event.as_str().to_owned()),
            ("xpush-attempt", attempt.to_string()),
        ];
        if let Some(secret) = &hook.webhook.secret {
            headers.push(("xpush-signature", signature(secret, seconds, &body)));
        }
        Call {
            target: hook.target.clone(),
            headers,
            body: Some(Bytes::from(body)),
            within: hook.webhook.timeout(),
            answer_limit,
        }
    }
}
