//! What may be said in a message, whichever door it comes through: a session's frames or the HTTP API.

use xpush_protocol::{ErrorCode, EventName, MAX_MENTIONS, UserId};

use super::Refusal;

/// Events that the server alone publishes: who reads one can rely on it.
const RESERVED: &str = "xpush.";

/// Refuses an event that only the server may say.
pub(crate) fn check_event(event: &EventName) -> Result<(), Refusal> {
    if event.as_str().starts_with(RESERVED) {
        let message = format!("events that begin with `{RESERVED}` are the server's own; take another name");
        return Err(Refusal::new(ErrorCode::InvalidField, message));
    }
    Ok(())
}

/// What a publish says beside its data.
pub(crate) fn check_extras(
    event: &EventName,
    reply_to: Option<u64>,
    mentions: &[UserId],
    expires_in: Option<u32>,
) -> Result<(), Refusal> {
    check_event(event)?;
    let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidField, message));
    if reply_to == Some(0) {
        return invalid("`reply_to` is 0; the first message of a channel has the offset 1".into());
    }
    if mentions.len() > MAX_MENTIONS {
        return invalid(format!(
            "`mentions` has {} users; at most {MAX_MENTIONS} are allowed",
            mentions.len()
        ));
    }
    if expires_in == Some(0) {
        return invalid("`expires_in` is 0; it is at least 1 ms".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(
        event: &str,
        reply_to: Option<u64>,
        mentions: usize,
        expires_in: Option<u32>,
    ) -> Option<String> {
        let mentions: Vec<UserId> = (0..mentions).map(|n| format!("u{n}").parse().unwrap()).collect();
        check_extras(&event.parse().unwrap(), reply_to, &mentions, expires_in)
            .err()
            .map(|refusal| refusal.message)
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_its_name() {
        assert_eq!(refused("chat", Some(1), MAX_MENTIONS, Some(1)), None);
        for (refused, field) in [
            (refused("xpush.deleted", None, 0, None), "xpush."),
            (refused("chat", Some(0), 0, None), "reply_to"),
            (refused("chat", None, MAX_MENTIONS + 1, None), "mentions"),
            (refused("chat", None, 0, Some(0)), "expires_in"),
        ] {
            assert!(refused.is_some_and(|message| message.contains(field)), "{field}");
        }
        assert_eq!(refused("xpushed", None, 0, None), None);
    }
}
