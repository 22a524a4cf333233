pub mod auth;
pub mod config;
pub mod log;
pub mod namespace;
pub mod publication;
