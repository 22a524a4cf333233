//! Frames from servers.

use xpush_protocol::*;

use super::{binary, cursor, data, event, lobby, session, user};

/// A new kind of frame does not compile until it has a number here, and then needs a vector.
pub(super) fn kind(frame: &ServerFrame) -> usize {
    match frame {
        ServerFrame::Connected(_) => 0,
        ServerFrame::Subscribed(_) => 1,
        ServerFrame::Unsubscribed(_) => 2,
        ServerFrame::Published(_) => 3,
        ServerFrame::Sent(_) => 4,
        ServerFrame::History(_) => 5,
        ServerFrame::Presence(_) => 6,
        ServerFrame::Refreshed(_) => 7,
        ServerFrame::Pong(_) => 8,
        ServerFrame::Error(_) => 9,
        ServerFrame::Publication(_) => 10,
        ServerFrame::Message(_) => 11,
        ServerFrame::Join(_) => 12,
        ServerFrame::Leave(_) => 13,
        ServerFrame::Occupancy(_) => 14,
        ServerFrame::Gap(_) => 15,
        ServerFrame::Lag(_) => 16,
        ServerFrame::Draining(_) => 17,
        ServerFrame::Expired(_) => 18,
        ServerFrame::Close(_) => 19,
        ServerFrame::Done(_) => 20,
        ServerFrame::Signal(_) => 21,
        ServerFrame::Receipt(_) => 22,
    }
}

fn publication(offset: u64, data: Option<Json>, binary: Option<Binary>, user: Option<UserId>) -> Publication {
    Publication {
        channel: lobby(),
        offset,
        epoch: None,
        message_id: "9f2c-1".parse().unwrap(),
        event: event("chat"),
        data,
        binary,
        user,
        time: 1_764_021_672_123,
        reply_to: None,
    }
}

