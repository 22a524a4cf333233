//! `xpush subscribe`: prints publications until it is stopped, and follows the cluster when its node dies or leaves.

use std::process::ExitCode;

use clap::Args;
use xpush::client::{Event, Session, Start};
use xpush_protocol::{ChannelName, Cursor};

use super::{ServerArgs, Whereabouts, print};

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
    let start = match (args.cursor, args.last) {
        (Some(cursor), _) => Start::Behind(cursor),
        (None, Some(last)) => Start::Last(last),
        (None, None) => Start::Now,
    };
    let mut session = args.server.session();
    session.publisher().subscribe(args.channel, start).await?;
    let read = tokio::select! {
        read = read(&mut session, args.count) => read,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    session.close().await;
    read?;
    Ok(ExitCode::SUCCESS)
}

/// Prints until enough was read.
async fn read(session: &mut Session, mut left: Option<u64>) -> anyhow::Result<()> {
    let mut whereabouts = Whereabouts::default();
    while left != Some(0) {
        let event = session.event().await?;
        whereabouts.note(&event)?;
        match event {
            Event::Publication(publication) => {
                print(serde_json::to_string(&publication)?)?;
                left = left.map(|left| left - 1);
            }
            Event::Gap(gap) if gap.from <= gap.to => eprintln!("xpush: {} to {} are lost", gap.from, gap.to),
            Event::Gap(_) => eprintln!("xpush: what was kept is lost; the channel begins anew"),
            Event::CursorLost { cursor, .. } => {
                eprintln!("xpush: the server lost what is behind {cursor}; going on from now");
            }
            Event::Lag(lag) if lag.behind > 0 => eprintln!("xpush: {} publications behind", lag.behind),
            Event::Refused { code, message, .. } => anyhow::bail!("{code}: {message}"),
            _ => {}
        }
    }
    Ok(())
}
