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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;

    use super::*;
    use crate::directory::store::{Store, contract::on_every_store};

    on_every_store!(
        one_of_many_does_it_and_the_others_get_its_answer
        what_was_refused_may_be_tried_again
    );

    async fn one_of_many_does_it_and_the_others_get_its_answer(store: Arc<dyn Store>) {
        let (directory, app) = (&Directory::new(store), &AppId::default());
        let begun = join_all((0..8).map(|_| directory.begin(app, "order-17", "f"))).await;
        let count = |known: Known| begun.iter().filter(|begun| **begun == Ok(known.clone())).count();
        assert_eq!((count(Known::New), count(Known::Underway)), (1, 7));
        directory.keep_answer(app, "order-17", "f", "done".into()).await.unwrap();
        assert_eq!(directory.begin(app, "order-17", "f").await, Ok(Known::Done("done".into())));
        assert_eq!(directory.begin(app, "order-17", "g").await, Ok(Known::Another));
        // The same name in another app is another one.
        assert_eq!(directory.begin(&"shop".parse().unwrap(), "order-17", "g").await, Ok(Known::New));
    }

    async fn what_was_refused_may_be_tried_again(store: Arc<dyn Store>) {
        let (directory, app) = (&Directory::new(store), &AppId::default());
        assert_eq!(directory.begin(app, "order-17", "f").await, Ok(Known::New));
        directory.forget_answer(app, "order-17").await.unwrap();
        assert_eq!(directory.begin(app, "order-17", "g").await, Ok(Known::New));
    }
}
