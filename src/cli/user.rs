//! `xpush user`: who is in an app, and what an operator does with somebody.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use xpush_protocol::UserId;

use super::{
    api::{ApiArgs, segment},
    app::{insert, text},
    print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush user create ann --name 'Ann Lee' --password 'correct horse'
  xpush user list --app shop
  xpush user find ann                      users whose name begins so
  xpush user revoke ann                    all of her tokens are over, everywhere
  xpush user export ann > ann.json")]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the users, a line each
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print the users whose name begins so
    Find {
        text: String,
        /// Whose id begins so
        #[arg(long)]
        id: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make a user
    Create {
        user: UserId,
        /// Without one the user comes with tokens that the application makes
        #[arg(long, env = "XPUSH_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print a user, as JSON
    Show(One),
    /// Print everything that is kept of a user, as JSON
    Export(One),
    /// Set a user's password; all of its logins end
    Password {
        user: UserId,
        #[arg(env = "XPUSH_PASSWORD", hide_env_values = true)]
        password: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take back all tokens that a user has
    Revoke(One),
    /// Let nobody in as this user
    Deactivate(One),
    /// Let a user in again
    Activate(One),
    /// Delete a user with everything that is kept of it
    Delete(One),
}

#[derive(Debug, Args)]
struct One {
    user: UserId,
    #[command(flatten)]
    api: ApiArgs,
}

impl One {
    async fn call(&self, method: Method, behind: &str) -> anyhow::Result<Value> {
        self.api.send(method, &format!("{}{behind}", path(&self.user)), None).await
    }
}

pub(crate) async fn run(args: UserArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { json, api } => {
            for user in api.items("/v1/users").await? {
                if json { print(user)? } else { print(line(&user))? }
            }
        }
        What::Find { text, id, api } => {
            let field = if id { "user" } else { "name" };
            let list = format!("/v1/users?field={field}&q={}", segment(&text));
            for user in api.items(&list).await? {
                print(line(&user))?;
            }
        }
        What::Create { user, password, name, api } => {
            let mut body = json!({ "user": user });
            insert(&mut body, "password", password.map(Value::from));
            insert(&mut body, "name", name.map(Value::from));
            api.send(Method::POST, "/v1/users", Some(body)).await?;
            print(format!("{user} is made"))?;
        }
        What::Show(one) => print(one.call(Method::GET, "").await?)?,
        What::Export(one) => print(one.call(Method::GET, "/export").await?)?,
        What::Password { user, password, api } => {
            let body = json!({ "new": password });
            api.send(Method::PUT, &format!("{}/password", path(&user)), Some(body)).await?;
            print(format!("{user} has a new password"))?;
        }
        What::Revoke(one) => done(&one, Method::POST, "/revoke", "is logged out everywhere").await?,
        What::Deactivate(one) => done(&one, Method::POST, "/deactivate", "is deactivated").await?,
        What::Activate(one) => done(&one, Method::POST, "/activate", "is active").await?,
        What::Delete(one) => done(&one, Method::DELETE, "", "is deleted").await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn done(one: &One, method: Method, behind: &str, what: &str) -> anyhow::Result<()> {
    one.call(method, behind).await?;
    print(format!("{} {what}", one.user))
}

pub(super) fn path(user: &UserId) -> String {
    format!("/v1/users/{}", segment(user.local()))
}

fn line(user: &Value) -> String {
    let state = if user["deactivated"] == true { "deactivated" } else { "" };
    format!("{:<32} {:<32} {state}", text(&user["user"]), text(&user["name"])).trim_end().to_owned()
}
