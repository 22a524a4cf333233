//! The way to MongoDB, for the log and the directory: how it is reached, how sure one must be, and what an error says.
//!
//! Whatever the URL says, a read is one of what a majority has, from the primary, and a write is done when a majority
//! has it in its journals.

use std::time::Duration;

use mongodb::{
    Client,
    bson::doc,
    error::{Error, ErrorKind, WriteFailure},
    options::{Acknowledgment, ClientOptions, ReadPreference, SelectionCriteria, WriteConcern},
};

/// So long it is looked for a server that takes what is to be done. With none, it fails after that.
const SELECTION_LIMIT: Duration = Duration::from_secs(3);

/// From one question whether a server is there to the next. One that is frozen or cut off is so found out after
/// this and `CONNECT_LIMIT`.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// To connect, and to answer a heartbeat.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The primary waits so long for a majority.
const MAJORITY_LIMIT: Duration = Duration::from_secs(4);

/// Connections at most, where the URL says nothing: what reads and writes at one time, and some to spare.
const CONNECTIONS: u32 = 64;

/// The code of a key that is there already.
pub(crate) const DUPLICATE_KEY: i32 = 11000;

/// What to say where `has_majority` says no.
pub(crate) const NO_SET: &str = "MongoDB runs without a replica set, so it has no majority to confirm a write. Start it with --replSet; one member is enough";

/// Nothing is connected yet; an error is one of the URL. With `retry_writes` the driver does a write that was cut off
/// once more, and the server knows it again.
pub(crate) async fn client(url: &str, retry_writes: bool) -> Result<Client, Error> {
    let mut options = ClientOptions::parse(url).await?;
    options.app_name.get_or_insert_with(|| "xpush".into());
    options.connect_timeout.get_or_insert(CONNECT_LIMIT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    options.max_pool_size.get_or_insert(CONNECTIONS);
    options.server_selection_timeout = Some(SELECTION_LIMIT);
    options.retry_reads = Some(true);
    options.retry_writes = Some(retry_writes);
    Client::with_options(options)
}

/// Whether the server is of a replica set or a sharded cluster.
pub(crate) async fn has_majority(client: &Client) -> Result<bool, Error> {
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await?;
    let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    Ok(is_router || hello.contains_key("setName"))
}

pub(crate) fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

pub(crate) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(MAJORITY_LIMIT).build()
}

/// Whether it may go well when it is tried again.
pub(crate) fn may_heal(error: &Error) -> bool {
    /// Unauthorized, AuthenticationFailed, IndexOptionsConflict, IndexKeySpecsConflict, and Atlas's own refusal.
    const FINAL: [i32; 5] = [13, 18, 85, 86, 8000];
    match &*error.kind {
        ErrorKind::Command(error) => !FINAL.contains(&error.code),
        ErrorKind::Authentication { .. }
        | ErrorKind::InvalidArgument { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::IncompatibleServer { .. } => false,
        _ => true,
    }
}

/// What the server calls it, of a command or of its one write.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}

pub(crate) fn is_duplicate(error: &Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

/// Without the driver's labels, and without the values of a duplicate key.
pub(crate) fn describe(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::InsertMany(failed) => {
            if let Some(concern) = &failed.write_concern_error {
                return format!("MongoDB did not confirm a write: {}", concern.message);
            }
            let codes = failed.write_errors.iter().flatten().map(|error| error.code.to_string());
            format!("MongoDB refused a write: code {}", codes.collect::<Vec<_>>().join(", "))
        }
        ErrorKind::Write(WriteFailure::WriteError(error)) => {
            format!("MongoDB refused a write: code {}", error.code)
        }
        kind => format!("MongoDB: {kind}"),
    }
}
