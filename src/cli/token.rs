//! `xpush token`: signs a token that this installation's servers take.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Args;
use xpush::auth::Claims;
use xpush_protocol::{AppId, UserId};

use super::{ConfigFlags, config, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush token --user ann                                   everything, for an hour
  xpush token --user ann --channel 'room:*=subscribe,publish,history,presence'
  xpush token --user ann --channel 'user:{user}=subscribe' --expires-in 300")]
pub(crate) struct TokenArgs {
    /// Whose token it is
    #[arg(long)]
    user: UserId,
    /// The app that it is of; the configuration has a key for it
    #[arg(long, default_value_t)]
    app: AppId,
    /// PATTERN=PERMISSION,… of subscribe, publish, history, presence, send; several times; none: everything
    #[arg(long = "channel", value_name = "PATTERN=PERMISSIONS")]
    channels: Vec<String>,
    /// Seconds
    #[arg(long, default_value_t = 3600)]
    expires_in: u64,
    #[command(flatten)]
    config: ConfigFlags,
}

pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let mut channels = serde_json::Map::new();
    for grant in &args.channels {
        let (pattern, permissions) = grant.split_once('=').with_context(|| {
            format!("--channel {grant}: expected PATTERN=PERMISSIONS, as in room:*=subscribe,publish")
        })?;
        channels.insert(pattern.into(), permissions.split(',').map(str::trim).collect());
    }
    if channels.is_empty() {
        channels.insert("**".into(), ["subscribe", "publish", "history", "presence", "send"].into());
    }
    let until = SystemTime::now().checked_add(Duration::from_secs(args.expires_in));
    let until = until.with_context(|| format!("--expires-in {}: no clock goes so far", args.expires_in))?;
    let expires = until.duration_since(UNIX_EPOCH)?.as_secs();
    let claims = serde_json::json!({ "sub": args.user, "exp": expires, "channels": channels });
    let claims: Claims = serde_json::from_value(claims).context("the permissions are not known")?;
    let signer = config::load(&args.config, vec![])?.signer(&args.app)?;
    print(signer.sign(&claims)?)?;
    Ok(ExitCode::SUCCESS)
}
