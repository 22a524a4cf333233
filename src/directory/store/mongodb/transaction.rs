//! A commit of several keys: all its writes in one transaction, which is tried again where another one was in the way.

use std::time::{Duration, SystemTime};

use ::mongodb::{
    Client, ClientSession, Collection, Database,
    bson::{Document, doc},
    error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::ReadConcern,
};
use tokio::time::sleep;

use super::{
    super::{CommitError, StoreError},
    failed,
    plan::{Plan, Write},
    record,
};
use crate::mongodb::{self, DUPLICATE_KEY, majority, primary};

/// Tries of one transaction. Another one of the same keys takes some milliseconds, so this is for many of them.
const TRIES: u32 = 12;

/// The first pause between two tries, at most; it doubles up to `LONGEST_PAUSE`. The commit's own time ends it too.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Tries to hear whether it was committed.
const COMMIT_TRIES: usize = 3;

/// Another transaction writes to the same document.
const WRITE_CONFLICT: i32 = 112;

/// Bytes of one command. MongoDB takes 16 MB of one, and a value may come on top.
const COMMAND_BYTES: usize = 8 << 20;

/// Why one try came to nothing.
enum Failure {
    /// What was expected is not so.
    Conflict,
    /// Nothing was written, and it may go well next time.
    Transient(Error),
    Final(StoreError),
}

pub(super) async fn run(
    client: &Client,
    entries: &Collection<Document>,
    plan: &Plan,
) -> Result<(), CommitError> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let error = match once(client, entries, plan).await {
            Ok(()) => return Ok(()),
            Err(Failure::Conflict) => return Err(CommitError::Conflict),
            Err(Failure::Final(error)) => return Err(error.into()),
            Err(Failure::Transient(error)) => error,
        };
        if tries == TRIES {
            let is_conflict = mongodb::code(&error) == Some(WRITE_CONFLICT);
            return Err(if is_conflict { CommitError::Conflict } else { failed(&error).into() });
        }
        tries += 1;
        // At random, so that those who met do not meet again.
        sleep(pause.mul_f64(random_part())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn once(client: &Client, entries: &Collection<Document>, plan: &Plan) -> Result<(), Failure> {
    let database = client.database(&entries.namespace().db);
    let mut session = client.start_session().await?;
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(majority())
        .selection_criteria(primary())
        .await?;
    match write(&database, entries.name(), &mut session, plan).await {
        Ok(()) => Ok(commit(&mut session).await?),
        Err(failure) => {
            // It is over anyway; this only frees what it holds sooner.
            let _ = session.abort_transaction().await;
            Err(failure)
        }
    }
}

async fn write(
    database: &Database,
    collection: &str,
    session: &mut ClientSession,
    plan: &Plan,
) -> Result<(), Failure> {
    let now = SystemTime::now();
    let (mut updates, mut deletes, mut unconditional) =
        (Batch::default(), Batch::default(), Batch::default());
    for step in plan.iter() {
        match step.write(now) {
            Write::Update { filter, update, upsert } => {
                let update = doc! { "q": filter, "u": update, "upsert": upsert, "hint": record::by_key() };
                updates.push(step.bytes(), update);
            }
            Write::Delete { filter } => {
                let batch = if step.is_conditional() { &mut deletes } else { &mut unconditional };
                batch.push(step.bytes(), doc! { "q": filter, "limit": 1, "hint": record::by_key() });
            }
        }
    }
    let mut run = async |command: Document| -> Result<usize, Failure> {
        let answer = database.run_command(command).session(&mut *session).await?;
        written(&answer)
    };
    for updates in updates.0 {
        let count = updates.1.len();
        if run(doc! { "update": collection, "updates": updates.1 }).await? != count {
            return Err(Failure::Conflict);
        }
    }
    for deletes in deletes.0 {
        let count = deletes.1.len();
        if run(doc! { "delete": collection, "deletes": deletes.1 }).await? != count {
            return Err(Failure::Conflict);
        }
    }
    for deletes in unconditional.0 {
        run(doc! { "delete": collection, "deletes": deletes.1 }).await?;
    }
    Ok(())
}

/// Commands with their bytes, roughly.
#[derive(Default)]
struct Batch(Vec<(usize, Vec<Document>)>);

impl Batch {
    fn push(&mut self, bytes: usize, write: Document) {
        match self.0.last_mut() {
            Some((full, writes)) if *full + bytes <= COMMAND_BYTES => {
                *full += bytes;
                writes.push(write);
            }
            _ => self.0.push((bytes, vec![write])),
        }
    }
}

/// How many documents it found, or made.
fn written(answer: &Document) -> Result<usize, Failure> {
    if let Ok([error, ..]) = answer.get_array("writeErrors").map(Vec::as_slice) {
        let code = error.as_document().and_then(|error| error.get_i32("code").ok());
        return Err(match code {
            Some(DUPLICATE_KEY) => Failure::Conflict,
            code => Failure::Final(StoreError::Unavailable(format!(
                "MongoDB refused a write: code {}",
                code.unwrap_or_default()
            ))),
        });
    }
    let count = answer.get_i32("n").ok().and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| Failure::Final(StoreError::Damaged("MongoDB does not say what it wrote".into())))
}

async fn commit(session: &mut ClientSession) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        match session.commit_transaction().await {
            // The same commit again: the server knows it, and says what became of it.
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) && tries < COMMIT_TRIES => {
                tries += 1;
            }
            done => return done,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if mongodb::is_duplicate(&error) {
            Self::Conflict
        } else if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            Self::Transient(error)
        } else {
            Self::Final(failed(&error))
        }
    }
}

fn random_part() -> f64 {
    let mut byte = [0];
    // Without it, all pauses are long ones.
    let _ = getrandom::fill(&mut byte);
    1.0 - f64::from(byte[0]) / 512.0
}
