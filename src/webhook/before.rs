//! `before` webhooks: an application's own rule is asked while a client waits, so it has little time, and one that does
//! not answer is left alone for a while.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{debug, warn};
use xpush_protocol::{
    Binary, ChannelName, ErrorCode, EventName, Json, MessageId, Payload, SessionId, UserId,
};

use super::{CallError, HookEvent, OnFailure, Webhooks, notice::Notice, table::Hook};
use crate::{
    auth::Rights,
    publication::Draft,
    session::{Refusal, now},
};

/// Questions to one webhook at once; who comes then waits within its time.
const ASKED_AT_ONCE: usize = 64;
/// Failures in a row after which it is not asked for a while.
const FAILURES: u32 = 5;
/// So long; then one question tries whether it answers again.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Bytes of an answer: a message's data, and what is around it.
const ANSWER_LIMIT: usize = 256 * 1024;
/// Bytes of an application's reason that a client is told.
const REASON_LIMIT: usize = 300;
/// When a client may try again what could not be asked.
const RETRY_AFTER: u32 = 1000;
/// What the server alone says.
const RESERVED: &str = "xpush.";

/// Keeps one webhook from holding up everybody.
pub(super) struct Guard {
    room: Semaphore,
    breaker: Mutex<Breaker>,
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    /// Not asked before then.
    open_until: Option<Instant>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { room: Semaphore::new(ASKED_AT_ONCE), breaker: Mutex::default() }
    }
}

impl Guard {
    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked now.
    fn is_closed(&self) -> bool {
        let now = Instant::now();
        let mut breaker = self.breaker();
        match breaker.open_until {
            Some(until) if until > now => false,
            Some(_) => {
                // This one tries; the others wait for what comes of it.
                breaker.open_until = Some(now + LEFT_ALONE);
                true
            }
            None => true,
        }
    }

    fn answered(&self) {
        *self.breaker() = Breaker::default();
    }

    /// Gives whether it is left alone from now on, and was not before.
    fn failed(&self) -> bool {
        let mut breaker = self.breaker();
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures < FAILURES {
            return false;
        }
        breaker.open_until = Some(Instant::now() + LEFT_ALONE);
        breaker.failures == FAILURES
    }
}

/// What it may answer. Nothing at all is a yes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    #[serde(default = "yes")]
    allow: bool,
    /// For the client.
    #[serde(default)]
    message: Option<String>,
    /// What is to be published in the place of what was.
    #[serde(default)]
    event: Option<EventName>,
    #[serde(default, deserialize_with = "Json::present")]
    data: Option<Json>,
    #[serde(default)]
    binary: Option<Binary>,
}

fn yes() -> bool {
    true
}

impl Verdict {
    fn plain() -> Self {
        Self { allow: true, message: None, event: None, data: None, binary: None }
    }
}

/// Why there is no verdict.
#[derive(Debug, Error)]
enum Failure {
    #[error("it failed often, and is left alone")]
    LeftAlone,
    #[error(transparent)]
    Call(CallError),
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer is no verdict: {0}")]
    Nonsense(String),
}

#[derive(Serialize)]
struct Connecting<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

#[derive(Serialize)]
struct Subscribing<'a> {
    channel: &'a ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    session: &'a SessionId,
}

#[derive(Serialize)]
struct Publishing<'a> {
    channel: &'a ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    message_id: &'a MessageId,
    event: &'a EventName,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Binary>,
}

impl Webhooks {
    /// Asks whether a client may come in.
    pub(crate) async fn before_connect(
        &self,
        rights: &Rights,
        address: IpAddr,
        agent: Option<&str>,
    ) -> Result<(), Refusal> {
        for hook in self.table.of(rights.app(), HookEvent::BeforeConnect) {
            let asked = Connecting { user: rights.user(), address, agent };
            Box::pin(self.may(&hook, HookEvent::BeforeConnect, asked)).await?;
        }
        Ok(())
    }

    /// Asks whether a client may listen to a channel.
    pub(crate) async fn before_subscribe(
        &self,
        rights: &Rights,
        session: &SessionId,
        channel: &ChannelName,
    ) -> Result<(), Refusal> {
        for hook in self.table.of(rights.app(), HookEvent::BeforeSubscribe) {
            let asked = Subscribing { channel, user: rights.user(), session };
            Box::pin(self.may(&hook, HookEvent::BeforeSubscribe, asked)).await?;
        }
        Ok(())
    }

    /// Whether a client's publish has to go through `before_publish`.
    pub(crate) fn asks_before_publish(&self, rights: &Rights) -> bool {
        self.table.has(rights.app(), HookEvent::BeforePublish)
    }

