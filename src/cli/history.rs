//! `xpush history`

use std::process::ExitCode;

use clap::Args;
use xpush_protocol::{ChannelName, ClientFrame, Cursor, History, ServerFrame};

use super::{ServerArgs, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush history room:lobby                      the oldest 50, a JSON object a line
  xpush history room:lobby --backward -n 10     the newest 10
  xpush history room:lobby --all                everything that is kept
  xpush history room:lobby --cursor 1530822917:42")]
pub(crate) struct HistoryArgs {
    channel: ChannelName,
    /// Newest first
    #[arg(long)]
    backward: bool,
    /// Publications in a page, 1 to 256
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
    /// Begin behind this place (with --backward: before it)
    #[arg(long)]
    cursor: Option<Cursor>,
    /// All pages
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.server.connect().await?;
    let mut cursor = args.cursor;
    loop {
        let (channel, backward, limit) = (args.channel.clone(), args.backward, Some(args.limit));
        let answer =
            client.call(|id| ClientFrame::History(History { id, channel, cursor, backward, limit })).await?;
        let ServerFrame::History(page) = answer else { break };
        if let Some(gap) = page.gap {
            eprintln!("xpush: {} to {} are no longer kept", gap.from, gap.to);
        }
        for publication in &page.publications {
            print(serde_json::to_string(publication)?)?;
        }
        cursor = page.next;
        if !args.all || cursor.is_none() {
            break;
        }
    }
    if let (Some(next), false) = (cursor, args.all) {
        eprintln!("xpush: there is more: --cursor {next}");
    }
    client.close().await;
    Ok(ExitCode::SUCCESS)
}
