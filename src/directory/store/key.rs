//! Keys: texts of components, in an order that all stores share.

use std::{fmt, sync::Arc};

/// Bytes of a key.
pub const MAX_KEY: usize = 900;

/// Between two components. No component has it: names are parsed, and have no control characters.
const SEPARATOR: char = '\u{1f}';

/// A table's name and what leads to one entry of it: `member`, the app, the channel, the user.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// The beginning of keys: whole components.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Key {
    /// Of components without control characters. One that has some loses them: it came from nowhere that checks, and
    /// must not reach another table.
    #[must_use]
    pub fn new(components: &[&str]) -> Self {
        Self(joined(components).into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The component at this place: 0 is the table's name.
    #[must_use]
    pub fn component(&self, at: usize) -> &str {
        self.0.split(SEPARATOR).nth(at).unwrap_or("")
    }

    /// A text that a store gave back.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }
}

impl Prefix {
    /// All keys that begin with these components and have more.
    #[must_use]
    pub fn new(components: &[&str]) -> Self {
        let mut text = joined(components);
        text.push(SEPARATOR);
        Self(text.into())
    }

    /// As `new`, and the next component begins with this text.
    #[must_use]
    pub fn beginning(components: &[&str], text: &str) -> Self {
        let mut prefix = joined(components);
        prefix.push(SEPARATOR);
        prefix.extend(text.chars().filter(|c| !c.is_control()));
        Self(prefix.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }
}

fn joined(components: &[&str]) -> String {
    let mut text = String::with_capacity(components.iter().map(|part| part.len() + 1).sum());
    for (at, component) in components.iter().enumerate() {
        if at > 0 {
            text.push(SEPARATOR);
        }
        text.extend(component.chars().filter(|c| !c.is_control()));
    }
    text
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(SEPARATOR, "/"))
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0.replace(SEPARATOR, "/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_stays_within_itself() {
        let key = Key::new(&["user", "app", "a\u{1f}b"]);
        assert_eq!(key, Key::new(&["user", "app", "ab"]));
        assert_eq!((key.component(0), key.component(2), key.component(3)), ("user", "ab", ""));
        let prefix = Prefix::new(&["user", "app"]);
        assert!(prefix.holds(&key) && !prefix.holds(&Key::new(&["user", "apple", "x"])));
        assert!(Prefix::beginning(&["user", "app"], "a").holds(&key));
        assert!(!Prefix::beginning(&["user", "app"], "b").holds(&key));
    }
}
