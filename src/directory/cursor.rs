//! How far a member has read, and what has reached his devices. Cursors only go forward, whoever is late.
//!
//! Unread messages are never counted one by one: offsets have no holes, so it is the channel's top less the cursor.

use xpush_protocol::{ChannelName, DeviceId, UserId};

use super::{
    Directory, DirectoryError, Result,
    member::{Member, MemberState},
    record,
    store::Commit,
};

/// Devices of which a member's record says what reached them. The one that is furthest behind makes room.
const RECEIVED_DEVICES: usize = 32;

impl Directory {
    /// The user has seen everything up to `offset`, which must not be beyond the channel's top. Gives the offset if
    /// that is news.
    pub async fn mark_read(&self, channel: &ChannelName, user: &UserId, offset: u64) -> Result<Option<u64>> {
        self.mark(channel, user, |member| {
            let is_news = offset > member.read;
            member.read = member.read.max(offset);
            is_news.then_some(offset)
        })
        .await
    }

    /// Everything up to `offset` has reached the device.
    pub async fn mark_received(
        &self,
        channel: &ChannelName,
        user: &UserId,
        device: &DeviceId,
        offset: u64,
    ) -> Result<Option<u64>> {
        self.mark(channel, user, |member| {
            let present = member.received.get(device).copied();
            if present.is_some_and(|present| offset <= present) || offset == 0 {
                return None;
            }
            if present.is_none() && member.received.len() >= RECEIVED_DEVICES {
                let oldest = member.received.iter().min_by_key(|(_, offset)| **offset);
                let oldest = oldest.map(|(device, _)| device.clone());
                oldest.and_then(|device| member.received.remove(&device));
            }
            member.received.insert(device.clone(), offset);
            Some(offset)
        })
        .await
    }

    async fn mark(
        &self,
        channel: &ChannelName,
        user: &UserId,
        mark: impl Fn(&mut Member) -> Option<u64> + Sync,
    ) -> Result<Option<u64>> {
        let key = Member::key(channel, user);
        let (key, mark) = (&key, &mark);
        self.change(|| async move {
            let member = self.read::<Member>(key).await?;
            let Some(mut member) = member.filter(|member| member.value.state == MemberState::Active) else {
                return Err(DirectoryError::NotFound("member"));
            };
            let marked = mark(&mut member.value);
            let mut commit = Commit::new().soon();
            if marked.is_some() {
                let bytes = record::encode(&member.value);
                commit = commit.expect(key.clone(), Some(member.version)).put(key.clone(), bytes);
            }
            Ok((commit, marked))
        })
        .await
    }
}