pub(super) fn frames() -> Vec<(&'static str, ServerFrame)> {
    let limits = Limits { frame: 65_536, in_flight: 256, subscriptions: 5_000 };
    let gap = || Gap { channel: lobby(), epoch: Epoch(1_530_822_917), from: 12, to: 41 };
    let member = |user| Member { session: session(), user };
    let subscribed = Subscribed {
        id: 2,
        channel: lobby(),
        cursor: cursor(41),
        top: 41,
        gap: None,
        ephemeral: false,
        occupancy: None,
    };
    let unsubscribed = |id, reason| ServerFrame::Unsubscribed(Unsubscribed { id, channel: lobby(), reason });
    let connected = Connected {
        id: 1,
        session: session(),
        state: "AdoQ_-".into(),
        user: None,
        node: "local".into(),
        expires_in: None,
        ping_interval: 15_000,
        limits,
    };
    let error = Error {
        id: None,
        code: ErrorCode::Malformed,
        message: "EOF while parsing an object at line 1 column 1".into(),
        channel: None,
        retry: false,
        retry_after: None,
    };
    vec![
        ("connected, anonymous", ServerFrame::Connected(connected.clone())),
        (
            "connected, a user for an hour",
            ServerFrame::Connected(Connected { user: user("ann"), expires_in: Some(3600), ..connected }),
        ),
        ("subscribed", ServerFrame::Subscribed(subscribed.clone())),
        (
            "subscribed, with a gap",
            ServerFrame::Subscribed(Subscribed {
                top: 45,
                gap: Some(gap()),
                occupancy: Some(3),
                ..subscribed.clone()
            }),
        ),
        ("subscribed, ephemeral", ServerFrame::Subscribed(Subscribed { ephemeral: true, ..subscribed })),
        ("unsubscribed, as asked", unsubscribed(Some(3), UnsubscribeReason::Requested)),
        ("unsubscribed, token expired", unsubscribed(None, UnsubscribeReason::TokenExpired)),
        ("unsubscribed, revoked", unsubscribed(None, UnsubscribeReason::Revoked)),
        ("unsubscribed, log unavailable", unsubscribed(None, UnsubscribeReason::LogUnavailable)),
        ("published", ServerFrame::Published(Published { id: 4, cursor: cursor(42), duplicate: false })),
        (
            "published, a duplicate",
            ServerFrame::Published(Published { id: 4, cursor: cursor(42), duplicate: true }),
        ),
        ("sent", ServerFrame::Sent(Sent { id: 6, sessions: 2 })),
        (
            "history, a page",
            ServerFrame::History(HistoryPage {
                id: 7,
                channel: lobby(),
                publications: vec![
                    publication(42, data("1"), None, user("ann")),
                    publication(43, None, binary(b"\x00\xff"), None),
                ],
                top: cursor(50),
                next: Some(cursor(43)),
                gap: Some(gap()),
            }),
        ),
        (
            "history, of an empty channel",
            ServerFrame::History(HistoryPage {
                id: 7,
                channel: lobby(),
                publications: vec![],
                top: cursor(0),
                next: None,
                gap: None,
            }),
        ),
        (
            "presence",
            ServerFrame::Presence(PresenceList {
                id: 8,
                channel: lobby(),
                members: vec![member(user("ann")), member(None)],
                sessions: 2,
                users: 1,
            }),
        ),
        ("refreshed", ServerFrame::Refreshed(Refreshed { id: 9, expires_in: Some(3600) })),
        ("refreshed, without an end", ServerFrame::Refreshed(Refreshed { id: 9, expires_in: None })),
        ("pong", ServerFrame::Pong(Pong { id: 10 })),
        ("done", ServerFrame::Done(Done { id: 11 })),
        (
            "signal",
            ServerFrame::Signal(ChannelSignal {
                channel: lobby(),
                event: event("typing"),
                data: data("true"),
                session: session(),
                user: Some("ann".parse().unwrap()),
            }),
        ),
        (
            "receipt",
            ServerFrame::Receipt(Receipt {
                channel: lobby(),
                user: "ann".parse().unwrap(),
                read: Some(42),
                received: None,
            }),
        ),
        ("error, of no command", ServerFrame::Error(error.clone())),
        (
            "error, worth a retry",
            ServerFrame::Error(Error {
                id: Some(4),
                code: ErrorCode::RateLimited,
                message: "a session may publish 10 messages a second".into(),
                channel: Some(lobby()),
                retry: true,
                retry_after: Some(250),
            }),
        ),
        (
            "publication, an object",
            ServerFrame::Publication(publication(42, data(r#"{"text":"hello"}"#), None, user("ann"))),
        ),
        (
            "publication, unicode",
            ServerFrame::Publication(publication(43, data(r#""世界 🎉""#), None, user("Jürgen"))),
        ),
        (
            "publication, of a new epoch",
            ServerFrame::Publication(Publication {
                epoch: Some(Epoch(7)),
                ..publication(3, data("1"), None, None)
            }),
        ),
        (
            "publication, an answer",
            ServerFrame::Publication(Publication {
                reply_to: Some(41),
                ..publication(46, data(r#""yes""#), None, user("ann"))
            }),
        ),
        (
            "publication, a message was deleted",
            ServerFrame::Publication(Publication {
                event: event("xpush.deleted"),
                ..publication(47, data(r#"{"offset":42}"#), None, None)
            }),
        ),
        ("publication, null", ServerFrame::Publication(publication(44, data("null"), None, None))),
        ("publication, bytes", ServerFrame::Publication(publication(45, None, binary(&[0, 128, 255]), None))),
        (
            "publication, a high offset",
            ServerFrame::Publication(publication(9_007_199_254_740_991, data("[]"), None, None)),
        ),
        (
            "message, from a session",
            ServerFrame::Message(Message {
                session: Some(session()),
                user: user("ann"),
                event: event("invite"),
                data: data(r#"["room:lobby"]"#),
                binary: None,
            }),
        ),
        (
            "message, from a backend",
            ServerFrame::Message(Message {
                session: None,
                user: None,
                event: EventName::default(),
                data: None,
                binary: binary(b"\x01"),
            }),
        ),
        ("join", ServerFrame::Join(Join { channel: lobby(), member: member(user("ann")), occupancy: 3 })),
        ("leave", ServerFrame::Leave(Leave { channel: lobby(), member: member(None), occupancy: 2 })),
        ("occupancy", ServerFrame::Occupancy(Occupancy { channel: lobby(), occupancy: 1_234 })),
        ("gap", ServerFrame::Gap(gap())),
        (
            "gap, nothing of a new epoch",
            ServerFrame::Gap(Gap {
                channel: "live:scores".parse().unwrap(),
                epoch: Epoch(7),
                from: 1,
                to: 0,
            }),
        ),
        ("lag", ServerFrame::Lag(Lag { channel: lobby(), behind: 1_500 })),
        ("lag, over", ServerFrame::Lag(Lag { channel: lobby(), behind: 0 })),
        ("draining", ServerFrame::Draining(Draining { reconnect_in: 1_200, close_in: 10_000 })),
        ("expired", ServerFrame::Expired(Expired {})),
        (
            "close, to reconnect",
            ServerFrame::Close(Close {
                code: CloseCode::Draining,
                reason: "the node is stopping".into(),
                reconnect: true,
            }),
        ),
        (
            "close, of a code to come",
            ServerFrame::Close(Close {
                code: CloseCode::Other(4599),
                reason: String::new(),
                reconnect: false,
            }),
        ),
    ]
}
