//! Frames from clients.

use xpush_protocol::*;

use super::{binary, cursor, data, event, lobby, session};

/// A new kind of frame does not compile until it has a number here, and then needs a vector.
pub(super) fn kind(frame: &ClientFrame) -> usize {
    match frame {
        ClientFrame::Connect(_) => 0,
        ClientFrame::Subscribe(_) => 1,
        ClientFrame::Unsubscribe(_) => 2,
        ClientFrame::Publish(_) => 3,
        ClientFrame::Send(_) => 4,
        ClientFrame::History(_) => 5,
        ClientFrame::Presence(_) => 6,
        ClientFrame::Refresh(_) => 7,
        ClientFrame::Ping(_) => 8,
        ClientFrame::Signal(_) => 9,
        ClientFrame::Read(_) => 10,
        ClientFrame::Received(_) => 11,
        ClientFrame::Delete(_) => 12,
    }
}

fn publish(data: Option<Json>, binary: Option<Binary>) -> ClientFrame {
    let message_id = Some("9f2c-1".parse().unwrap());
    ClientFrame::Publish(Publish {
        id: 4,
        channel: lobby(),
        message_id,
        event: event("chat"),
        data,
        binary,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    })
}

pub(super) fn frames() -> Vec<(&'static str, ClientFrame)> {
    let deep = format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let target = |to| {
        ClientFrame::Send(Send {
            id: 6,
            to,
            event: event("invite"),
            data: data(r#"["room:lobby"]"#),
            binary: None,
        })
    };
    vec![
        ("connect, anonymous", ClientFrame::Connect(Connect { id: 1, ..Connect::default() })),
        (
            "connect, with everything",
            ClientFrame::Connect(Connect {
                id: u32::MAX,
                token: Some("eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl".into()),
                ticket: Some("AXRpY2tldA".into()),
                state: Some("AdoQ_-".into()),
                subscriptions: vec![
                    Resubscribe { channel: lobby(), cursor: Some(cursor(41)) },
                    Resubscribe { channel: "live:a.b~c@d:e".parse().unwrap(), cursor: None },
                ],
                detached: true,
                agent: Some("my-client/1.0".into()),
            }),
        ),
        (
            "connect, with a ticket",
            ClientFrame::Connect(Connect { id: 1, ticket: Some("AXRpY2tldA".into()), ..Connect::default() }),
        ),
        (
            "signal",
            ClientFrame::Signal(Signal {
                id: 0,
                channel: lobby(),
                event: event("typing"),
                data: data("true"),
            }),
        ),
        ("read", ClientFrame::Read(Read { id: 11, channel: lobby(), offset: 42 })),
        ("received", ClientFrame::Received(Received { id: 12, channel: lobby(), offset: 42 })),
        (
            "subscribe, from now on",
            ClientFrame::Subscribe(Subscribe { id: 2, channel: lobby(), cursor: None, last: None }),
        ),
        (
            "subscribe, behind a cursor",
            ClientFrame::Subscribe(Subscribe {
                id: 2,
                channel: lobby(),
                cursor: Some(cursor(0)),
                last: None,
            }),
        ),
        (
            "subscribe, with the last twenty",
            ClientFrame::Subscribe(Subscribe { id: 2, channel: lobby(), cursor: None, last: Some(20) }),
        ),
        ("unsubscribe", ClientFrame::Unsubscribe(Unsubscribe { id: 3, channel: lobby() })),
        ("publish, an object", publish(data(r#"{"text":"hello","n":[1,-2,0.5,true,null]}"#), None)),
        ("publish, unicode", publish(data(r#""Grüße, 世界 🎉 \"\\\n""#), None)),
        ("publish, null", publish(data("null"), None)),
        ("publish, large numbers", publish(data("[9007199254740991,-9007199254740991,1e+300]"), None)),
        ("publish, as deep as may be", publish(data(&deep), None)),
        ("publish, bytes", publish(None, binary(&[0, 1, 127, 128, 255]))),
        ("publish, no bytes", publish(None, binary(&[]))),
        (
            "publish, without an answer",
            ClientFrame::Publish(Publish {
                id: 0,
                channel: "typing:lobby".parse().unwrap(),
                message_id: None,
                event: EventName::default(),
                data: data("true"),
                binary: None,
                reply_to: None,
                mentions: Vec::new(),
                expires_in: None,
            }),
        ),
        (
            "publish, an answer that mentions and expires",
            ClientFrame::Publish(Publish {
                id: 4,
                channel: lobby(),
                message_id: None,
                event: event("chat"),
                data: data(r#""@bob yes""#),
                binary: None,
                reply_to: Some(41),
                mentions: vec!["bob".parse().unwrap(), "Jürgen".parse().unwrap()],
                expires_in: Some(60_000),
            }),
        ),
        ("delete", ClientFrame::Delete(Delete { id: 13, channel: lobby(), offset: 42 })),
        ("send, to a user", target(Target::User("Jürgen".parse().unwrap()))),
        (
            "send, to a device",
            target(Target::Device(UserDevice {
                user: "ann".parse().unwrap(),
                device: "phone-1".parse().unwrap(),
            })),
        ),
        ("send, to a session", target(Target::Session(session()))),
        (
            "history, from the oldest",
            ClientFrame::History(History {
                id: 7,
                channel: lobby(),
                cursor: None,
                backward: false,
                limit: None,
            }),
        ),
        (
            "history, backward",
            ClientFrame::History(History {
                id: 7,
                channel: lobby(),
                cursor: Some(cursor(42)),
                backward: true,
                limit: Some(256),
            }),
        ),
        ("presence", ClientFrame::Presence(Presence { id: 8, channel: lobby() })),
        ("refresh", ClientFrame::Refresh(Refresh { id: 9, token: "e30.e30.e30".into() })),
        ("ping", ClientFrame::Ping(Ping { id: 10 })),
    ]
}
