//! Drafts on their way to Redis. One task sends what has come into its line meanwhile, waits for the answers, and
//! sends what came then: so nothing overtakes, and under load many drafts share one way there and back.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{Cursor, Epoch};

use super::{Keep, LogError, Scripts, begin};
use crate::{
    log::Appended,
    publication::Draft,
    redis::{Link, LinkError, Reply, read},
};

/// Drafts that are sent together, so that the answer comes well within its deadline.
const BATCH: usize = 128;

/// A draft in line.
pub(super) struct Request {
    pub(super) keys: [String; 3],
    pub(super) keep: Keep,
    pub(super) draft: Draft,
    /// It as it is kept.
    pub(super) body: Vec<u8>,
    pub(super) answer: oneshot::Sender<Result<Appended, LogError>>,
}

/// The line of some channels.
pub(super) struct Line {
    pub(super) link: Arc<Link>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) requests: mpsc::Receiver<Request>,
}

impl Line {
    /// Ends when it is cancelled and everything in line has its answer.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = self.requests.recv_many(&mut batch, BATCH) => {}
                () = cancel.cancelled(), if !self.requests.is_closed() => {
                    self.requests.close();
                    continue;
                }
            }
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&self, batch: Vec<Request>) {
        let keys: Vec<_> = batch.iter().map(|request| &request.keys[..]).collect();
        let answers = self.link.run_each(&self.scripts.append, &keys, |at, call, run| {
            let Request { keep, draft: Draft { publisher, message_id, payload, .. }, body, .. } = &batch[at];
            begin(call, run, *keep);
            call.arg(format!("{} {message_id}", publisher.as_str()))
                .arg(body)
                .arg(payload.len())
                .arg(&self.scripts.envelope);
        });
        // Where it is not known what was done, they may stand in the log: who says them again is told where.
        let answers = answers.await;
        for (request, reply) in batch.into_iter().zip(answers) {
            tell(request, reply);
        }
    }
}

fn tell(request: Request, reply: Result<Reply, LinkError>) {
    let appended =
        reply.and_then(read::<(u8, u32, u64)>).map_err(LogError::from).map(|(new, epoch, offset)| {
            let epoch = Epoch(epoch);
            if new == 0 {
                return Appended::Duplicate(Cursor { epoch, offset });
            }
            Appended::New { epoch, publication: Arc::new(request.draft.into_publication(offset)) }
        });
    // Nobody waits any more: it is appended all the same.
    let _ = request.answer.send(appended);
}
