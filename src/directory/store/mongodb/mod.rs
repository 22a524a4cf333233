//! The directory of a cluster: in MongoDB, one document an entry, its key as the `_id`.
//!
//! A commit of one key is one conditional write. One of several is a transaction, in which each key that the commit
//! names is written, also one that it only expects (`plan`): two transactions that name the same key then always meet.
//! So the anomaly of snapshots, where each of two reads what the other writes (write skew), can't happen.
//!
//! Reads are of what a majority has, from the primary; those of several entries are of one snapshot. A primary that was
//! cut off from its majority and has not heard of it yet may give what was true until then, for as long as an election
//! takes; it confirms no commit.
//!
//! Invariant: nothing that came from outside is ever the name of a field or an operator: keys are strings that are
//! compared to `_id`, values are binary.

mod plan;
mod record;
#[cfg(test)]
mod tests;
mod transaction;

use std::time::{Duration, SystemTime};

use ::mongodb::{
    Client, Collection, Database, IndexModel,
    action::Find,
    bson::{Document, doc},
    error::Error,
    options::{CollectionOptions, Hint, IndexOptions, ReadConcern, ReturnDocument},
};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use self::plan::{Plan, Write};
use super::{Commit, CommitError, Entry, Key, SCAN_LIMIT, Scan, Store, StoreError};
use crate::mongodb::{self, NO_SET, describe, is_duplicate, majority, may_heal, primary};

/// What this version writes.
const FORMAT: i64 = 1;

/// A read takes so long at most, all in all. More than a server is looked for, so that one hears why.
const READ_LIMIT: Duration = Duration::from_secs(4);

/// A commit takes so long at most. More than the primary waits for a majority, so that one hears why.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

/// To look at the database and make its index. Mostly they are there.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Reads at one time, and commits: together what there are connections for.
const READERS: usize = 32;
const WRITERS: usize = 32;

/// How often another node may be the one that writes first, where that does not matter.
const TRIES: usize = 5;

/// The server has no snapshot yet, or the collection was just made. It has one a moment later.
const SNAPSHOT_UNAVAILABLE: i32 = 246;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);

/// Keeps the directory in MongoDB.
pub struct MongoDb {
    client: Client,
    entries: Collection<Document>,
    readers: Semaphore,
    writers: Semaphore,
}

impl MongoDb {
    /// Connects, and makes the collection and index of this database that are not there. With no MongoDB there, or
    /// none that has a primary, it fails with `StoreError::Unavailable` after some seconds, and may be tried again.
    pub async fn connect(url: &str, database: &str) -> Result<Self, StoreError> {
        let client = mongodb::client(url, true).await.map_err(|error| opening(&error))?;
        let database = client.database(database);
        let open = timeout(OPEN_LIMIT, prepare(&client, &database)).await;
        open.unwrap_or_else(|_| Err(no_answer(OPEN_LIMIT)))?;
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .write_concern(majority())
            .build();
        let entries = database.collection_with_options("directory", options);
        Ok(Self { client, entries, readers: Semaphore::new(READERS), writers: Semaphore::new(WRITERS) })
    }

    /// Takes nothing more, and lets go of the database once what is under way is answered.
    pub async fn close(&self) {
        let limit = READ_LIMIT.max(COMMIT_LIMIT);
        for places in [(&self.readers, READERS), (&self.writers, WRITERS)] {
            // Whoever has one gives it back within its own limit.
            let _ = timeout(limit, places.0.acquire_many(places.1 as u32)).await;
            places.0.close();
        }
        self.client.clone().shutdown().immediate(true).await;
    }

