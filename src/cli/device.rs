//! `xpush device`: what a user comes in with, and how one of it is shut out.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use xpush_protocol::{DeviceId, UserId};

use super::{api::ApiArgs, app::text, print, user::path};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush device list ann
  xpush device revoke ann phone            its sessions end on every node")]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a user's devices, a line each
    List {
        user: UserId,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take a device away: its logins and its sessions end
    Revoke {
        user: UserId,
        device: DeviceId,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(crate) async fn run(args: DeviceArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { user, json, api } => {
            for device in api.items(&format!("{}/devices", path(&user))).await? {
                if json { print(device)? } else { print(line(&device))? }
            }
        }
        What::Revoke { user, device, api } => {
            api.send(Method::DELETE, &format!("{}/devices/{device}", path(&user)), None).await?;
            print(format!("{device} is taken away from {user}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(device: &Value) -> String {
    let (id, platform) = (text(&device["device"]), text(&device["platform"]));
    let (version, name) = (text(&device["app_version"]), text(&device["name"]));
    format!("{id:<24} {platform:<10} {version:<10} {name}").trim_end().to_owned()
}
