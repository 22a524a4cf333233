//! What the operator decides. Everything has a default with which the server runs at once; what is said wrongly is
//! refused at the start, in one line that says what to do, not found out in the night.
//!
//! The core knows nothing of this: it is handed `auth::Auth`, `Namespaces` and the like, which are made here.

mod layer;
mod parts;
mod rules;
mod schema;
mod specimen;
mod unit;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use thiserror::Error;
use toml::Table;

pub use layer::Place;
pub use parts::Access;
pub use schema::{
    Auth, BackendKey, Config, Development, Limits, Listen, Log, LogFormat, MongoDb, NamespaceSection, Node,
    Origins, PublicUrls, Redis, RetentionKind, Role, Secret, Store, Tls, TokenKey, Webhooks, ZooKeeper,
};
pub use unit::{Size, Span};

/// Why there is no configuration. Each is one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("the configuration file {path} can't be read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("unknown key `{key}` in {place}{}", suggested(.suggestion.as_deref()))]
    UnknownKey { key: String, place: Place, suggestion: Option<String> },
    /// Of the wrong type, or not TOML at all.
    #[error("{place}{}: {problem}", named(.key.as_deref()))]
    Value { place: Place, key: Option<String>, problem: String },
    /// Of the right type and still not possible.
    #[error("`{key}` {problem}")]
    Rule { key: String, problem: String },
    #[error(
        "`{key}` is {address}, which other machines can reach, but {reason}: configure `auth.keys`, listen on \
         127.0.0.1, or ask for it with --insecure-public-development (`development.allow_public = true`)"
    )]
    PublicDevelopment { key: &'static str, address: SocketAddr, reason: &'static str },
    #[error("{0}")]
    DevKeys(String),
}

impl Config {
    /// The configuration of a file, over it that of the environment, over it that of the flags (key and value, as
    /// in `("listen.http", "127.0.0.1:80")`), each checked, and then all together. Nothing is written.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let merged = |error: &dyn std::fmt::Display| ConfigError::Rule {
            key: "configuration".into(),
            problem: format!("can't be joined from its layers: {error}"),
        };
        let mut joined = Table::try_from(Self::default()).map_err(|error| merged(&error))?;
        if let Some(path) = file {
            layer::join(&mut joined, layer::file(path)?);
        }
        layer::join(&mut joined, layer::environment(environment)?);
        layer::join(&mut joined, layer::flags(flags)?);
        let config = Self::deserialize(joined).map_err(|error| merged(&error))?;
        rules::check(&config)?;
        Ok(config)
    }

    /// What is in effect, as a file would say it, without the secrets.
    #[must_use]
    pub fn show(&self) -> String {
        let mut shown = self.clone();
        for section in shown.namespaces.values_mut() {
            section.fill();
        }
        shown.auth.anonymous = Some(self.is_anonymous());
        // Every type of the schema is of texts, numbers, lists and tables.
        toml::to_string_pretty(&shown).unwrap_or_default()
    }
}

fn suggested(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

fn named(key: Option<&str>) -> String {
    key.map(|key| format!(", `{key}`")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
