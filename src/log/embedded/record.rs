//! What stands in the store: the keys, and a publication as bytes.
//!
//! The first byte of every value is its version. A change to this layout takes a new version that is read beside
//! the old one; it never rewrites a store. fjall checks the sum of every block that it reads, so what fails here
//! was written wrong or by something else.

use std::{borrow::Cow, fmt::Display, str::FromStr, sync::Arc};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use xpush_protocol::{AppId, Binary, ChannelName, Json, MessageId, NameError, Payload, UserId};

use super::super::LogError;
use crate::publication::{Draft, Publication, Publisher};

const VERSION: u8 = 1;
/// Of a publication that has more than version 1 could hold. Others are still written as version 1: whoever goes back
/// to an older xpush can read them.
const VERSION_WITH_REPLY: u8 = 2;
const HAS_USER: u8 = 1;
const IS_BINARY: u8 = 2;
/// Since version 2.
const HAS_REPLY: u8 = 4;

/// Ends a channel's name within a key: no name has this byte, so no channel's keys lie between another's.
const END_OF_NAME: u8 = 0;

/// Between a channel's name and its app, where that is not the default one. No name has this byte either.
const BEFORE_APP: char = '\u{1f}';

/// What a channel is called here. Its app stands behind the name: so the channels of a namespace lie together, whosever
/// they are.
pub(super) fn name(channel: &ChannelName) -> Cow<'_, str> {
    let app = channel.app();
    if app.is_default() {
        channel.local().into()
    } else {
        format!("{}{BEFORE_APP}{app}", channel.local()).into()
    }
}

pub(super) fn parse_name(name: &str) -> Result<ChannelName, LogError> {
    let damaged = |error: NameError| damaged(format_args!("a channel's name: {error}"));
    match name.split_once(BEFORE_APP) {
        Some((local, app)) => {
            let local: ChannelName = local.parse().map_err(damaged)?;
            Ok(local.within(&app.parse().map_err(damaged)?))
        }
        None => name.parse().map_err(damaged),
    }
}

/// What a publication is stored under: the keys of a channel stand in the order of its offsets.
pub(super) fn publication_key(channel: &ChannelName, offset: u64) -> Vec<u8> {
    let name = name(channel);
    let mut key = Vec::with_capacity(name.len() + 9);
    key.extend_from_slice(name.as_bytes());
    key.push(END_OF_NAME);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// The channel and offset of a publication's key.
pub(super) fn parse_publication_key(key: &[u8]) -> Result<(&str, u64), LogError> {
    let parsed = key.split_last_chunk::<8>().and_then(|(name, offset)| {
        let name = str::from_utf8(name.strip_suffix(&[END_OF_NAME])?).ok()?;
        Some((name, u64::from_be_bytes(*offset)))
    });
    parsed.ok_or_else(|| damaged(format_args!("{} is no key of a publication", key.escape_ascii())))
}

/// What a message's offset is stored under: a digest of the ids that make it one, as long as a key can be that lies
/// within its place in the store's tree. A longer one is a pointer away at each comparison, and each append compares
/// some fifty times.
pub(super) fn message_key(channel: &ChannelName, publisher: &str, message: &MessageId) -> MessageKey {
    // Nobody finds two messages of one digest: of 160 bits that takes 2^80 tries.
    let digest = digest(&SHA256, &message_name(channel, publisher, message));
    let mut key = MessageKey::default();
    let len = key.len();
    key.copy_from_slice(&digest.as_ref()[..len]);
    key
}

pub(super) type MessageKey = [u8; 20];

/// The ids that make a message one. Before there were digests, its offset was stored under this.
pub(super) fn message_name(channel: &ChannelName, publisher: &str, message: &MessageId) -> Vec<u8> {
    let name = name(channel);
    let (channel, publisher, message) = (name.as_bytes(), publisher.as_bytes(), message.as_str().as_bytes());
    let mut key = Vec::with_capacity(channel.len() + publisher.len() + message.len() + 3);
    key.extend_from_slice(channel);
    key.push(END_OF_NAME);
    // A message id is the shorter one and has a bound, so its length fits a byte and says where the other ends.
    key.push(message.len() as u8);
    key.extend_from_slice(message);
    key.extend_from_slice(publisher);
    key
}

pub(super) fn encode_offset(offset: u64) -> [u8; 9] {
    let mut bytes = [VERSION; 9];
    bytes[1..].copy_from_slice(&offset.to_be_bytes());
    bytes
}

pub(super) fn decode_offset(bytes: &[u8]) -> Result<u64, LogError> {
    let mut input = Input::new(bytes, "a message's offset")?;
    let offset = input.number()?;
    input.end()?;
    Ok(offset)
}

/// What of a channel was trimmed away. A channel that never was has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trimmed {
    /// The first offset that was kept.
    pub(super) first: u64,
    /// The newest one at that time: where nothing was kept, the next offset still follows it.
    pub(super) top: u64,
}

