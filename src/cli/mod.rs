//! The command line: what can be asked, and the rooms that do it.

mod api;
pub(crate) mod app;
pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod history;
pub(crate) mod node;
pub(crate) mod publish;
mod session;
pub(crate) mod subscribe;
pub(crate) mod token;
pub(crate) mod user;

use std::{
    fmt::Display,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

pub(crate) use session::{ServerArgs, Whereabouts};

/// Whoever reads our output went away, as `head` does: nothing more is wanted.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct ReadEnough;

/// Prints a line of what was asked for.
pub(crate) fn print(line: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReadEnough.into()),
        written => Ok(written?),
    }
}

/// Realtime messages over WebTransport, QUIC, WebSocket and long-polling, in one binary.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  xpush                                   start a server on 127.0.0.1:8080 and :8443
  xpush publish room:lobby '\"hello\"'      publish one JSON message
  xpush subscribe room:lobby              print what is published, until Ctrl-C
  xpush history room:lobby --backward     the newest messages first
  xpush token --user ann --channel 'room:*=subscribe,publish'
  xpush channel members chat:team         who is in a channel
  xpush node list                         the nodes of a cluster
  xpush bench fanout --subscribers 1000   measure this machine
  xpush completions bash > /etc/bash_completion.d/xpush";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server (also without any command)
    Serve(Box<ServeArgs>),
    /// Publish messages to a channel
    Publish(publish::PublishArgs),
    /// Print a channel's publications as they come
    Subscribe(subscribe::SubscribeArgs),
    /// Print a page of a channel's log
    History(history::HistoryArgs),
    /// Sign a token with the server's own key
    Token(token::TokenArgs),
    /// Make, show and change channels and their members
    Channel(channel::ChannelArgs),
    /// Make and change apps, their policy and their API keys
    App(app::AppArgs),
    /// Look at users, or do something with one
    User(user::UserArgs),
    /// Look at a user's devices, or take one away
    Device(device::DeviceArgs),
    /// Look at a cluster's nodes, or take one out
    Node(node::NodeArgs),
    /// Check or show the configuration
    Config(config::ConfigArgs),
    /// Measure a server
    Bench(crate::bench::BenchArgs),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Where the configuration comes from: file, environment (XPUSH_…), flags; the later wins.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFlags {
    /// TOML file with the configuration
    #[arg(long, value_name = "FILE", env = "XPUSH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Set one key of the configuration, as in `limits.frame=131072`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where the store and the development keys are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  xpush serve
  xpush serve --http 127.0.0.1:9000 --tls 127.0.0.1:9443 --data /var/lib/xpush
  xpush serve --config xpush.toml --set log.level=debug
  XPUSH_LISTEN__HTTP=127.0.0.1:9000 xpush serve")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFlags,
    /// Listen for HTTP, WebSocket and long-polling here
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Listen for TLS (TCP) and for QUIC and WebTransport (UDP) here
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) tls: Option<SocketAddr>,
    /// What this node does: serve the API and tell clients where to go, or hold connections; both if not said
    #[arg(long, value_name = "ROLE", value_parser = ["session", "channel"])]
    pub(crate) role: Vec<String>,
    /// The node's name, unique in a cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Bind a public address with development keys all the same, whose tokens whoever can read the store can sign
    #[arg(long)]
    pub(crate) insecure_public_development: bool,
}
