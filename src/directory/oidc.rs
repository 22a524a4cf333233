//! Tokens of other issuers: their keys, fetched and kept.