impl Trimmed {
    pub(super) fn encode(self) -> [u8; 17] {
        let mut bytes = [VERSION; 17];
        bytes[1..9].copy_from_slice(&self.first.to_be_bytes());
        bytes[9..].copy_from_slice(&self.top.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let mut input = Input::new(bytes, "a channel's trimmed part")?;
        let trimmed = Self { first: input.number()?, top: input.number()? };
        input.end()?;
        Ok(trimmed)
    }
}

/// Version, flags, time, publisher, message id, event, perhaps the user, perhaps what it answers, and the payload up to
/// the end.
pub(super) fn encode(draft: &Draft) -> Vec<u8> {
    let (payload, is_binary) = match &draft.payload {
        Payload::Json(json) => (json.as_str().as_bytes(), 0),
        Payload::Binary(Binary(bytes)) => (&bytes[..], IS_BINARY),
    };
    let has_user = if draft.user.is_some() { HAS_USER } else { 0 };
    let mut bytes = Vec::with_capacity(payload.len() + 128);
    let (version, has_reply) =
        if draft.reply_to.is_some() { (VERSION_WITH_REPLY, HAS_REPLY) } else { (VERSION, 0) };
    bytes.extend_from_slice(&[version, is_binary | has_user | has_reply]);
    bytes.extend_from_slice(&draft.time.to_be_bytes());
    put_text(&mut bytes, draft.publisher.as_str());
    put_text(&mut bytes, draft.message_id.as_str());
    put_text(&mut bytes, draft.event.as_str());
    if let Some(user) = &draft.user {
        put_text(&mut bytes, user.local());
    }
    if let Some(offset) = draft.reply_to {
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// What is left of a publication that is deleted.
pub(super) fn redact(bytes: &[u8]) -> Result<Vec<u8>, LogError> {
    let Header { publisher, .. } = Header::decode(bytes)?;
    let publisher = Publisher::from(publisher.to_owned());
    // A record has the user without the app, and gets it back so.
    let left = decode(0, &AppId::default(), bytes)?.redacted();
    let Publication { message_id, event, payload, user, time, reply_to, .. } = left;
    Ok(encode(&Draft {
        publisher,
        message_id,
        retriable: true,
        event,
        payload,
        user,
        time,
        reply_to,
        mentions: Vec::new(),
        expires_in: None,
    }))
}

/// The user is one of the channel's app.
pub(super) fn decode(offset: u64, app: &AppId, bytes: &[u8]) -> Result<Arc<Publication>, LogError> {
    let mut input = Input::publication(bytes)?;
    let header = input.header()?;
    let event = input.name()?;
    let user = if header.flags & HAS_USER != 0 { Some(input.name::<UserId>()?.within(app)) } else { None };
    let reply_to = if header.flags & HAS_REPLY != 0 { Some(input.number()?) } else { None };
    let payload = if header.flags & IS_BINARY != 0 {
        Payload::Binary(Binary(Bytes::copy_from_slice(input.rest)))
    } else {
        let text = str::from_utf8(input.rest).map_err(|error| input.damaged(error))?;
        Payload::Json(Json::parse(text).map_err(|error| input.damaged(error))?)
    };
    Ok(Arc::new(Publication {
        offset,
        message_id: header.message_id,
        event,
        payload,
        user,
        time: header.time,
        reply_to,
    }))
}

/// The part of a publication that trimming needs.
pub(super) struct Header<'a> {
    flags: u8,
    pub(super) time: u64,
    pub(super) publisher: &'a str,
    pub(super) message_id: MessageId,
}

impl<'a> Header<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, LogError> {
        Input::publication(bytes)?.header()
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    // The names' grammars bound them far below; a longer one would be read back as damaged, never as another.
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// What is left to read of a value.
struct Input<'a> {
    rest: &'a [u8],
    what: &'static str,
    version: u8,
}

impl<'a> Input<'a> {
    fn new(bytes: &'a [u8], what: &'static str) -> Result<Self, LogError> {
        Self::of(bytes, what, VERSION)
    }

    fn publication(bytes: &'a [u8]) -> Result<Self, LogError> {
        Self::of(bytes, "a publication", VERSION_WITH_REPLY)
    }

    /// `newest`: the versions up to it are known.
    fn of(bytes: &'a [u8], what: &'static str, newest: u8) -> Result<Self, LogError> {
        match bytes.split_first() {
            Some((&version, rest)) if (VERSION..=newest).contains(&version) => {
                Ok(Self { rest, what, version })
            }
            Some((version, _)) => Err(damaged(format_args!("{what} has the unknown version {version}"))),
            None => Err(damaged(format_args!("{what} is empty"))),
        }
    }

