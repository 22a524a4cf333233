//! What an operator changes while a cluster runs: a small TOML document that all nodes watch. What it does not say
//! is as the node's own configuration has it.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::{EnvFilter, Registry, reload};
use xpush::{config::Config, node::Node};

use super::filter;

/// How the level of the log is changed.
pub(super) type Level = reload::Handle<EnvFilter, Registry>;

/// The document.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Watched {
    log: Log,
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    publishes_per_second: Option<u32>,
}

/// Follows the document until `cancel`.
pub(super) async fn follow(
    mut document: watch::Receiver<Option<String>>,
    config: Config,
    node: Arc<Node>,
    level: Level,
    cancel: CancellationToken,
) {
    loop {
        let text = document.borrow_and_update().clone();
        if let Some(text) = text {
            match toml::from_str::<Watched>(&text) {
                Ok(watched) => apply(&watched, &config, &node, &level),
                Err(error) => {
                    warn!(%error, "the cluster's configuration is not understood, and changes nothing");
                }
            }
        }
        tokio::select! {
            changed = document.changed() => if changed.is_err() { return },
            () = cancel.cancelled() => return,
        }
    }
}

fn apply(watched: &Watched, config: &Config, node: &Node, level: &Level) {
    let wanted = watched.log.level.as_ref().unwrap_or(&config.log.level);
    match filter(wanted) {
        // It fails where the log is gone, and then nobody reads it.
        Ok(filter) => drop(level.reload(filter)),
        Err(error) => warn!(%error, "the cluster's configuration has a `log.level` that is none"),
    }
    let rate = watched.limits.publishes_per_second.unwrap_or(config.limits.publishes_per_second);
    node.limit_publishes(rate);
    info!(level = %wanted, publishes_per_second = rate, "the cluster's configuration is in effect");
}
