//! The log beside real servers of MongoDB: whatever becomes of them, what was acknowledged stands once, at its place.

mod server;

pub(in crate::log) use self::server::open;

#[allow(dead_code)]
fn a_log_can_be_opened_on_any_thread() -> impl Send {
    crate::log::MongoDb::connect("", "", "", Default::default())
}
