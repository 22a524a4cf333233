//! Lists come page by page: a cursor says behind which key the next one begins.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Directory, DirectoryError, Record, Result, Tagged,
    store::{Key, MAX_KEY, Prefix},
};

/// Entries of a page, if nothing is said.
const USUAL_PAGE: usize = 50;
/// At most.
const LARGEST_PAGE: usize = 200;

/// Which page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    pub limit: Option<usize>,
    /// What the page before gave as `next`.
    pub cursor: Option<String>,
}

/// A page: entries with what of their keys is behind the prefix, and where the next page begins, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// As it was read.
pub(crate) struct RawPage<T> {
    items: Vec<(Key, Tagged<T>)>,
    next: Option<String>,
}

impl PageQuery {
    pub(crate) fn limit(&self) -> Result<usize> {
        match self.limit.unwrap_or(USUAL_PAGE) {
            limit @ 1..=LARGEST_PAGE => Ok(limit),
            _ => Err(DirectoryError::Invalid(format!("`limit` is 1 to {LARGEST_PAGE}"))),
        }
    }

    /// The key that the cursor stands for. It is of this prefix, whoever made the cursor.
    pub(crate) fn after(&self, prefix: &Prefix) -> Result<Option<Key>> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let invalid = || DirectoryError::Invalid("`cursor` is none that this list gave".into());
        if cursor.len() > MAX_KEY * 2 {
            return Err(invalid());
        }
        let tail = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(Some(Key::from_stored(&format!("{}{}", prefix.as_str(), tail.ok_or_else(invalid)?))))
    }
}

/// Where a page that ends with this key is gone on from.
pub(crate) fn cursor(prefix: &Prefix, last: &Key) -> String {
    let tail = last.as_str().strip_prefix(prefix.as_str()).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(tail)
}

impl<T> RawPage<T> {
    /// A page of what is made of each entry, without those that are not for the reader: it may be shorter, then.
    pub(crate) fn filter_map<U>(self, mut of: impl FnMut(&Key, T) -> Option<U>) -> Page<U> {
        let items = self.items.into_iter().filter_map(|(key, tagged)| of(&key, tagged.value)).collect();
        Page { items, next: self.next }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.items.iter().map(|(key, _)| key)
    }

    pub(crate) fn next(self) -> Option<String> {
        self.next
    }
}

impl Directory {
    /// The page of a table that is asked for.
    pub(crate) async fn page<T: Record>(&self, prefix: Prefix, query: PageQuery) -> Result<RawPage<T>> {
        let limit = query.limit()?;
        let after = query.after(&prefix)?;
        // One more tells whether there is a next page.
        let mut items = self.list::<T>(prefix.clone(), after, limit + 1).await?;
        let next = (items.len() > limit).then(|| {
            items.truncate(limit);
            items.last().map(|(key, _)| cursor(&prefix, key))
        });
        Ok(RawPage { items, next: next.flatten() })
    }
}
