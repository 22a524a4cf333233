pub mod log;
pub mod publication;
