//! A backend is proved against the server it speaks to, not against a stand-in: this crate starts real Redis,
//! MongoDB and ZooKeeper servers for the tests, breaks them on purpose, and ends each by its own pid.
//!
//! Every server listens on the loopback, on a port of its own, and keeps its files in a folder that goes with it.
//! A server that can't be started fails the test with a line that says what to do; nothing is skipped.

mod cluster;
mod mongo;
mod port;
mod process;
mod proxy;
mod redis;
mod resp;
mod sentinel;
mod until;
mod zookeeper;

pub use cluster::RedisCluster;
pub use mongo::Mongo;
pub use proxy::Proxy;
pub use redis::Redis;
pub use sentinel::RedisSentinel;
pub use until::until;
pub use zookeeper::ZooKeeper;
