pub mod auth;
pub mod log;
pub mod namespace;
pub mod publication;
