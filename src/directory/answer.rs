//! Answers that are kept, so that a request which is sent again gets the first one's and is not done twice.
//!
//! Invariant: what is kept is sealed by whoever answers. An answer may have a token or a key in it, and this room has
//! only hashes of those everywhere else.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use xpush_protocol::AppId;

use super::{
    Directory, Record, Result, record,
    store::{Commit, Key},
};

/// How long an answer is kept.
const ANSWER_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request is waited for that was begun, and of which nothing more is heard: its node may have died. Longer
/// than any request may take.
const ANSWER_AWAITED: Duration = Duration::from_secs(90);

/// A request that was begun, by what its caller calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    /// Of the whole request: another one under the same name is a mistake.
    fingerprint: String,
    /// Sealed. `None`: it is under way.
    answer: Option<String>,
}

impl Record for Asked {}

/// What there is of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is the caller's to do, and nobody else's from now on.
    New,
    /// Somebody is at it.
    Underway,
    /// It was done, and this was the answer.
    Done(String),
    /// Another request had this name.
    Another,
}

impl Directory {
    /// Takes a request up. `name` is one of the caller's and of nobody else.
    pub async fn begin(&self, app: &AppId, name: &str, fingerprint: &str) -> Result<Known> {
        let key = &key(app, name);
        self.change(|| async move {
            let Some(asked) = self.read::<Asked>(key).await? else {
                let asked = Asked { fingerprint: fingerprint.to_owned(), answer: None };
                let until = SystemTime::now() + ANSWER_AWAITED;
                let commit = Commit::new().expect(key.clone(), None);
                return Ok((commit.put_until(key.clone(), record::encode(&asked), until), Known::New));
            };
            let known = match asked.value {
                Asked { fingerprint: other, .. } if other != fingerprint => Known::Another,
                Asked { answer: Some(answer), .. } => Known::Done(answer),
                Asked { answer: None, .. } => Known::Underway,
            };
            Ok((Commit::new(), known))
        })
        .await
    }

    /// The request is done.
    pub async fn keep_answer(
        &self,
        app: &AppId,
        name: &str,
        fingerprint: &str,
        sealed: String,
    ) -> Result<()> {
        let asked = Asked { fingerprint: fingerprint.to_owned(), answer: Some(sealed) };
        let (key, until) = (key(app, name), SystemTime::now() + ANSWER_KEPT);
        let plan = || async { Ok((Commit::new().put_until(key.clone(), record::encode(&asked), until), ())) };
        self.change(plan).await
    }

    /// The request was refused: it may be tried again.
    pub async fn forget_answer(&self, app: &AppId, name: &str) -> Result<()> {
        let key = key(app, name);
        self.change(|| async { Ok((Commit::new().delete(key.clone()), ())) }).await
    }
}

fn key(app: &AppId, name: &str) -> Key {
    Key::new(&["answer", app.as_str(), name])
}
