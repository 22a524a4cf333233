//! `xpush config`, and how every command that needs the configuration gets it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use xpush::config::Config;

use super::{ConfigFlags, ServeArgs, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush config check --config xpush.toml     is it valid? (exit status 0 or 1)
  xpush config show                          what is in effect, without secrets")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether a server would start with it
    Check(ConfigFlags),
    /// Print what is in effect, as TOML, without secrets
    Show(ConfigFlags),
}

pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Check(flags) => {
            load(flags, vec![])?;
            print("the configuration is valid")?;
        }
        What::Show(flags) => print(load(flags, vec![])?.show().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// File, environment, flags.
pub(crate) fn load(flags: &ConfigFlags, mut set: Vec<(String, String)>) -> anyhow::Result<Config> {
    for pair in &flags.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| anyhow::anyhow!("--set {pair}: expected KEY=VALUE, as in limits.frame=131072"))?;
        set.push((key.trim().into(), value.trim().into()));
    }
    if let Some(data) = &flags.data {
        set.push(("store.path".into(), data.display().to_string()));
    }
    // XPUSH_CONFIG and what clients read name no key of the configuration.
    let own = ["XPUSH_CONFIG", "XPUSH_SERVER", "XPUSH_TOKEN", "XPUSH_API_KEY"];
    let environment = std::env::vars().filter(|(name, _)| !own.contains(&name.as_str()));
    Ok(Config::load(flags.config.as_deref(), environment, set)?)
}

/// The configuration of `xpush serve`, whose flags have names of their own.
pub(crate) fn of_server(args: &ServeArgs) -> anyhow::Result<Config> {
    let mut set = Vec::new();
    if let Some(address) = args.http {
        set.push(("listen.http".into(), address.to_string()));
    }
    if let Some(address) = args.tls {
        set.push(("listen.tls".into(), address.to_string()));
    }
    if !args.role.is_empty() {
        let quoted: Vec<_> = args.role.iter().map(|role| format!("\"{role}\"")).collect();
        set.push(("node.roles".into(), format!("[{}]", quoted.join(", "))));
    }
    if let Some(name) = &args.name {
        set.push(("node.name".into(), name.clone()));
    }
    if args.insecure_public_development {
        set.push(("development.allow_public".into(), "true".into()));
    }
    load(&args.config, set)
}
