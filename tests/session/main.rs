//! What a session promises, whatever the wire: here over the memory transport.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod apps;
mod delivery;
#[path = "../harness/mod.rs"]
mod harness;
mod members;
mod messages;
mod outage;
mod people;
mod publishing;
mod rights;
mod stores;

use xpush::client::ClientError;
use xpush_protocol::ErrorCode;

fn code(error: ClientError) -> ErrorCode {
    match error {
        ClientError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}
