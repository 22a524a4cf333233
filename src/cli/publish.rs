//! `xpush publish`

use std::{io::BufRead as _, process::ExitCode};

use clap::Args;
use xpush::client::{Acknowledged, Session};
use xpush_protocol::{Binary, ChannelName, EventName, Json, MessageId, Payload};

use super::{ServerArgs, Whereabouts, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush publish room:lobby '{\"text\":\"hello\"}'
  xpush publish room:lobby --text hello --event greeting
  xpush publish room:lobby --token \"$TOKEN\" --message-id order-17 '\"paid\"'   (twice: it stands once)
  seq 1000 | xpush publish room:lobby -                        (a message a line)
  xpush publish room:files --file photo.jpg --via websocket")]
pub(crate) struct PublishArgs {
    channel: ChannelName,
    /// JSON, or `-` for one JSON value a line from standard input
    #[arg(required_unless_present_any = ["text", "file"])]
    data: Option<String>,
    /// A text, sent as a JSON string
    #[arg(long, conflicts_with_all = ["data", "file"])]
    text: Option<String>,
    /// A file, sent as bytes
    #[arg(long, conflicts_with = "data")]
    file: Option<std::path::PathBuf>,
    #[arg(long, default_value = "message")]
    event: EventName,
    /// A retry by the same user (--token) with the same id stands once
    #[arg(long)]
    message_id: Option<MessageId>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: PublishArgs) -> anyhow::Result<ExitCode> {
    let from_input = args.data.as_deref() == Some("-");
    if from_input && args.message_id.is_some() {
        anyhow::bail!("--message-id names one message, and `-` reads many: only the first line would stand");
    }
    let mut publishing = Publishing { session: args.server.session(), whereabouts: Whereabouts::default() };
    if from_input {
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            if !line.trim().is_empty() {
                publishing.publish(&args, Payload::Json(json(&line)?)).await?;
            }
        }
    } else if let Some(text) = &args.text {
        publishing.publish(&args, Payload::Json(Json::from_value(text)?)).await?;
    } else if let Some(file) = &args.file {
        let bytes =
            std::fs::read(file).map_err(|error| anyhow::anyhow!("can't read {}: {error}", file.display()))?;
        publishing.publish(&args, Payload::Binary(Binary(bytes.into()))).await?;
    } else if let Some(data) = &args.data {
        publishing.publish(&args, Payload::Json(json(data)?)).await?;
    }
    publishing.session.close().await;
    Ok(ExitCode::SUCCESS)
}

fn json(text: &str) -> anyhow::Result<Json> {
    Json::parse(text)
        .map_err(|error| anyhow::anyhow!("the data is not JSON ({error}); for a plain text use --text"))
}

/// A session that publishes, and says where it is.
struct Publishing {
    session: Session,
    whereabouts: Whereabouts,
}

impl Publishing {
    async fn publish(&mut self, args: &PublishArgs, payload: Payload) -> anyhow::Result<()> {
        let message_id = args.message_id.clone().unwrap_or_else(MessageId::random);
        let publisher = self.session.publisher();
        let publish = publisher.publish(args.channel.clone(), message_id, args.event.clone(), payload);
        tokio::pin!(publish);
        let Acknowledged { cursor, duplicate } = loop {
            tokio::select! {
                acknowledged = &mut publish => break acknowledged?,
                event = self.session.event() => self.whereabouts.note(&event?)?,
            }
        };
        print(format_args!("{cursor}{}", if duplicate { " (was there already)" } else { "" }))
    }
}
