//! `xpush app`: the apps of an installation, what holds in each, and the keys of their backends.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use xpush_protocol::AppId;

use super::{
    api::{ApiArgs, segment},
    print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush app create shop --name 'The shop' --policy '{\"registration\": \"open\"}'
  xpush app set shop '{\"login\": \"per_user\"}'
  xpush app key create shop --name backend     prints the key, this once
  xpush app list")]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the apps, a line each
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make an app
    Create {
        #[arg(value_name = "APP")]
        id: AppId,
        /// For people; the id, if not said
        #[arg(long)]
        name: Option<String>,
        /// What of the policy is not as usual, as a JSON object
        #[arg(long, value_name = "JSON")]
        policy: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print an app with its policy, as JSON
    Show {
        #[arg(value_name = "APP")]
        id: AppId,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change fields of an app's policy; `null` is back to what is usual
    Set {
        #[arg(value_name = "APP")]
        id: AppId,
        /// The fields, as a JSON object
        #[arg(value_name = "JSON")]
        policy: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Delete an app with its users, devices, channels and keys
    Delete {
        #[arg(value_name = "APP")]
        id: AppId,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// The keys of an app's backends
    Key {
        #[command(subcommand)]
        what: KeyWhat,
    },
}

#[derive(Debug, Subcommand)]
enum KeyWhat {
    /// Make a key and print it: it is shown this once
    Create {
        #[arg(value_name = "APP")]
        id: AppId,
        #[arg(long)]
        name: Option<String>,
        /// What it may do, as a JSON object of patterns and permissions; everything, if not said
        #[arg(long, value_name = "JSON")]
        grants: Option<String>,
        /// Seconds until it ends by itself
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print the keys' ids, a line each
    List {
        #[arg(value_name = "APP")]
        id: AppId,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// End a key; it is gone on all nodes within a second
    Delete {
        #[arg(value_name = "APP")]
        id: AppId,
        key: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

pub(crate) async fn run(args: AppArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { json, api } => {
            for app in api.items("/v1/apps").await? {
                if json { print(app)? } else { print(line(&app))? }
            }
        }
        What::Create { id, name, policy, api } => {
            let mut body = json!({ "app": id });
            insert(&mut body, "name", name.map(Value::from));
            insert(&mut body, "policy", policy.map(|policy| object(&policy)).transpose()?);
            api.send(Method::POST, "/v1/apps", Some(body)).await?;
            print(format!("{id} is made"))?;
        }
        What::Show { id, api } => print(api.send(Method::GET, &path(&id), None).await?)?,
        What::Set { id, policy, api } => {
            let body = json!({ "policy": object(&policy)? });
            print(api.send(Method::PATCH, &path(&id), Some(body)).await?)?;
        }
        What::Delete { id, api } => {
            api.send(Method::DELETE, &path(&id), None).await?;
            print(format!("{id} is deleted"))?;
        }
        What::Key { what } => key(what).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn key(what: KeyWhat) -> anyhow::Result<()> {
    match what {
        KeyWhat::Create { id, name, grants, expires_in, api } => {
            let mut body = json!({});
            insert(&mut body, "name", name.map(Value::from));
            insert(&mut body, "grants", grants.map(|grants| object(&grants)).transpose()?);
            insert(&mut body, "expires_in", expires_in.map(Value::from));
            let made = api.send(Method::POST, &format!("{}/keys", path(&id)), Some(body)).await?;
            print(text(&made["key"]))
        }
        KeyWhat::List { id, api } => {
            for key in api.items(&format!("{}/keys", path(&id))).await? {
                let rights = if key.get("grants").is_some() { "some channels" } else { "everything" };
                print(format!("{:<24} {:<14} {}", text(&key["id"]), rights, text(&key["name"])))?;
            }
            Ok(())
        }
        KeyWhat::Delete { id, key, api } => {
            let at = format!("{}/keys/{}", path(&id), segment(&key));
            api.send(Method::DELETE, &at, None).await?;
            print(format!("{key} is ended"))
        }
    }
}

fn path(app: &AppId) -> String {
    format!("/v1/apps/{app}")
}

fn line(app: &Value) -> String {
    let policy = &app["policy"];
    let (login, registration) = (text(&policy["login"]), text(&policy["registration"]));
    format!(
        "{:<16} login {login:<11} registration {registration:<7} {}",
        text(&app["app"]),
        text(&app["name"])
    )
}

/// A text of an answer; nothing where it says nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn insert(body: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        body[field] = value;
    }
}

pub(super) fn object(json: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(json).with_context(|| format!("{json} is no JSON"))?;
    anyhow::ensure!(value.is_object(), "{json} is no JSON object");
    Ok(value)
}
