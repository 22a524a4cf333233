//! `xpush subscribe`: prints publications until it is stopped, and comes back by itself when the server was away.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use rand::Rng as _;
use tokio::time::sleep;
use xpush::client::{Client, ClientError, Sequence, Step};
use xpush_protocol::{
    ChannelName, ClientFrame, Cursor, ErrorCode, ServerFrame, Subscribe, UnsubscribeReason,
};

use super::{ServerArgs, print};

/// The pause before a reconnect is drawn from 0 to this, doubled at each failure (full jitter).
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush subscribe room:lobby                     a JSON object a line, until Ctrl-C
  xpush subscribe room:lobby --last 10           begin with the last ten
  xpush subscribe room:lobby --count 1 --via longpoll")]
pub(crate) struct SubscribeArgs {
    channel: ChannelName,
    /// Begin with the last this many
    #[arg(long)]
    last: Option<u32>,
    /// Begin behind this place
    #[arg(long, conflicts_with = "last")]
    cursor: Option<Cursor>,
    /// End after this many publications
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: SubscribeArgs) -> anyhow::Result<ExitCode> {
    let mut reader = Reading { cursor: args.cursor, left: args.count, ephemeral: false, printed: Ok(()) };
    let mut client = args.server.connect().await?;
    loop {
        tokio::select! {
            ended = reader.read(&mut client, &args) => match ended {
                Ok(()) => break,
                // Whoever is refused is refused again; what is lost may come back.
                Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
                Err(error) => eprintln!("xpush: {error}; connecting again"),
            },
            _ = tokio::signal::ctrl_c() => break,
        }
        client = reconnect(&args.server).await?;
    }
    client.close().await;
    reader.printed?;
    Ok(ExitCode::SUCCESS)
}

async fn reconnect(server: &ServerArgs) -> anyhow::Result<Client> {
    let mut limit = BACK_OFF_FIRST;
    loop {
        sleep(rand::rng().random_range(Duration::ZERO..limit)).await;
        limit = (limit * 2).min(BACK_OFF_LIMIT);
        tokio::select! {
            client = server.connect() => if let Ok(client) = client { return Ok(client) },
            _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped"),
        }
    }
}

/// Where the reader stands, over all connections.
struct Reading {
    cursor: Option<Cursor>,
    left: Option<u64>,
    ephemeral: bool,
    /// An error ends the reading: there is nobody to read for.
    printed: anyhow::Result<()>,
}

impl Reading {
    /// Reads one connection until enough was read, or it ends.
    async fn read(&mut self, client: &mut Client, args: &SubscribeArgs) -> Result<(), ClientError> {
        let (channel, cursor) = (args.channel.clone(), self.cursor);
        let last = if cursor.is_none() { args.last } else { None };
        let answer =
            client.call(|id| ClientFrame::Subscribe(Subscribe { id, channel, cursor, last })).await?;
        let ServerFrame::Subscribed(subscribed) = answer else { return Ok(()) };
        if let Some(gap) = subscribed.gap {
            eprintln!("xpush: {} to {} are no longer kept", gap.from, gap.to);
        }
        self.ephemeral = subscribed.ephemeral;
        let mut sequence = Sequence::new(subscribed.cursor, subscribed.ephemeral);
        self.cursor = Some(sequence.cursor());
        while self.left != Some(0) {
            let event = client.event().await?;
            let steps = match event {
                ServerFrame::Publication(publication) => sequence.publication(publication),
                ServerFrame::Gap(gap) => sequence.gap(gap),
                ServerFrame::Lag(lag) if lag.behind > 0 => {
                    eprintln!("xpush: {} publications behind", lag.behind);
                    continue;
                }
                ServerFrame::Unsubscribed(ended) => {
                    let message = format!("the subscription ended: {:?}", ended.reason);
                    return match ended.reason {
                        UnsubscribeReason::LogUnavailable => Err(ClientError::Unexpected(message)),
                        _ => Err(ClientError::Refused { code: ErrorCode::PermissionDenied, message }),
                    };
                }
                _ => continue,
            };
            // Too many held: connect anew, behind what was printed.
            let steps =
                steps.map_err(|_| ClientError::Unexpected("a hole in the channel was not filled".into()))?;
            for step in steps {
                self.print(&step);
            }
            self.cursor = Some(sequence.cursor());
        }
        Ok(())
    }

    fn print(&mut self, step: &Step) {
        match step {
            Step::Publication(publication) if self.left != Some(0) => {
                self.printed = print(serde_json::to_string(publication).unwrap_or_default());
                self.left = if self.printed.is_ok() { self.left.map(|left| left - 1) } else { Some(0) };
            }
            Step::Publication(_) => {}
            Step::Gap(gap) => eprintln!("xpush: {} to {} are lost", gap.from, gap.to),
        }
    }
}
