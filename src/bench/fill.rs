//! Publishes what another workload reads.

use std::time::Duration;

use futures_util::{TryStreamExt as _, future::BoxFuture, stream};
use tokio::time::sleep;
use xpush::client::{Server, Via, Visit};
use xpush_protocol::{ChannelName, ClientFrame, Codec, Connect, Publish, ServerFrame};
use xpush_transports::{Connection, Reader, Writer};

use super::load::{control, publication};
use crate::cli::ServerArgs;

/// Publishes of one channel that wait for their acknowledgement: fewer than what one publisher may do at once.
const IN_FLIGHT: u64 = 64;
/// Before what was refused for now is tried again, where the server does not say.
const PAUSE_MILLIS: u32 = 100;
/// Channels that are filled at the same time.
const CHANNELS_AT_ONCE: usize = 64;

/// Publishes so many messages to each of the channels, and waits until all are acknowledged.
pub(super) async fn fill(
    server: &Server,
    args: &ServerArgs,
    channels: &[ChannelName],
    messages: u64,
    payload: usize,
) -> anyhow::Result<()> {
    let fill = |channel: &ChannelName| {
        let filler = Filler { channel: channel.clone(), token: args.token.clone(), messages, payload };
        async move { anyhow::Ok(server.dial_with(Via::Websocket, Codec::MessagePack, filler).await?.await?) }
    };
    stream::iter(channels.iter().map(anyhow::Ok)).try_for_each_concurrent(CHANNELS_AT_ONCE, fill).await
}

struct Filler {
    channel: ChannelName,
    token: Option<String>,
    messages: u64,
    payload: usize,
}

impl Visit for Filler {
    type Output = BoxFuture<'static, anyhow::Result<()>>;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(self.fill(connection))
    }
}

impl Filler {
    async fn fill(self, connection: impl Connection) -> anyhow::Result<()> {
        let Self { channel, token, messages, payload } = self;
        let codec = Codec::MessagePack;
        let (_, mut reader, mut writer) = connection.split();
        let connect = ClientFrame::Connect(Connect { id: 1, token, ..Connect::default() });
        writer.write(&mut vec![control(codec, &connect)]).await?;
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < messages {
            let mut batch = Vec::new();
            while sent < messages && sent - acknowledged < IN_FLIGHT {
                sent += 1;
                // An id, so that it is answered; which one does not matter.
                let publish = Publish { id: 2, ..publication(&channel, vec![0; payload]) };
                batch.push(control(codec, &ClientFrame::Publish(publish)));
            }
            if !batch.is_empty() {
                writer.write(&mut batch).await?;
            }
            match codec.decode(&reader.read().await?).map_err(anyhow::Error::msg)? {
                ServerFrame::Published(_) => acknowledged += 1,
                ServerFrame::Error(error) if error.code.may_retry() => {
                    // Another like it goes later.
                    sent -= 1;
                    sleep(Duration::from_millis(error.retry_after.unwrap_or(PAUSE_MILLIS).into())).await;
                }
                ServerFrame::Error(error) => anyhow::bail!("{}: {}", error.code, error.message),
                _ => {}
            }
        }
        Ok(())
    }
}
