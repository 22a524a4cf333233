//! `xpush channel`: channels and their members, for operators.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};
use xpush_protocol::{ChannelName, UserId};

use super::{
    api::{ApiArgs, segment},
    print,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush channel create chat:team --title Team --owner ann --member bob --member cid
  xpush channel show chat:team
  xpush channel members chat:team
  xpush channel add chat:team dan --role admin
  xpush channel ban chat:team eve
  xpush channel list ann                 the channels that a user is in
  xpush channel delete chat:team --app shop")]
pub(crate) struct ChannelArgs {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a channel
    Create {
        channel: ChannelName,
        #[arg(long)]
        title: Option<String>,
        /// Everybody of the app may join
        #[arg(long)]
        public: bool,
        /// Who owns it; nobody, if not said
        #[arg(long, value_name = "USER")]
        owner: Option<UserId>,
        /// Who is in it from the beginning
        #[arg(long, value_name = "USER")]
        member: Vec<UserId>,
    },
    /// Print a channel, as JSON
    Show { channel: ChannelName },
    /// Print the channels that a user is in, a line each
    List {
        user: UserId,
        /// As JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Print who is in a channel, or invited, a line each
    Members {
        channel: ChannelName,
        /// As JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Print who is banned, a line each
    Bans { channel: ChannelName },
    /// Put somebody into a channel
    Add {
        channel: ChannelName,
        user: UserId,
        #[arg(long)]
        role: Option<RoleName>,
    },
    /// Give a member another role
    Role { channel: ChannelName, user: UserId, role: RoleName },
    /// Throw somebody out
    Remove { channel: ChannelName, user: UserId },
    /// Throw somebody out for good
    Ban { channel: ChannelName, user: UserId },
    /// Take a ban back
    Unban { channel: ChannelName, user: UserId },
    /// Delete a channel with its members; its name is not given again
    Delete { channel: ChannelName },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Guest,
    Member,
    Admin,
    Owner,
}

pub(crate) async fn run(args: ChannelArgs) -> anyhow::Result<ExitCode> {
    let ChannelArgs { what, api } = args;
    match what {
        What::Create { channel, title, public, owner, member } => {
            let mut body = Map::new();
            body.insert("channel".into(), json!(channel));
            body.insert("public".into(), public.into());
            title.map(|title| body.insert("title".into(), title.into()));
            owner.map(|owner| body.insert("as".into(), json!(owner)));
            let made = api.send(Method::POST, "/v1/channels", Some(body.into())).await?;
            // In the operator's own name: they need not accept, and need no account yet.
            for user in member {
                api.send(Method::PUT, &of(&channel, "members", &user), Some(json!({}))).await?;
            }
            print(made)?;
        }
        What::Show { channel } => print(api.get::<Value>(&api.server, &at(&channel, "")).await?)?,
        What::List { user, json } => {
            let channels = api.items(&format!("/v1/users/{}/channels", segment(user.local()))).await?;
            print_all(channels, json, &["channel", "kind", "role", "state", "unread", "title", "user"])?;
        }
        What::Members { channel, json } => {
            let members = api.items(&at(&channel, "/members")).await?;
            print_all(members, json, &["user", "role", "state"])?;
        }
        What::Bans { channel } => print_all(api.items(&at(&channel, "/bans")).await?, false, &["user"])?,
        What::Add { channel, user, role } => {
            let mut body = Map::new();
            role.map(|role| body.insert("role".into(), role.as_str().into()));
            let path = of(&channel, "members", &user);
            print(api.send(Method::PUT, &path, Some(body.into())).await?)?;
        }
        What::Role { channel, user, role } => {
            let body = json!({ "role": role.as_str() });
            print(api.send(Method::PATCH, &of(&channel, "members", &user), Some(body)).await?)?;
        }
        What::Remove { channel, user } => {
            api.send(Method::DELETE, &of(&channel, "members", &user), None).await?;
        }
        What::Ban { channel, user } => {
            api.send(Method::PUT, &of(&channel, "bans", &user), None).await?;
        }
        What::Unban { channel, user } => {
            api.send(Method::DELETE, &of(&channel, "bans", &user), None).await?;
        }
        What::Delete { channel } => {
            api.send(Method::DELETE, &at(&channel, ""), None).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn at(channel: &ChannelName, rest: &str) -> String {
    format!("/v1/channels/{}{rest}", segment(channel.local()))
}

fn of(channel: &ChannelName, list: &str, user: &UserId) -> String {
    at(channel, &format!("/{list}/{}", segment(user.local())))
}

/// A line each: the fields that there are, or all as JSON.
fn print_all(items: Vec<Value>, json: bool, fields: &[&str]) -> anyhow::Result<()> {
    for item in items {
        if json {
            print(&item)?;
            continue;
        }
        let text = |field: &&str| match &item[*field] {
            Value::Null => None,
            // What a user wrote may not move the cursor of who reads it.
            Value::String(text) => Some(text.chars().filter(|c| !c.is_control()).collect()),
            other => Some(other.to_string()),
        };
        print(fields.iter().filter_map(text).collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}

impl RoleName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}
