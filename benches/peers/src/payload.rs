//! The 128 bytes that are published: a mark, the message's number, and filling.
//!
//! A message is found by its mark, wherever a peer's frame carries it. So the load need not take frames apart further
//! than to know where they end, and one search serves all peers alike.

use std::sync::LazyLock;

use memchr::memmem::Finder;

pub(crate) const LENGTH: usize = 128;

/// Plain in JSON, in MessagePack and in every text protocol; no peer says it by itself.
const MARK: &[u8] = b"@xpush-bench:";
/// Hexadecimal.
const NUMBER: usize = 16;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));

pub(crate) fn of(number: u64) -> [u8; LENGTH] {
    let mut payload = [b'.'; LENGTH];
    payload[..MARK.len()].copy_from_slice(MARK);
    payload[MARK.len()..][..NUMBER].copy_from_slice(format!("{number:016x}").as_bytes());
    payload
}

/// The numbers of the messages that a frame carries whole; a peer may put several into one.
pub(crate) fn numbers(frame: &[u8]) -> impl Iterator<Item = u64> {
    FINDER.find_iter(frame).filter_map(|at| {
        let payload = frame.get(at..at + LENGTH)?;
        let number = payload.get(MARK.len()..MARK.len() + NUMBER)?;
        u64::from_str_radix(str::from_utf8(number).ok()?, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_whole_messages_of_a_frame_are_found() {
        let mut frame = b"{\"data\":\"".to_vec();
        frame.extend_from_slice(&of(7));
        frame.extend_from_slice(b"\"}\n{\"data\":\"");
        frame.extend_from_slice(&of(u64::MAX));
        assert_eq!(numbers(&frame).collect::<Vec<_>>(), [7, u64::MAX]);
        assert_eq!(numbers(&frame[..frame.len() - 1]).collect::<Vec<_>>(), [7]);
    }
}
