//! Names and ids, parsed at the door: who holds one of these types holds a valid name.

use std::{
    borrow::Borrow,
    cell::RefCell,
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Why a text is not the name that it was sent as.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {problem}; expected {grammar}")]
pub struct NameError {
    /// Which kind of name was expected, as a person would say it.
    pub what: &'static str,
    /// What is wrong with the text. The text itself is not repeated: it came from outside.
    pub problem: String,
    /// The grammar, in words.
    pub grammar: &'static str,
}

/// Between the app and the name within it. No grammar has it, so nobody can say a name of another app.
const SCOPE: char = '\u{1f}';

/// The app that needs not be said: whose names are written without it, in stores as well.
const DEFAULT_APP: &str = "default";

/// A name as its app knows it.
fn unscoped(text: &str) -> &str {
    text.split_once(SCOPE).map_or(text, |(_, local)| local)
}

fn whole(text: &str) -> &str {
    text
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $grammar:literal, $check:expr) => {
        name!($(#[$doc])* $type, $what, $grammar, $check, whole);
    };
    // `$shown`: what of it the wire and people see.
    ($(#[$doc:meta])* $type:ident, $what:literal, $grammar:literal, $check:expr, $shown:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The grammar, in words, as error messages quote it.
            pub const GRAMMAR: &'static str = $grammar;

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), String> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(problem) => Err(NameError { what: $what, problem, grammar: $grammar }),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($shown(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($shown(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($grammar)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        #[cfg(feature = "typescript")]
        impl ts_rs::TS for $type {
            type WithoutGenerics = Self;
            type OptionInnerType = Self;
            fn name(_: &ts_rs::Config) -> String {
                "string".into()
            }
            fn inline(_: &ts_rs::Config) -> String {
                "string".into()
            }
        }
    };
}

/// Names that are an app's own: `ann` of one app is not `ann` of another.
///
/// Within the server such a name knows its app: `as_str`, equality and hash are of both, so no table, topic or key can
/// take one app's for another's. On the wire and before people it is the name alone.
macro_rules! scoped {
    ($type:ident) => {
        impl $type {
            /// This name in that app.
            #[must_use]
            pub fn within(&self, app: &AppId) -> Self {
                let local = self.local();
                if self.is_of(app) {
                    self.clone()
                } else if app.is_default() {
                    Self(local.into())
                } else {
                    Self(format!("{app}{SCOPE}{local}").into())
                }
            }

            /// Whose it is.
            #[must_use]
            pub fn app(&self) -> AppId {
                self.0.split_once(SCOPE).map_or_else(AppId::default, |(app, _)| AppId(app.into()))
            }

            /// Whether it is that app's.
            #[must_use]
            pub fn is_of(&self, app: &AppId) -> bool {
                self.0.split_once(SCOPE).map_or(DEFAULT_APP, |(app, _)| app) == app.as_str()
            }

            /// The name as its app, its clients and people know it.
            #[must_use]
            pub fn local(&self) -> &str {
                unscoped(&self.0)
            }

            /// What `as_str` gave: for what nodes and stores keep for each other. Never for a text from outside.
            pub fn from_scoped(text: &str) -> Result<Self, NameError> {
                match text.split_once(SCOPE) {
                    Some((app, local)) => Ok(local.parse::<Self>()?.within(&app.parse()?)),
                    None => text.parse(),
                }
            }
        }
    };
}

fn length(text: &str, max: usize) -> Result<(), String> {
    match text.len() {
        0 => Err("is empty".into()),
        n if n > max => Err(format!("has {n} bytes, {max} at most are allowed")),
        _ => Ok(()),
    }
}

fn only(text: &str, allowed: fn(char) -> bool) -> Result<(), String> {
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((at, c)) => Err(format!("has the character {c:?} at byte {at}")),
        None => Ok(()),
    }
}

fn check_namespace(text: &str) -> Result<(), String> {
    length(text, 32)?;
    only(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))?;
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("does not begin with a lower-case letter".into());
    }
    Ok(())
}

fn check_channel(text: &str) -> Result<(), String> {
    length(text, 255)?;
    let Some((namespace, rest)) = text.split_once(':') else {
        return Err("has no namespace".into());
    };
    check_namespace(namespace).map_err(|problem| format!("has a namespace that {problem}"))?;
    length(rest, 222).map_err(|problem| format!("has a part behind the namespace that {problem}"))?;
    only(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '@' | ':'))
}

name!(
    /// The part of a channel's name that gives its policy: `room` in `room:lobby`.
    Namespace,
    "namespace",
    "1 to 32 of a-z, 0-9, '-', '_', beginning with a letter",
    check_namespace
);

name!(
    /// A channel: `namespace:rest`, at most 255 bytes.
    ChannelName,
    "channel",
    "namespace:rest, the namespace of a-z, 0-9, '-', '_' and beginning with a letter, the rest of A-Z, a-z, 0-9, '-', '_', '.', '~', '@', ':', 255 bytes at most",
    check_channel,
    unscoped
);
scoped!(ChannelName);

impl ChannelName {
    #[must_use]
    pub fn namespace(&self) -> &str {
        let local = self.local();
        // The grammar has a colon; the whole name is a harmless answer if it ever had none.
        local.split_once(':').map_or(local, |(namespace, _)| namespace)
    }
}

name!(
    /// An application: whose users, channels and messages are its own.
    AppId,
    "app",
    "1 to 32 of a-z, 0-9, '-', beginning with a letter",
    |text| {
        length(text, 32)?;
        only(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')?;
        if text.starts_with(|c: char| c.is_ascii_lowercase()) {
            Ok(())
        } else {
            Err("does not begin with a lower-case letter".into())
        }
    }
);

impl Default for AppId {
    fn default() -> Self {
        static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_APP.into());
        Self(Arc::clone(&DEFAULT))
    }
}

impl AppId {
    #[must_use]
    pub fn is_default(&self) -> bool {
        &*self.0 == DEFAULT_APP
    }
}

name!(
    /// A user's device, as the client or the server named it.
    DeviceId,
    "device",
    "1 to 64 of A-Z, a-z, 0-9, '-', '_', '.'",
    |text| {
        length(text, 64)?;
        only(text, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    }
);

impl DeviceId {
    /// An id for a device that brought none.
    #[must_use]
    pub fn random() -> Self {
        Self(random_text().into())
    }
}

name!(
    /// A user, as the application names it: the `sub` of a token.
    UserId,
    "user",
    "1 to 128 bytes of UTF-8 without control characters",
    |text| {
        length(text, 128)?;
        only(text, |c| !c.is_control())
    },
    unscoped
);
scoped!(UserId);

name!(
    /// A session: 128 random bits in base64url. Public; it is an address, not a secret.
    SessionId,
    "session",
    "22 characters of base64url",
    |text| {
        if text.len() != 22 {
            return Err(format!("has {} bytes", text.len()));
        }
        only(text, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    }
);

name!(
    /// A publisher's own id for a message: a retry with the same id is the same message.
    MessageId,
    "message id",
    "1 to 64 visible ASCII characters",
    |text| {
        length(text, 64)?;
        only(text, |c| c.is_ascii_graphic())
    }
);

name!(
    /// What kind of message it is, named by the application.
    EventName,
    "event",
    "1 to 64 of A-Z, a-z, 0-9, '-', '_', '.', ':'",
    |text| {
        length(text, 64)?;
        only(text, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))
    }
);

impl Default for EventName {
    fn default() -> Self {
        // The most frequent name is one text for all.
        static MESSAGE: LazyLock<Arc<str>> = LazyLock::new(|| "message".into());
        Self(Arc::clone(&MESSAGE))
    }
}

impl SessionId {
    /// A new session's id.
    #[must_use]
    pub fn random() -> Self {
        Self(random_text().into())
    }
}

impl MessageId {
    /// An id for a message whose publisher gave none, and so can't retry it safely.
    #[must_use]
    pub fn random() -> Self {
        Self(random_text().into())
    }
}

fn random_text() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<16>())
}

fn random_bytes<const N: usize>() -> [u8; N] {
    /// A server that names each message would ask the operating system each time.
    const POOL: usize = 512;
    thread_local! {
        static UNUSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    UNUSED.with_borrow_mut(|unused| {
        if unused.len() < N {
            unused.resize(POOL, 0);
            // The operating system's generator fails only where no program can go on safely.
            #[allow(clippy::expect_used)]
            getrandom::fill(unused).expect("the operating system gives random bytes");
        }
        let mut bytes = [0; N];
        let rest = unused.len() - N;
        bytes.copy_from_slice(&unused[rest..]);
        unused.truncate(rest);
        bytes
    })
}

/// One life of a channel's numbering. Offsets of two epochs can't be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    #[must_use]
    pub fn random() -> Self {
        Self(u32::from_le_bytes(random_bytes()))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a channel: behind the publication `offset` of `epoch`. Offsets begin at 1; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    pub epoch: Epoch,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = NameError;

    /// The form of URLs and command lines: `epoch:offset`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.split_once(':').and_then(|(epoch, offset)| {
            Some(Self { epoch: Epoch(epoch.parse().ok()?), offset: offset.parse().ok()? })
        });
        parsed.ok_or_else(|| NameError {
            what: "cursor",
            problem: "is not two numbers".into(),
            grammar: "epoch:offset, as in 1530822917:42",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_a_namespace_and_a_rest() {
        let channel: ChannelName = "room:lobby".parse().unwrap();
        assert_eq!((channel.namespace(), channel.as_str()), ("room", "room:lobby"));
        assert!("room:a:b.c@d~e-f_9".parse::<ChannelName>().is_ok());
    }

    #[test]
    fn a_channel_outside_the_grammar_is_refused_with_the_place() {
        let long = format!("room:{}", "x".repeat(10_000));
        for text in [
            "",
            "room",
            "room:",
            ":x",
            "Room:x",
            "1room:x",
            "room:../etc",
            "room:a\0b",
            "room:a\r\nb",
            "room:ü",
            &long,
        ] {
            assert!(text.parse::<ChannelName>().is_err(), "{text:?} was taken");
        }
        let error = "room:a/b".parse::<ChannelName>().unwrap_err();
        assert!(error.to_string().contains("has the character '/' at byte 1"), "{error}");
    }

    #[test]
    fn a_name_of_one_app_is_none_of_another() {
        let [shop, game] = ["shop", "game"].map(|app| app.parse::<AppId>().unwrap());
        let ann: UserId = "ann".parse().unwrap();
        let (of_shop, of_game) = (ann.within(&shop), ann.within(&game));
        assert_ne!(of_shop, of_game);
        assert_ne!(of_shop, ann);
        assert_eq!((of_shop.app(), of_game.app(), ann.app()), (shop.clone(), game.clone(), AppId::default()));
        assert!(of_shop.is_of(&shop) && !of_shop.is_of(&game) && !of_shop.is_of(&AppId::default()));
        assert!(ann.is_of(&AppId::default()) && !ann.is_of(&shop));
        assert_eq!(of_shop.within(&game), of_game, "an app is not put around another");
        assert_eq!(of_shop.within(&AppId::default()), ann);
        let room = "room:a".parse::<ChannelName>().unwrap().within(&shop);
        assert_eq!((room.namespace(), room.local()), ("room", "room:a"));
    }

    #[test]
    fn the_default_apps_names_are_written_without_it() {
        let room: ChannelName = "room:a".parse().unwrap();
        assert_eq!(room.within(&AppId::default()).as_str(), "room:a");
        assert!(Arc::ptr_eq(&room.0, &room.within(&AppId::default()).0), "and nothing is copied");
    }

    #[test]
    fn people_and_the_wire_see_the_local_name() {
        let shop: AppId = "shop".parse().unwrap();
        let room = "room:a".parse::<ChannelName>().unwrap().within(&shop);
        let ann = "ann".parse::<UserId>().unwrap().within(&shop);
        assert_eq!((room.to_string(), ann.to_string()), ("room:a".into(), "ann".into()));
        let target = crate::Target::User(ann.clone());
        for codec in [crate::Codec::Json, crate::Codec::MessagePack] {
            let presence = crate::ClientFrame::Presence(crate::Presence { id: 1, channel: room.clone() });
            let send = crate::ClientFrame::Send(crate::Send {
                id: 2,
                to: target.clone(),
                event: EventName::default(),
                data: None,
                binary: None,
            });
            for frame in [presence, send] {
                let bytes = codec.encode(&frame);
                assert!(!bytes.contains(&(SCOPE as u8)), "{}", bytes.escape_ascii());
                assert!(codec.decode_command(&bytes).is_ok());
            }
        }
    }

    #[test]
    fn nobody_can_say_a_name_of_an_app() {
        for text in
            ["shop\u{1f}room:a", "default\u{1f}room:a", "\u{1f}room:a", "room:a\u{1f}", "room:\u{1f}a"]
        {
            assert!(text.parse::<ChannelName>().is_err(), "{text:?}");
            assert!(text.parse::<UserId>().is_err(), "{text:?}");
            assert!(text.parse::<AppId>().is_err(), "{text:?}");
            let (escaped, packed) = (serde_json::to_string(text).unwrap(), rmp_serde::to_vec(text).unwrap());
            assert!(serde_json::from_str::<ChannelName>(&escaped).is_err(), "{escaped}");
            assert!(serde_json::from_str::<UserId>(&escaped).is_err(), "{escaped}");
            assert!(rmp_serde::from_slice::<ChannelName>(&packed).is_err(), "{text:?}");
            assert!(rmp_serde::from_slice::<UserId>(&packed).is_err(), "{text:?}");
            let frame = format!(r#"{{"subscribe":{{"id":1,"channel":{escaped}}}}}"#);
            assert!(crate::Codec::Json.decode_command(frame.as_bytes()).is_err(), "{frame}");
        }
    }

    #[test]
    fn a_scoped_name_reads_back_and_only_what_was_written_does() {
        let shop: AppId = "shop".parse().unwrap();
        for name in ["room:a", "chat:a:b~c@d"].map(|name| name.parse::<ChannelName>().unwrap()) {
            for name in [name.within(&shop), name] {
                assert_eq!(ChannelName::from_scoped(name.as_str()), Ok(name));
            }
        }
        let odd = "Ann Ü. {1}:*".parse::<UserId>().unwrap().within(&shop);
        assert_eq!(UserId::from_scoped(odd.as_str()), Ok(odd));
        for text in
            ["", "Shop\u{1f}room:a", "shop\u{1f}", "shop\u{1f}room", "a\u{1f}b\u{1f}room:a", "\u{1f}room:a"]
        {
            assert!(ChannelName::from_scoped(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn random_ids_are_of_their_own_grammar() {
        assert!(SessionId::random().as_str().parse::<SessionId>().is_ok());
        assert!(MessageId::random().as_str().parse::<MessageId>().is_ok());
        assert_ne!(SessionId::random(), SessionId::random());
    }

    #[test]
    fn a_cursor_reads_back_from_its_text() {
        let cursor = Cursor { epoch: Epoch(7), offset: 42 };
        assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        assert!("7".parse::<Cursor>().is_err());
    }
}
