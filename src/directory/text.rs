//! Texts and data that users give their channels and themselves in channels: how long they may be, and what they may
//! have. Whoever shows them need not be careful with control characters or with addresses that run something.

use xpush_protocol::Json;

use super::{DirectoryError, Result};

/// Refuses a text that is empty, longer than `limit` bytes, or has control characters (but for line ends, if `lines`).
pub(super) fn check(name: &str, text: &str, limit: usize, lines: bool) -> Result<()> {
    if text.is_empty() || text.len() > limit {
        let message = format!("`{name}` has {} bytes; 1 to {limit} are allowed", text.len());
        return Err(DirectoryError::Invalid(message));
    }
    if text.chars().any(|c| c.is_control() && !(lines && c == '\n')) {
        return Err(DirectoryError::Invalid(format!("`{name}` has a control character")));
    }
    Ok(())
}

/// Refuses an address that is not of the web: a page puts it where a script could run.
pub(super) fn check_address(name: &str, text: &str, limit: usize) -> Result<()> {
    check(name, text, limit, false)?;
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(());
    }
    Err(DirectoryError::Invalid(format!("`{name}` is not an address of https or http")))
}

/// Refuses what is no JSON object, or is longer than `limit` bytes.
pub(super) fn check_data(name: &str, data: &Json, limit: usize) -> Result<()> {
    let text = data.as_str();
    if text.len() > limit {
        let message = format!("`{name}` has {} bytes, {limit} at most are allowed", text.len());
        return Err(DirectoryError::Invalid(message));
    }
    if !text.trim_start().starts_with('{') {
        return Err(DirectoryError::Invalid(format!("`{name}` is not a JSON object")));
    }
    Ok(())
}
