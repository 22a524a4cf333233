//! `xpush node`: which nodes live, and how one is taken out.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Args, Subcommand};
use tokio::time::sleep;
use xpush_protocol::{NodeEntry, NodeList};

use super::{api::ApiArgs, print};

/// Between two looks whether a node has gone.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush node list --server http://n1.example:8080
  xpush node drain n2                  its clients go elsewhere, then it exits
  xpush node drain n2 --no-wait")]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the nodes that live, a line each
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Have a node leave: it takes no new clients, sends its own elsewhere, and exits
    Drain {
        /// The node's name
        id: String,
        /// Don't wait until it has gone
        #[arg(long)]
        no_wait: bool,
        /// Seconds to wait until it has gone
        #[arg(long, default_value_t = 120)]
        timeout: u64,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { json, api } => list(&api, json).await?,
        What::Drain { id, no_wait, timeout, api } => drain(&api, &id, no_wait, timeout).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn nodes(api: &ApiArgs, base: &str) -> anyhow::Result<Vec<NodeEntry>> {
    Ok(api.get::<NodeList>(base, "/v1/nodes").await?.nodes)
}

async fn list(api: &ApiArgs, json: bool) -> anyhow::Result<()> {
    for node in nodes(api, &api.server).await? {
        if json {
            print(serde_json::to_string(&node)?)?;
            continue;
        }
        let NodeEntry { id, version, roles, weight, sessions, channels, users, draining, url, wires: _ } =
            node;
        let roles = roles.join("+");
        let state = if draining { "draining" } else { "live" };
        print(format!(
            "{id:<16} {state:<9} {roles:<16} weight {weight:<6} {sessions:>7} sessions {users:>7} users \
             {channels:>7} channels  {version}  {url}"
        ))?;
    }
    Ok(())
}

async fn drain(api: &ApiArgs, id: &str, no_wait: bool, timeout: u64) -> anyhow::Result<()> {
    let known = nodes(api, &api.server).await?;
    let Some(node) = known.iter().find(|node| node.id == id) else {
        let names: Vec<_> = known.iter().map(|node| node.id.as_str()).collect();
        bail!("there is no node `{id}`; there are: {}", names.join(", "));
    };
    // Where it can be watched from once it has gone.
    let others: Vec<_> =
        known.iter().filter(|other| other.id != id).map(|other| other.url.as_str()).collect();
    api.post(&node.url, "/v1/drain").await?;
    if no_wait {
        return print(format!("{id} was asked to leave"));
    }
    let until = Instant::now() + Duration::from_secs(timeout);
    loop {
        sleep(LOOK).await;
        let gone = match others.first() {
            Some(base) => !nodes(api, base).await?.iter().any(|other| other.id == id),
            // The last one: it is gone when it answers no more.
            None => nodes(api, &node.url).await.is_err(),
        };
        if gone {
            return print(format!("{id} has left"));
        }
        if Instant::now() > until {
            bail!("{id} was asked to leave and is still there after {timeout} s");
        }
    }
}
