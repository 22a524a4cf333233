//! Which channels a grant is for. The grammar is small enough to be explained in a breath, and a match costs at
//! most one walk over the name, whatever the pattern: it comes from outside.
//!
//! A pattern is a channel's name in which
//! - `*` stands for any characters, or none, but for a colon,
//! - `**`, alone behind the last colon or alone at all, stands for everything,
//! - `{user}` stands for the id of the token's user, and for nothing else: a star or a colon in it is no wildcard
//!   and no separator.
//!
//! So `room:*` covers `room:lobby` and not `room:lobby:staff`, `room:**` covers both, and `dm:*~{user}` covers
//! the conversations that have the user at the end of their name.

use thiserror::Error;
use xpush_protocol::UserId;

/// A longer one could match no name.
const MAX_PATTERN: usize = 255;

const USER: &str = "{user}";

/// A pattern of channel names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// `**` follows: the name goes on as it likes.
    open: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatternError {
    #[error("a pattern is empty")]
    Empty,
    #[error("a pattern has {0} bytes, {MAX_PATTERN} at most are allowed")]
    TooLong(usize),
    #[error("a pattern has the character {0:?}")]
    Character(char),
    #[error("a pattern has `**` where it may not be: it stands alone, behind the last colon or alone at all")]
    Stars,
    #[error("a pattern has a brace that is not of {USER}")]
    Brace,
    #[error("a pattern has {USER}, and there is no user")]
    NoUser,
}

impl Pattern {
    /// `user` is what `{user}` stands for.
    pub fn parse(text: &str, user: Option<&UserId>) -> Result<Self, PatternError> {
        match text.len() {
            0 => return Err(PatternError::Empty),
            n if n > MAX_PATTERN => return Err(PatternError::TooLong(n)),
            _ => {}
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(PatternError::Character(c));
        }
        let (closed, open) = match text.strip_suffix("**") {
            Some("") => return Ok(Self::everything()),
            Some(front) => (front.strip_suffix(':').ok_or(PatternError::Stars)?, true),
            None => (text, false),
        };
        // The user's id is put in behind the cut at the colons: it can't bring one.
        let segments = closed.split(':').map(|segment| Segment::parse(segment, user));
        Ok(Self { segments: segments.collect::<Result<_, _>>()?, open })
    }

    /// `**`
    #[must_use]
    pub fn everything() -> Self {
        Self { segments: vec![], open: true }
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut rest = Some(name);
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            let (head, tail) = match text.split_once(':') {
                Some((head, tail)) => (head, Some(tail)),
                None => (text, None),
            };
            if !segment.matches(head) {
                return false;
            }
            rest = tail;
        }
        self.open == rest.is_some()
    }
}

/// What is between two colons: literal pieces with a star between each two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment(Vec<Box<str>>);

impl Segment {
    fn parse(text: &str, user: Option<&UserId>) -> Result<Self, PatternError> {
        if text.contains("**") {
            return Err(PatternError::Stars);
        }
        text.split('*').map(|piece| literal(piece, user)).collect::<Result<_, _>>().map(Self)
    }

    /// The first piece is at the beginning, the last at the end, and each of the others as early as it can be: an
    /// earlier place never leaves less room for the rest, so there is nothing to try again.
    fn matches(&self, text: &str) -> bool {
        let [first, others @ ..] = &*self.0 else { return false };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        let [middle @ .., last] = others else { return rest.is_empty() };
        for piece in middle {
            let Some(at) = rest.find(&**piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(&**last)
    }
}

fn literal(piece: &str, user: Option<&UserId>) -> Result<Box<str>, PatternError> {
    let mut parts = piece.split(USER);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(user.ok_or(PatternError::NoUser)?.local());
        text.push_str(part);
    }
    if piece.replace(USER, "").contains(['{', '}']) {
        return Err(PatternError::Brace);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, None).unwrap()
    }

