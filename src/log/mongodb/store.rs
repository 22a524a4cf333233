//! The database as the log uses it: how it is reached, what is in it, and how sure one must be.
//!
//! Whatever the URL says, a read is one of what a majority has, from the primary, and a write is done when a majority
//! has it in its journals. Everything here that decides where a publication stands rests on that.

use std::time::Duration;

use ::mongodb::{
    Client, ClientSession, Collection, Database, IndexModel,
    bson::{Document, RawDocumentBuf, doc},
    error::Error,
    options::{CollectionOptions, DatabaseOptions, IndexOptions, ReadConcern, ReturnDocument},
};
use tokio::{sync::Semaphore, time::timeout};
use xpush_protocol::{ChannelName, Epoch};

use super::{
    super::{Keep, KeepByNamespace, LogError},
    failure::Failure,
    record,
};
use crate::mongodb::{self, NO_SET, describe, is_duplicate, majority, may_heal, primary};

/// What this version writes.
const FORMAT: u32 = 1;

/// A read takes so long at most, all in all. More than `SELECTION_LIMIT`, so that one hears why.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(4);

/// A write takes so long at most. More than the primary waits for a majority, so that one hears why.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// To look at the database and make its indexes. Mostly they are there.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Reads at one time.
const READERS: usize = 32;

/// How often it may be another node that writes the first document.
const META_TRIES: usize = 5;

pub(super) struct Store {
    client: Client,
    pub(super) messages: Collection<RawDocumentBuf>,
    pub(super) epoch: Epoch,
    keep: KeepByNamespace,
    pub(super) readers: Semaphore,
}

impl Store {
    /// Connects, and makes what is not there yet.
    pub(super) async fn open(url: &str, database: &str, keep: KeepByNamespace) -> Result<Self, LogError> {
        let opening = Opening { named: format!("the database {database:?} of MongoDB") };
        // The log finds out by itself what became of a write. That a server knows the driver's retries again costs it
        // a tenth of its time.
        let client = mongodb::client(url, false).await.map_err(|error| opening.failed(&error))?;
        let settings = DatabaseOptions::builder()
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .write_concern(majority())
            .build();
        let database = client.database_with_options(database, settings);
        let epoch = timeout(OPEN_LIMIT, opening.prepare(&client, &database)).await.unwrap_or_else(|_| {
            let reason = format!("MongoDB did not answer within {} s", OPEN_LIMIT.as_secs());
            Err(LogError::Unavailable { reason })
        })?;
        let settings = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .selection_criteria(primary())
            .write_concern(majority())
            .build();
        let messages = database.collection_with_options("messages", settings);
        Ok(Self { client, messages, epoch, keep, readers: Semaphore::new(READERS) })
    }

    pub(super) fn keep(&self, channel: &ChannelName) -> Keep {
        self.keep.get(channel.namespace()).copied().unwrap_or_default()
    }

    pub(super) fn expires(&self) -> bool {
        self.keep.values().any(|keep| keep.age.is_some())
    }

    /// What it reads is never older than what it wrote or read before.
    pub(super) async fn session(&self) -> Result<ClientSession, Failure> {
        Ok(self.client.start_session().causal_consistency(true).await?)
    }

    pub(super) async fn close(&self) {
        self.client.clone().shutdown().immediate(true).await;
    }
}

/// What is done once, and how its errors name the database.
struct Opening {
    named: String,
}

impl Opening {
    async fn prepare(&self, client: &Client, database: &Database) -> Result<Epoch, LogError> {
        match mongodb::has_majority(client).await {
            Ok(true) => {}
            Ok(false) => return Err(self.refused(NO_SET)),
            Err(error) => return Err(self.failed(&error)),
        }
        let epoch = self.epoch(database).await?;
        self.make_indexes(database).await?;
        Ok(epoch)
    }

    /// Reads the database's own document, or writes it.
    async fn epoch(&self, database: &Database) -> Result<Epoch, LogError> {
        let meta = database.collection::<Document>("meta");
        let first = doc! { "format": i64::from(FORMAT), "epoch": i64::from(Epoch::random().0) };
        let mut tries = 0;
        let found = loop {
            let upsert = meta
                .find_one_and_update(doc! { "_id": "log" }, doc! { "$setOnInsert": &first })
                .upsert(true)
                .return_document(ReturnDocument::After)
                .write_concern(majority());
            match upsert.await {
                Ok(found) => break found.unwrap_or_default(),
                // Another node was first.
                Err(error) if is_duplicate(&error) && tries < META_TRIES => tries += 1,
                Err(error) => return Err(self.failed(&error)),
            }
        };
        let field = |name: &str| {
            let number = found.get_i64(name).ok().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| self.refused(&format!("its document `log` in `meta` has no valid `{name}`")))
        };
        let format = field("format")?;
        if format > FORMAT {
            return Err(LogError::NewerFormat { store: self.named.clone(), found: format, known: FORMAT });
        }
        field("epoch").map(Epoch)
    }

    async fn make_indexes(&self, database: &Database) -> Result<(), LogError> {
        let index = |keys, unique, sparse| {
            let options = IndexOptions::builder().unique(unique).sparse(sparse).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let indexes = [
            index(record::by_offset(), true, false),
            index(record::by_message(), true, false),
            index(record::by_expire(), false, true),
        ];
        let messages = database.collection::<Document>("messages");
        messages.create_indexes(indexes).await.map(drop).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> LogError {
        if may_heal(error) {
            LogError::Unavailable { reason: describe(error) }
        } else {
            self.refused(&describe(error))
        }
    }

    fn refused(&self, reason: &str) -> LogError {
        LogError::Database { database: self.named.clone(), reason: reason.into() }
    }
}
