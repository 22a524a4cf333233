//! What travels arrives as it was, also from nodes of another version.

use xpush_protocol::{Join, Member};

use super::*;
use crate::log::fixture::draft;

#[test]
fn what_travels_arrives_as_it_was() {
    let channel: ChannelName = "room:a".parse().unwrap();
    let publication = |payload| {
        Arc::new(Publication {
            offset: 7,
            message_id: MessageId::random(),
            event: EventName::default(),
            payload,
            user: Some("ann".parse().unwrap()),
            time: 1_700_000_000_000,
            reply_to: Some(6),
        })
    };
    let json = Payload::Json(Json::parse(r#"{"b": 1.0,"a":[null,"ü"]}"#).unwrap());
    let binary = Payload::Binary(Binary(Bytes::from_static(&[0, 1, 255])));
    let node: NodeId = "n1".parse().unwrap();
    let member = Member { session: SessionId::random(), user: Some("ann".parse().unwrap()) };
    let message = Message {
        session: None,
        user: None,
        event: EventName::default(),
        data: Some(Json::parse("1").unwrap()),
        binary: None,
    };
    let join = Join { channel: channel.clone(), member, occupancy: 3 };
    for carried in [
        Carried::Publication { channel: channel.clone(), epoch: Epoch(9), publication: publication(json) },
        Carried::Publication { channel: channel.clone(), epoch: Epoch(9), publication: publication(binary) },
        Carried::Top { channel: channel.clone(), cursor: Cursor { epoch: Epoch(1), offset: u64::MAX } },
        Carried::Presence { channel: channel.clone(), occupancy: 3, frame: ServerFrame::Join(join) },
        Carried::Message {
            app: AppId::default(),
            to: Target::User("ann".parse().unwrap()),
            message,
            from: node.clone(),
            request: 5,
        },
        Carried::Accepted { node: node.clone(), request: 5, sessions: 2 },
        Carried::Append {
            node: node.clone(),
            from: node.clone(),
            request: 6,
            sent: 1_700_000_000_000,
            channel,
            drafts: vec![
                draft("p", 1),
                Draft { reply_to: Some(1), mentions: vec!["bob".parse().unwrap()], ..draft("q", 2) },
            ],
        },
        Carried::Appending { node: node.clone(), request: 6 },
        Carried::Appended {
            node,
            request: 6,
            placed: Placed {
                places: vec![Standing { epoch: 1, offset: u64::MAX, duplicate: true }],
                is_behind: true,
            },
        },
        Carried::Taken(Taken { session: SessionId::random(), generation: 4 }),
    ] {
        let bytes = carried.encode();
        assert_eq!(Carried::decode(&bytes), Some(carried));
        for end in 0..bytes.len() {
            assert_eq!(Carried::decode(&bytes[..end]), None);
        }
    }
    assert_eq!(Carried::decode(b"\x02anything"), None);
}

#[test]
fn nodes_of_before_there_were_answers_read_all_others() {
    // The layouts as they were.
    #[derive(Serialize, Deserialize)]
    enum Older<'a> {
        #[serde(borrow)]
        Publication(OlderPublication<'a>),
    }
    #[derive(Serialize, Deserialize)]
    struct OlderPublication<'a> {
        channel: ChannelName,
        epoch: u32,
        offset: u64,
        message_id: MessageId,
        event: EventName,
        binary: bool,
        #[serde(with = "serde_bytes_slice", borrow)]
        data: &'a [u8],
        user: Option<UserId>,
        time: u64,
    }
    let carried = |reply_to| Carried::Publication {
        channel: "room:a".parse().unwrap(),
        epoch: Epoch(9),
        publication: Arc::new(Draft { reply_to, ..draft("p", 1) }.into_publication(7)),
    };
    let bytes = carried(None).encode();
    let older: Older<'_> = rmp_serde::from_slice(&bytes[1..]).unwrap();
    let mut written = vec![FORMAT];
    rmp_serde::encode::write(&mut written, &older).unwrap();
    assert_eq!(written, bytes);
    assert_eq!(Carried::decode(&written), Some(carried(None)));
    assert!(rmp_serde::from_slice::<Older<'_>>(&carried(Some(6)).encode()[1..]).is_err());
}

#[test]
fn what_travels_keeps_its_app() {
    let shop: AppId = "shop".parse().unwrap();
    let channel = "room:a".parse::<ChannelName>().unwrap().within(&shop);
    let ann = "ann".parse::<UserId>().unwrap().within(&shop);
    let said = Draft {
        user: Some(ann.clone()),
        publisher: Publisher::user(&ann),
        mentions: vec![ann.clone()],
        ..draft("p", 1)
    };
    let publication = Arc::new(said.clone().into_publication(7));
    let node: NodeId = "n1".parse().unwrap();
    let message = || Message {
        session: None,
        user: None,
        event: EventName::default(),
        data: Some(Json::parse("1").unwrap()),
        binary: None,
    };
    let to =
        |to| Carried::Message { app: shop.clone(), to, message: message(), from: node.clone(), request: 5 };
    for carried in [
        Carried::Publication { channel: channel.clone(), epoch: Epoch(9), publication },
        Carried::Top { channel: channel.clone(), cursor: Cursor { epoch: Epoch(1), offset: 2 } },
        to(Target::User(ann.clone())),
        to(Target::Session(SessionId::random())),
        to(Target::Device(UserDevice { user: ann.clone(), device: "phone".parse().unwrap() })),
        Carried::Append {
            node: node.clone(),
            from: node.clone(),
            request: 6,
            sent: 1,
            channel: channel.clone(),
            drafts: vec![said],
        },
    ] {
        assert_eq!(Carried::decode(&carried.encode()), Some(carried));
    }
    // What clients read has no app in it; the channel beside it has.
    let join = Join {
        channel: channel.clone(),
        member: Member { session: SessionId::random(), user: Some(ann) },
        occupancy: 1,
    };
    let told = Carried::Presence { channel: channel.clone(), occupancy: 1, frame: ServerFrame::Join(join) };
    let Some(Carried::Presence { channel: arrived, frame: ServerFrame::Join(join), .. }) =
        Carried::decode(&told.encode())
    else {
        panic!("it arrives");
    };
    assert_eq!((arrived, join.channel.as_str()), (channel, "room:a"));
}