    fn header(&mut self) -> Result<Header<'a>, LogError> {
        let [flags] = self.take()?;
        let since_then = if self.version >= VERSION_WITH_REPLY { HAS_REPLY } else { 0 };
        if flags & !(HAS_USER | IS_BINARY | since_then) != 0 {
            return Err(self.damaged(format_args!("unknown flags {flags:#x}")));
        }
        let time = self.number()?;
        let publisher = self.text()?;
        Ok(Header { flags, time, publisher, message_id: self.name()? })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged("it is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, LogError> {
        self.take().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<&'a str, LogError> {
        let len = usize::from(u16::from_be_bytes(self.take()?));
        let (text, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.damaged("it is cut short"))?;
        self.rest = rest;
        str::from_utf8(text).map_err(|error| self.damaged(error))
    }

    fn name<T: FromStr<Err: Display>>(&mut self) -> Result<T, LogError> {
        self.text()?.parse().map_err(|error| self.damaged(error))
    }

    fn end(&self) -> Result<(), LogError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("it is too long")) }
    }

    fn damaged(&self, why: impl Display) -> LogError {
        damaged(format_args!("{} can't be read: {why}", self.what))
    }
}

fn damaged(reason: impl Display) -> LogError {
    LogError::Damaged { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::{channel, draft};

    fn drafts() -> [Draft; 4] {
        let json = Draft { user: Some("ann".parse().unwrap()), ..draft("ann", 7) };
        let bytes = Payload::Binary(Binary(Bytes::from_static(&[0, 255, 1])));
        let empty = Payload::Binary(Binary(Bytes::new()));
        [
            Draft { payload: bytes, ..json.clone() },
            Draft { payload: empty, ..draft("bob", 8) },
            Draft { reply_to: Some(6), ..json.clone() },
            json,
        ]
    }

    #[test]
    fn a_publication_reads_back() {
        for draft in drafts() {
            let bytes = encode(&draft);
            let header = Header::decode(&bytes).unwrap();
            assert_eq!((header.publisher, header.time), (draft.publisher.as_str(), draft.time));
            assert_eq!(*decode(5, &AppId::default(), &bytes).unwrap(), draft.into_publication(5));
        }
    }

    #[test]
    fn of_a_deleted_publication_everything_is_left_by_which_it_is_found() {
        for draft in drafts() {
            let left = redact(&encode(&draft)).unwrap();
            let header = Header::decode(&left).unwrap();
            assert_eq!((header.publisher, &header.message_id), (draft.publisher.as_str(), &draft.message_id));
            assert_eq!(*decode(5, &AppId::default(), &left).unwrap(), draft.into_publication(5).redacted());
        }
    }

    #[test]
    fn the_keys_of_a_channel_lie_together_in_order() {
        let (a, ab) = (channel("room:a"), channel("room:ab"));
        let keys = [publication_key(&a, 1), publication_key(&a, 256), publication_key(&a, u64::MAX)];
        assert!(keys.is_sorted());
        assert!(keys[2] < publication_key(&ab, 0));
        assert_eq!(parse_publication_key(&keys[1]).unwrap(), ("room:a", 256));
    }

    #[test]
    fn a_channel_of_another_app_lies_beside_and_reads_back() {
        let (a, shop) = (channel("room:a"), "shop".parse().unwrap());
        let of_shop = a.within(&shop);
        assert!(publication_key(&a, u64::MAX) < publication_key(&of_shop, 1));
        assert!(publication_key(&of_shop, u64::MAX) < publication_key(&channel("room:ab"), 1));
        for channel in [a, of_shop] {
            let key = publication_key(&channel, 7);
            assert_eq!(parse_name(parse_publication_key(&key).unwrap().0).unwrap(), channel);
        }
        let ann = "ann".parse::<UserId>().unwrap().within(&shop);
        let said = Draft { user: Some(ann), ..draft("ann", 7) };
        assert_eq!(*decode(5, &shop, &encode(&said)).unwrap(), said.into_publication(5));
        for damaged in ["room:a\u{1f}", "room:a\u{1f}a\u{1f}b", "room:a\u{1f}A", "\u{1f}shop"] {
            assert!(parse_name(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn two_messages_never_have_one_key() {
        let room = channel("room:a");
        let key = |publisher: &str, id: &str| message_key(&room, publisher, &id.parse().unwrap());
        assert_ne!(key("b", "ab"), key("bb", "a"));
        assert_ne!(key("ab", "c"), key("b", "ca"));
    }

    #[test]
    fn damaged_bytes_are_found_and_break_nothing() {
        for draft in drafts() {
            let bytes = encode(&draft);
            let header = bytes.len() - draft.payload.len();
            for len in 0..header {
                assert!(
                    matches!(decode(1, &AppId::default(), &bytes[..len]), Err(LogError::Damaged { .. })),
                    "{len} bytes"
                );
            }
            for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let _ = (decode(1, &AppId::default(), &bytes), Header::decode(&bytes));
            }
        }
        assert!(decode_offset(&[1, 2]).is_err());
        assert!(Trimmed::decode(&[2; 17]).is_err());
        assert!(parse_publication_key(b"room:a").is_err());
    }
}