    #[test]
    fn a_star_stays_between_two_colons() {
        for (text, covered, not_covered) in [
            ("room:lobby", &["room:lobby"][..], &["room:lobby2", "room:lobb", "room:lobby:a", "room"][..]),
            ("room:*", &["room:lobby", "room:"], &["room:a:b", "rooms:a", "room"]),
            ("room:**", &["room:a", "room:a:b:c"], &["room", "rooms:a"]),
            ("**", &["room:a", "x:y:z"], &[]),
            ("*:a", &["room:a", "live:a"], &["room:b", "room:b:a"]),
            ("room:a*b*c", &["room:abc", "room:axbyc", "room:abcbc"], &["room:ab", "room:acb", "room:abcd"]),
            ("room:*a*", &["room:a", "room:xay"], &["room:xy"]),
            ("room:*:staff", &["room:a:staff"], &["room:a:b:staff", "room:staff"]),
            ("room:ab*ba", &["room:abba", "room:abxba"], &["room:aba"]),
        ] {
            for name in covered {
                assert!(pattern(text).matches(name), "{text} does not cover {name}");
            }
            for name in not_covered {
                assert!(!pattern(text).matches(name), "{text} covers {name}");
            }
        }
    }

    #[test]
    fn a_users_id_is_never_a_wildcard() {
        let inbox = |id: &str| Pattern::parse("inbox:{user}", Some(&id.parse().unwrap())).unwrap();
        assert!(inbox("ann").matches("inbox:ann"));
        assert!(!inbox("ann").matches("inbox:bob"));
        for id in ["*", "**", "a*", "{user}", "x:**", "ann:*"] {
            assert!(!inbox(id).matches("inbox:ann"), "{id}");
            assert!(!inbox(id).matches("inbox:ann:private"), "{id}");
        }
        // Two ids that look alike once they are put in don't reach each other's channels.
        let private = |id: &str| Pattern::parse("inbox:{user}:**", Some(&id.parse().unwrap())).unwrap();
        assert!(private("a").matches("inbox:a:b:private"));
        assert!(!private("a:b").matches("inbox:a:b:private"));
        let conversation = Pattern::parse("dm:*~{user}", Some(&"ann".parse().unwrap())).unwrap();
        assert!(conversation.matches("dm:bob~ann") && !conversation.matches("dm:ann~bob"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            (&"x".repeat(256), PatternError::TooLong(256)),
            ("room:a b", PatternError::Character(' ')),
            ("room:a\n", PatternError::Character('\n')),
            ("room**", PatternError::Stars),
            ("room:a**b", PatternError::Stars),
            ("room:**:a", PatternError::Stars),
            ("room:***", PatternError::Stars),
            ("room:{name}", PatternError::Brace),
            ("room:{{user}}", PatternError::NoUser),
            ("inbox:{user}", PatternError::NoUser),
        ] {
            assert_eq!(Pattern::parse(text, None), Err(error), "{text}");
        }
        let user = "ann".parse().unwrap();
        assert_eq!(Pattern::parse("room:{{user}}", Some(&user)), Err(PatternError::Brace));
    }

    /// The meaning of the grammar, written as plainly and slowly as can be.
    fn meaning(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            (b"**", _) => true,
            ([b'*', rest @ ..], _) => {
                meaning(rest, name)
                    || matches!(name, [first, others @ ..] if *first != b':' && meaning(pattern, others))
            }
            ([p, rest @ ..], [n, others @ ..]) => p == n && meaning(rest, others),
            ([], []) => true,
            _ => false,
        }
    }

    #[test]
    fn every_short_pattern_covers_what_the_grammar_says() {
        // All texts over a small alphabet: every way in which stars, colons and repetitions can meet is among them.
        fn texts(alphabet: &[u8], up_to: usize) -> Vec<String> {
            let mut all = vec![String::new()];
            let mut begin = 0;
            for _ in 0..up_to {
                let end = all.len();
                for i in begin..end {
                    for c in alphabet {
                        all.push(format!("{}{}", all[i], char::from(*c)));
                    }
                }
                begin = end;
            }
            all
        }
        let (names, mut compared) = (texts(b"ab:", 6), 0);
        for text in texts(b"ab:*", 5) {
            let Ok(pattern) = Pattern::parse(&text, None) else { continue };
            for name in &names {
                assert_eq!(
                    pattern.matches(name),
                    meaning(text.as_bytes(), name.as_bytes()),
                    "{text} and {name}"
                );
                compared += 1;
            }
        }
        assert!(compared > 500_000, "{compared}");
    }

    #[test]
    fn a_pattern_made_to_take_long_does_not() {
        let hostile = pattern(&format!("room:{}b", "a*".repeat(124)));
        let name = format!("room:{}", "a".repeat(250));
        let begin = std::time::Instant::now();
        for _ in 0..1_000 {
            assert!(!hostile.matches(&name));
        }
        // Backtracking would take longer than the universe; this takes some milliseconds.
        assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    }
}