    /// For a reader: bounded in number and time.
    async fn reading<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let read = async {
            let _reader = self.readers.acquire().await.map_err(|_| closed())?;
            read.await
        };
        timeout(READ_LIMIT, read).await.unwrap_or_else(|_| Err(no_answer(READ_LIMIT)))
    }

    async fn find_one(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.entries.find_one(record::at(key)).await.map_err(|error| failed(&error))?;
        let entry = found.map(|document| record::decode(document).map(|(_, entry)| entry)).transpose()?;
        Ok(entry.filter(|entry| entry.is_live(SystemTime::now())))
    }

    /// Of one snapshot, in the order of their keys.
    async fn find(
        &self,
        filter: Document,
        options: impl Fn(Find<'_, Document>) -> Find<'_, Document>,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        let mut tries = 0;
        loop {
            let found = options(self.entries.find(filter.clone()))
                .hint(by_key())
                .read_concern(ReadConcern::snapshot());
            match collect(found).await {
                Err(error) if mongodb::code(&error) == Some(SNAPSHOT_UNAVAILABLE) && tries < TRIES => {
                    tries += 1;
                    sleep(SNAPSHOT_PAUSE).await;
                }
                Err(error) => return Err(failed(&error)),
                Ok(documents) => return documents.into_iter().map(record::decode).collect(),
            }
        }
    }

    async fn find_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let now = SystemTime::now();
        let batch = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let found = self.find(record::among(keys), |find| find.batch_size(batch)).await?;
        let entries: std::collections::HashMap<_, _> =
            found.into_iter().filter(|(_, entry)| entry.is_live(now)).collect();
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn find_page(&self, scan: Scan) -> Result<Vec<(Key, Entry)>, StoreError> {
        let limit = scan.limit.clamp(1, SCAN_LIMIT);
        let filter = record::within(&scan, SystemTime::now());
        let order = doc! { "_id": if scan.backward { -1 } else { 1 } };
        // One more than the limit, so that the server knows in the first batch that it is the last.
        let batch = limit as u32 + 1;
        self.find(filter, |find| find.sort(order.clone()).limit(limit as i64).batch_size(batch)).await
    }

    async fn do_commit(&self, commit: Commit) -> Result<(), CommitError> {
        commit.check()?;
        let plan = Plan::of(commit).ok_or(CommitError::Conflict)?;
        let work = async {
            let _writer = self.writers.acquire().await.map_err(|_| closed())?;
            match plan.as_slice() {
                steps if steps.iter().all(plan::Step::is_check) => self.check(&plan).await,
                [step] => self.write_one(step).await,
                _ => transaction::run(&self.client, &self.entries, &plan).await,
            }
        };
        timeout(COMMIT_LIMIT, work).await.unwrap_or_else(|_| Err(no_answer(COMMIT_LIMIT).into()))
    }

    /// Nothing is to be written: the versions of one snapshot are compared.
    async fn check(&self, plan: &Plan) -> Result<(), CommitError> {
        let keys: Vec<Key> = plan.iter().map(|step| step.key.clone()).collect();
        let found = self.find_many(&keys).await?;
        let holds = |(step, entry): (&plan::Step, &Option<Entry>)| step.expects(entry.as_ref());
        if plan.iter().zip(&found).all(holds) { Ok(()) } else { Err(CommitError::Conflict) }
    }

    async fn write_one(&self, step: &plan::Step) -> Result<(), CommitError> {
        let mut tries = 0;
        loop {
            let done = match step.write(SystemTime::now()) {
                Write::Update { filter, update, upsert } => {
                    let write = self.entries.replace_one(filter, update).upsert(upsert).hint(by_key());
                    write.await.map(|done| done.matched_count + u64::from(done.upserted_id.is_some()))
                }
                Write::Delete { filter } => {
                    self.entries.delete_one(filter).hint(by_key()).await.map(|done| done.deleted_count)
                }
            };
            match done {
                Ok(0) if step.is_conditional() => return Err(CommitError::Conflict),
                Ok(_) => return Ok(()),
                Err(error) if is_duplicate(&error) && step.is_conditional() => {
                    return Err(CommitError::Conflict);
                }
                // Two who write a new key whatever it was: the other one was first.
                Err(error) if is_duplicate(&error) && tries < TRIES => tries += 1,
                Err(error) => return Err(failed(&error).into()),
            }
        }
    }
}

impl Store for MongoDb {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        self.reading(self.find_one(key)).boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        self.reading(self.find_many(keys)).boxed()
    }

    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.reading(self.find_page(scan)).boxed()
    }

    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>> {
        self.do_commit(commit).boxed()
    }
}

fn by_key() -> Hint {
    Hint::Keys(record::by_key())
}

async fn collect(find: Find<'_, Document>) -> Result<Vec<Document>, Error> {
    let mut cursor = find.await?;
    let mut documents = Vec::new();
    while cursor.advance().await? {
        documents.push(cursor.deserialize_current()?);
    }
    Ok(documents)
}

/// Looks at the database, and makes what is not there yet.
async fn prepare(client: &Client, database: &Database) -> Result<(), StoreError> {
    if !mongodb::has_majority(client).await.map_err(|error| opening(&error))? {
        return Err(StoreError::Refused(NO_SET.into()));
    }
    let format = format(database).await.map_err(|error| opening(&error))?;
    if format.is_none_or(|format| format > FORMAT) {
        let found = format.map_or("none".into(), |format| format.to_string());
        return Err(StoreError::Refused(format!(
            "in the database {:?} of MongoDB it has format {found}; this version of xpush knows {FORMAT} at most. Start a version that is as new as the one that wrote it, or name another database",
            database.name()
        )));
    }
    let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
    let by_expiry = IndexModel::builder().keys(doc! { record::EXPIRES: 1 }).options(options).build();
    // This makes the collection too: within a transaction it would be made under a lock.
    let entries = database.collection::<Document>("directory");
    let made = entries.create_index(by_expiry).write_concern(majority()).await;
    made.map(drop).map_err(|error| opening(&error))
}

/// Reads the format, or writes ours.
async fn format(database: &Database) -> Result<Option<i64>, Error> {
    let meta = database.collection::<Document>("meta");
    let mut tries = 0;
    loop {
        let upsert = meta
            .find_one_and_update(doc! { "_id": "directory" }, doc! { "$setOnInsert": { "format": FORMAT } })
            .upsert(true)
            .return_document(ReturnDocument::After)
            .write_concern(majority());
        match upsert.await {
            Ok(found) => return Ok(found.and_then(|found| found.get_i64("format").ok())),
            // Another node was first.
            Err(error) if is_duplicate(&error) && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn opening(error: &Error) -> StoreError {
    if may_heal(error) { failed(error) } else { StoreError::Refused(describe(error)) }
}

fn failed(error: &Error) -> StoreError {
    StoreError::Unavailable(describe(error))
}

fn no_answer(limit: Duration) -> StoreError {
    StoreError::Unavailable(format!("MongoDB gave no answer within {} s", limit.as_secs()))
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".into())
}
