//! How far a member has come in a channel, as it says so: kept by the directory, told to who wants to know.

use std::sync::Arc;

use xpush_protocol::{ChannelName, DeviceId, ErrorCode, Receipt, ServerFrame, UserId};

use super::Node;
use crate::{
    auth::{Permission, Rights},
    directory::{DirectoryError, MemberState},
    session::Refusal,
};

/// How far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The user, on whichever device.
    Read(u64),
    /// The device that says so.
    Received { device: DeviceId, offset: u64 },
}

impl Node {
    /// Notes how far a member has come, and tells the others, where the namespace has receipts, and the user's other
    /// devices. Less than what is known already is no error and changes nothing.
    pub async fn mark(
        self: &Arc<Self>,
        rights: &Rights,
        channel: &ChannelName,
        mark: Mark,
    ) -> Result<(), Refusal> {
        self.require(rights, Permission::History, channel).await?;
        let Some(user) = rights.user() else {
            let message = "only a user has read something: connect with a user's token";
            return Err(Refusal::new(ErrorCode::Unauthenticated, message));
        };
        self.mark_as(user, channel, mark).await
    }

    /// As `mark`, for a user in whose name its backend speaks. It has to be a member.
    pub async fn mark_as(
        self: &Arc<Self>,
        user: &UserId,
        channel: &ChannelName,
        mark: Mark,
    ) -> Result<(), Refusal> {
        let offset = match &mark {
            Mark::Read(offset) | Mark::Received { offset, .. } => *offset,
        };
        let top = self.top(channel).await?;
        if offset > top {
            // How much was said is for members. Of all else, the directory says below who is none.
            let member = self.directory.member(channel, user).await?;
            if !member.is_some_and(|member| member.state == MemberState::Active) {
                return Err(DirectoryError::NotFound("member").into());
            }
            let message = format!("{channel} has {top} publications, and {offset} is beyond");
            return Err(Refusal::new(ErrorCode::CursorAhead, message));
        }
        let mut receipt =
            Receipt { channel: channel.clone(), user: user.clone(), read: None, received: None };
        match mark {
            Mark::Read(offset) => receipt.read = self.directory.mark_read(channel, user, offset).await?,
            Mark::Received { device, offset } => {
                receipt.received = self.directory.mark_received(channel, user, &device, offset).await?;
            }
        }
        if let Some(read) = receipt.read {
            self.tell_read(user, channel, read).await;
        }
        let moved = receipt.read.is_some() || receipt.received.is_some();
        if moved && self.rules(channel).await?.receipts {
            self.tell_channel(channel.clone(), ServerFrame::Receipt(receipt)).await;
        }
        Ok(())
    }

    /// The offset of the newest publication, as far as this node knows: from the channel if somebody listens here.
    pub(crate) async fn top(&self, channel: &ChannelName) -> Result<u64, Refusal> {
        let policy = self.policy(channel)?;
        if let Some(channel) = self.channels.get(channel) {
            return Ok(channel.delivered().await?.offset);
        }
        Ok(self.log(policy).extent(channel).await?.top)
    }
}
