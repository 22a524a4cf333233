//! What of channels and members is told, and to whom.

use serde::Serialize;
use xpush_protocol::{ChannelName, Json, Publication, UserId};

use crate::directory::{Channel, ChannelProfile, Kind, Member, MemberState, Notify, Role};

/// A channel, and what the one who looks is in it.
#[derive(Debug, Serialize)]
pub(super) struct ChannelView {
    channel: ChannelName,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
    public: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator: Option<UserId>,
    created: u64,
    members: u32,
    /// Of a direct channel: the other of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<MemberState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notify: Option<Notify>,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<u64>,
    /// In a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Publication>,
}

/// A member, as others see it.
#[derive(Debug, Serialize)]
pub(super) struct MemberView {
    user: UserId,
    role: Role,
    state: MemberState,
    joined: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<u64>,
    /// For the member itself, and backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    notify: Option<Notify>,
}

/// Somebody who may not come in.
#[derive(Debug, Serialize)]
pub(super) struct BanView {
    user: UserId,
    since: u64,
}

impl ChannelView {
    /// `viewer`: whose membership it is.
    pub(super) fn new(channel: Channel, member: Option<&Member>, viewer: Option<&UserId>) -> Self {
        let user = viewer.and_then(|viewer| channel.other(viewer)).cloned();
        let Channel { channel, kind, profile, creator, created, members, .. } = channel;
        let ChannelProfile { title, topic, avatar, data, public } = profile;
        let active = member.filter(|member| member.state == MemberState::Active);
        Self {
            channel,
            kind,
            title,
            topic,
            avatar,
            data,
            public,
            creator,
            created,
            members,
            user,
            role: member.map(|member| member.role),
            state: member.map(|member| member.state),
            notify: active.map(|member| member.notify),
            muted_until: active.and_then(|member| member.muted_until),
            read: active.map(|member| member.read),
            top: None,
            unread: None,
            last: None,
        }
    }

    /// With what was said last, and how much of it is new.
    pub(super) fn with_news(self, top: u64, last: Option<Publication>) -> Self {
        let unread = self.read.map(|read| top.saturating_sub(read));
        Self { top: Some(top), unread, last, ..self }
    }
}

impl MemberView {
    /// `is_private`: for the member itself, or a backend.
    pub(super) fn new(member: Member, is_private: bool) -> Self {
        let Member { user, role, state, joined, data, muted_until, notify, .. } = member;
        Self { user, role, state, joined, data, muted_until, notify: is_private.then_some(notify) }
    }
}

impl BanView {
    pub(super) fn new(member: Member) -> Self {
        Self { user: member.user, since: member.joined }
    }
}
