//! What was published and not acknowledged yet: it is sent again, in its order and with its message ids, until it is.

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use xpush_protocol::{ClientFrame, Publish, Published};

use super::{Acknowledged, PublishError, pause};

/// Under the commands that a server lets wait, so that a ping is read among them.
const UNANSWERED_LIMIT: usize = 128;

/// In the order in which they were published.
#[derive(Default)]
pub(super) struct Publishes {
    waiting: VecDeque<Waiting>,
    /// The server wants a pause: nothing is sent, or it would overtake what has to be sent again.
    not_before: Option<Instant>,
    failures: u32,
}

struct Waiting {
    publish: Publish,
    answer: oneshot::Sender<Result<Acknowledged, PublishError>>,
    /// The command's id, on this connection.
    sent: Option<u32>,
    times: u32,
}

impl Publishes {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < UNANSWERED_LIMIT
    }

    pub(super) fn add(
        &mut self,
        publish: Publish,
        answer: oneshot::Sender<Result<Acknowledged, PublishError>>,
    ) {
        self.waiting.push_back(Waiting { publish, answer, sent: None, times: 0 });
    }

    /// A new connection has begun: nothing was sent on it.
    pub(super) fn begin(&mut self) {
        self.not_before = None;
        for waiting in &mut self.waiting {
            waiting.sent = None;
        }
    }

    /// All that is to be sent now, with ids from `next_id` on.
    pub(super) fn take_unsent(&mut self, next_id: &mut u32) -> Vec<ClientFrame> {
        if self.not_before.is_some() {
            return Vec::new();
        }
        // Who gave up before it was sent does not want it sent.
        self.waiting.retain(|waiting| waiting.sent.is_some() || !waiting.answer.is_closed());
        let unsent = self.waiting.iter_mut().filter(|waiting| waiting.sent.is_none());
        let frames = unsent.map(|waiting| {
            let id = *next_id;
            *next_id += 1;
            waiting.sent = Some(id);
            waiting.times += 1;
            ClientFrame::Publish(Publish { id, ..waiting.publish.clone() })
        });
        frames.collect()
    }

    pub(super) fn published(&mut self, told: &Published) {
        if let Some(waiting) = self.take(told.id) {
            self.failures = 0;
            // What was sent before may have been the first one.
            let duplicate = told.duplicate && waiting.times == 1;
            // Who no longer waits does not want it.
            let _ = waiting.answer.send(Ok(Acknowledged { cursor: told.cursor, duplicate }));
        }
    }

    /// False: it was not one of these.
    pub(super) fn refused(&mut self, id: u32, error: &xpush_protocol::Error) -> bool {
        if !error.retry {
            let Some(waiting) = self.take(id) else { return false };
            let refused = PublishError::Refused { code: error.code, message: error.message.clone() };
            let _ = waiting.answer.send(Err(refused));
            return true;
        }
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.sent == Some(id)) else {
            return false;
        };
        waiting.sent = None;
        // Several are refused together: that is one failure.
        if self.not_before.is_none() {
            self.failures += 1;
            let wanted = Duration::from_millis(error.retry_after.unwrap_or_default().into());
            self.not_before = Some(Instant::now() + pause(self.failures).max(wanted));
        }
        true
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.not_before
    }

    /// Ends the pause that is over.
    pub(super) fn take_due(&mut self) {
        if self.not_before.is_some_and(|at| at <= Instant::now()) {
            self.not_before = None;
        }
    }

    fn take(&mut self, id: u32) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.sent == Some(id))?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{Cursor, Epoch, ErrorCode, Json, MessageId};

    use super::*;

    fn add(publishes: &mut Publishes, n: u32) -> oneshot::Receiver<Result<Acknowledged, PublishError>> {
        let publish = Publish {
            id: 0,
            channel: "room:a".parse().unwrap(),
            message_id: Some(MessageId::random()),
            event: xpush_protocol::EventName::default(),
            data: Some(Json::from_value(&n).unwrap()),
            binary: None,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        };
        let (answer, answered) = oneshot::channel();
        publishes.add(publish, answer);
        answered
    }

    fn said(frames: Vec<ClientFrame>) -> Vec<(u32, String)> {
        let said = |frame| match frame {
            ClientFrame::Publish(publish) => (publish.id, publish.data.unwrap().as_str().to_owned()),
            other => panic!("{other:?}"),
        };
        frames.into_iter().map(said).collect()
    }

    fn published(id: u32, duplicate: bool) -> Published {
        Published { id, cursor: Cursor { epoch: Epoch(1), offset: u64::from(id) }, duplicate }
    }

    fn error(retry: bool) -> xpush_protocol::Error {
        let code = if retry { ErrorCode::Busy } else { ErrorCode::TooLarge };
        xpush_protocol::Error {
            id: None,
            code,
            message: String::new(),
            channel: None,
            retry,
            retry_after: None,
        }
    }

    #[tokio::test]
    async fn what_is_unanswered_is_sent_again_in_order_and_before_what_is_new() {
        let (mut publishes, mut id) = (Publishes::default(), 2);
        let mut answers: Vec<_> = (1..=3).map(|n| add(&mut publishes, n)).collect();
        assert_eq!(said(publishes.take_unsent(&mut id)), [(2, "1".into()), (3, "2".into()), (4, "3".into())]);
        assert_eq!(said(publishes.take_unsent(&mut id)), []);
        publishes.published(&published(3, false));
        assert!(!answers.remove(1).await.unwrap().unwrap().duplicate);
        publishes.begin();
        answers.push(add(&mut publishes, 4));
        id = 2;
        assert_eq!(said(publishes.take_unsent(&mut id)), [(2, "1".into()), (3, "3".into()), (4, "4".into())]);
        publishes.published(&published(2, true));
        publishes.published(&published(4, true));
        assert!(!answers.remove(0).await.unwrap().unwrap().duplicate, "it may have been its own first one");
        assert!(answers.remove(1).await.unwrap().unwrap().duplicate, "it was sent once");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_what_is_to_be_sent_again() {
        let (mut publishes, mut id) = (Publishes::default(), 2);
        let _answers: Vec<_> = (1..=2).map(|n| add(&mut publishes, n)).collect();
        publishes.take_unsent(&mut id);
        assert!(publishes.refused(2, &error(true)));
        let _third = add(&mut publishes, 3);
        assert_eq!(said(publishes.take_unsent(&mut id)), []);
        tokio::time::sleep_until(publishes.next_due().unwrap()).await;
        publishes.take_due();
        assert_eq!(said(publishes.take_unsent(&mut id)), [(4, "1".into()), (5, "3".into())]);
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_sent_again() {
        let (mut publishes, mut id) = (Publishes::default(), 2);
        let (first, second) = (add(&mut publishes, 1), add(&mut publishes, 2));
        publishes.take_unsent(&mut id);
        assert!(publishes.refused(2, &error(false)));
        assert!(!publishes.refused(2, &error(false)));
        assert!(matches!(first.await.unwrap(), Err(PublishError::Refused { code: ErrorCode::TooLarge, .. })));
        drop(second);
        publishes.begin();
        assert_eq!(said(publishes.take_unsent(&mut id)), [], "nobody waits for it");
    }
}
