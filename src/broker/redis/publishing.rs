//! What goes out.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};
use xpush_protocol::{ChannelName, Cursor};

use crate::{
    broker::{BrokerError, Carried},
    redis::{Envelope, Link, LinkError, Script},
};

/// Publishes under way; one more waits for them. Some times what one connection needs to be busy.
const UNDER_WAY: usize = 1024;
/// How long a publish takes at most, whatever happens.
const DEADLINE: Duration = Duration::from_secs(2);
/// A top that nobody announced again for so long is forgotten: the log knows it.
const TOP_TTL: Duration = Duration::from_secs(600);

pub(super) struct Publishing {
    link: Arc<Link>,
    instance: u64,
    under_way: Semaphore,
    with_top: Script,
}

impl Publishing {
    pub(super) fn new(link: Arc<Link>, instance: u64) -> Self {
        Self {
            link,
            instance,
            under_way: Semaphore::new(UNDER_WAY),
            with_top: Script::new(include_str!("publish.lua").to_owned()),
        }
    }

    /// Gives how many connections got it, this node's own included.
    pub(super) async fn publish(&self, carried: &Carried) -> Result<usize, BrokerError> {
        let sent = timeout(DEADLINE, async {
            // It is never closed.
            let _permit = self.under_way.acquire().await;
            self.send(carried).await
        });
        match sent.await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(BrokerError { reason: format!("no answer within {} s", DEADLINE.as_secs()) }),
        }
    }

    async fn send(&self, carried: &Carried) -> Result<usize, LinkError> {
        let topic = self.link.keys.topic(&carried.topic());
        let sealed = Envelope::seal(self.instance, carried);
        let Some((channel, cursor)) = top(carried) else {
            let mut publish = ::redis::cmd("SPUBLISH");
            publish.arg(&topic).arg(sealed);
            return self.link.ask(&topic, publish).await;
        };
        let keys = [self.link.keys.of_channel("top", &channel), topic];
        let arguments = |call: &mut ::redis::Cmd, _: &str| {
            let ttl = TOP_TTL.as_millis() as u64;
            call.arg(cursor.epoch.0).arg(cursor.offset).arg(ttl).arg(&sealed);
        };
        self.link.run(&self.with_top, &keys, arguments).await
    }
}

/// How far it says that the log has a channel.
fn top(carried: &Carried) -> Option<(ChannelName, Cursor)> {
    match carried {
        Carried::Publication { channel, epoch, publication } => {
            Some((channel.clone(), Cursor { epoch: *epoch, offset: publication.offset }))
        }
        Carried::Top { channel, cursor } => Some((channel.clone(), *cursor)),
        _ => None,
    }
}