    /// Asks whether it may be published, and gives what is to be.
    pub(crate) async fn before_publish(
        &self,
        rights: &Rights,
        channel: &ChannelName,
        mut draft: Draft,
    ) -> Result<Draft, Refusal> {
        for hook in self.table.of(rights.app(), HookEvent::BeforePublish) {
            let (data, binary) = draft.payload.clone().into_fields();
            let (user, message_id, event) = (draft.user.as_ref(), &draft.message_id, &draft.event);
            let asked = Publishing { channel, user, message_id, event, data, binary };
            let Verdict { event, data, binary, .. } =
                Box::pin(self.verdict(&hook, HookEvent::BeforePublish, asked)).await?;
            draft.event = event.unwrap_or(draft.event);
            if data.is_some() || binary.is_some() {
                draft.payload = Payload::from_fields(data, binary).unwrap_or(draft.payload);
            }
        }
        Ok(draft)
    }

    async fn may(&self, hook: &Arc<Hook>, event: HookEvent, asked: impl Serialize) -> Result<(), Refusal> {
        self.verdict(hook, event, asked).await.map(drop)
    }

    /// A verdict that allows it, or the refusal.
    async fn verdict(
        &self,
        hook: &Arc<Hook>,
        event: HookEvent,
        asked: impl Serialize,
    ) -> Result<Verdict, Refusal> {
        let (app, id) = (&hook.app, &hook.webhook.id);
        match self.ask(hook, event, asked).await {
            Ok(verdict) if verdict.allow => Ok(verdict),
            Ok(Verdict { message, .. }) => Err(Refusal::new(ErrorCode::Refused, reason(message))),
            Err(failure) => {
                debug!(%app, hook = %id, event = event.as_str(), %failure, "a webhook could not be asked");
                match hook.webhook.on_failure {
                    OnFailure::Open => Ok(Verdict::plain()),
                    // Where it is and why it failed is its operator's business.
                    OnFailure::Closed => Err(Refusal {
                        retry_after: Some(RETRY_AFTER),
                        ..Refusal::new(ErrorCode::Busy, "the application can't be asked now; try again")
                    }),
                }
            }
        }
    }

    async fn ask(
        &self,
        hook: &Arc<Hook>,
        event: HookEvent,
        asked: impl Serialize,
    ) -> Result<Verdict, Failure> {
        if !hook.guard.is_closed() {
            return Err(Failure::LeftAlone);
        }
        let id = format!("b-{}", SessionId::random());
        let (app, name) = (&hook.app, hook.webhook.id.as_str());
        let notice = Notice { id: &id, event, app, hook: name, time: now(), data: asked };
        let call = notice.call(hook, 1, ANSWER_LIMIT);
        let within = hook.webhook.timeout();
        let asking = async {
            // It is never closed.
            let _room = hook.guard.room.acquire().await.map_err(|_| CallError::Nobody)?;
            self.dial().call(call).await
        };
        let answer = timeout(within, asking).await.unwrap_or(Err(CallError::TimedOut(within)));
        let verdict = match answer {
            Ok(answer) if answer.is_success() => read(&answer.body, event),
            Ok(answer) => Err(Failure::Status(answer.status)),
            Err(error) => Err(Failure::Call(error)),
        };
        match &verdict {
            Ok(_) => hook.guard.answered(),
            Err(failure) => {
                if hook.guard.failed() {
                    warn!(%app, hook = %name, %failure, "a webhook fails, and is left alone for some seconds");
                }
            }
        }
        verdict
    }
}

fn read(body: &[u8], event: HookEvent) -> Result<Verdict, Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(Verdict::plain());
    }
    let verdict: Verdict =
        serde_json::from_slice(body).map_err(|error| Failure::Nonsense(error.to_string()))?;
    let nonsense = |what: &str| Err(Failure::Nonsense(what.to_owned()));
    if verdict.data.is_some() && verdict.binary.is_some() {
        return nonsense("`data` and `binary`");
    }
    let changes = verdict.event.is_some() || verdict.data.is_some() || verdict.binary.is_some();
    if changes && event != HookEvent::BeforePublish {
        return nonsense("a change of what can't be changed");
    }
    if verdict.event.as_ref().is_some_and(|event| event.as_str().starts_with(RESERVED)) {
        return nonsense("an event that only the server may say");
    }
    Ok(verdict)
}

/// An application's words, as a client may be told them.
fn reason(message: Option<String>) -> String {
    let clean = |text: String| {
        let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
        let mut end = REASON_LIMIT.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    };
    message.map(clean).filter(|text| !text.is_empty()).unwrap_or_else(|| "the application refuses it".into())
}
