//! The log beside real servers of MongoDB: whatever becomes of them, what was acknowledged stands once, at its place.

mod failover;
mod opening;
mod queries;
mod racing;
mod retention;
mod server;
mod wire;

pub(in crate::log) use self::server::open;
pub(crate) use self::server::{database, server};
use crate::log::{From, Query};

const ALL: Query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };
