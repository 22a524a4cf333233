//! Why a command failed (`ErrorCode`: may it be retried?), and why a connection ended (`CloseCode`: may it be
//! made again?). Two types, since one leaves the session alive and the other does not.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a command failed. On the wire it is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The frame is not valid JSON or MessagePack.
    Malformed,
    /// The frame's one key is no command.
    UnknownCommand,
    /// A field is missing, unknown or of the wrong type.
    InvalidField,
    /// A name is outside its grammar.
    InvalidName,
    /// The JSON or MessagePack is nested too deep.
    TooDeep,
    /// The frame or its data is larger than allowed.
    TooLarge,
    /// `connect` was expected first, or came twice.
    OutOfOrder,
    /// No token, and anonymous access is not allowed here.
    Unauthenticated,
    /// The token is malformed, forged, of another algorithm, audience or issuer.
    InvalidToken,
    /// The token was valid once.
    TokenExpired,
    /// The state or the poll's cursors are not what this installation gave out.
    InvalidState,
    /// The token does not grant it.
    PermissionDenied,
    /// The configuration has no such namespace.
    UnknownNamespace,
    /// The namespace does not do that: no history, no presence.
    NotSupported,
    /// The cursor is of this epoch but beyond its top.
    CursorAhead,
    /// Already subscribed to the channel on this connection.
    AlreadySubscribed,
    /// Not subscribed to the channel.
    NotSubscribed,
    /// A limit of the session, the app or the node: subscriptions, channels.
    LimitReached,
    /// Too many commands in this time.
    RateLimited,
    /// Too much is waiting already: in flight, or before the log.
    Busy,
    /// Nobody with that address is connected.
    NotConnected,
    /// No node takes clients now.
    NoNode,
    /// There is no such thing, or none that the caller may know of.
    NotFound,
    /// There is one with that name already.
    AlreadyExists,
    /// It changed since it was read (`If-Match`): read it again.
    PreconditionFailed,
    /// The user or the password is wrong; which of them is not said.
    InvalidCredentials,
    /// The application's own rule (a `before` webhook) refused it.
    Refused,
    /// Users, channels and members can't be read or changed now: a lost store.
    DirectoryUnavailable,
    /// The log can't take or give publications now: a full disk, a lost store.
    LogUnavailable,
    /// A fault of the server; its log has more.
    Internal,
}

impl ErrorCode {
    /// Whether the same command may succeed later, without a change.
    #[must_use]
    pub fn may_retry(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Busy
                | Self::NotConnected
                | Self::NoNode
                | Self::DirectoryUnavailable
                | Self::LogUnavailable
                | Self::Internal
        )
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownCommand => "unknown_command",
            Self::InvalidField => "invalid_field",
            Self::InvalidName => "invalid_name",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::OutOfOrder => "out_of_order",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidToken => "invalid_token",
            Self::TokenExpired => "token_expired",
            Self::InvalidState => "invalid_state",
            Self::PermissionDenied => "permission_denied",
            Self::UnknownNamespace => "unknown_namespace",
            Self::NotSupported => "not_supported",
            Self::CursorAhead => "cursor_ahead",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::LimitReached => "limit_reached",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::NotConnected => "not_connected",
            Self::NoNode => "no_node",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PreconditionFailed => "precondition_failed",
            Self::InvalidCredentials => "invalid_credentials",
            Self::Refused => "refused",
            Self::DirectoryUnavailable => "directory_unavailable",
            Self::LogUnavailable => "log_unavailable",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection ended: WebSocket's close code, QUIC's and WebTransport's application error code, and the
/// `code` of the `close` frame. Below 4500 a client may connect again; from 4500 on it must not by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 4000: the client or the server wanted no more.
    Normal,
    /// 4001: the node leaves.
    Draining,
    /// 4002: nothing was heard for too long.
    Idle,
    /// 4003: no `connect` came in time.
    HandshakeTimeout,
    /// 4004: another connection took this session over. Only the older one gets it; it has no reason to return.
    Replaced,
    /// 4005: the session's queue of answers was full for too long.
    SlowConsumer,
    /// 4006: a fault of the server.
    Internal,
    /// 4007: too many connections, from this address or in all.
    TooManyConnections,
    /// 4500: bytes that are no frames, or too many frames that are none.
    ProtocolError,
    /// 4501: a frame over the limit.
    FrameTooLarge,
    /// 4502: `connect` was refused: no token, or one that is not valid.
    Unauthenticated,
    /// 4503: the page's origin is not allowed.
    OriginRefused,
    /// 4504: the user, the device or the token was revoked, or signed out.
    Revoked,
    /// 4505: the user signed in elsewhere, and the app allows one session at a time.
    SignedInElsewhere,
    /// One that this version does not know; the range says what to do.
    Other(u16),
}

impl CloseCode {
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        match number {
            4000 => Self::Normal,
            4001 => Self::Draining,
            4002 => Self::Idle,
            4003 => Self::HandshakeTimeout,
            4004 => Self::Replaced,
            4005 => Self::SlowConsumer,
            4006 => Self::Internal,
            4007 => Self::TooManyConnections,
            4500 => Self::ProtocolError,
            4501 => Self::FrameTooLarge,
            4502 => Self::Unauthenticated,
            4503 => Self::OriginRefused,
            4504 => Self::Revoked,
            4505 => Self::SignedInElsewhere,
            other => Self::Other(other),
        }
    }

    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 4000,
            Self::Draining => 4001,
            Self::Idle => 4002,
            Self::HandshakeTimeout => 4003,
            Self::Replaced => 4004,
            Self::SlowConsumer => 4005,
            Self::Internal => 4006,
            Self::TooManyConnections => 4007,
            Self::ProtocolError => 4500,
            Self::FrameTooLarge => 4501,
            Self::Unauthenticated => 4502,
            Self::OriginRefused => 4503,
            Self::Revoked => 4504,
            Self::SignedInElsewhere => 4505,
            Self::Other(number) => number,
        }
    }

    /// Whether the client may connect again by itself.
    #[must_use]
    pub fn may_reconnect(self) -> bool {
        !(4500..5000).contains(&self.number())
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl Serialize for CloseCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for CloseCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_number)
    }
}

#[cfg(feature = "typescript")]
impl ts_rs::TS for CloseCode {
    type WithoutGenerics = Self;
    type OptionInnerType = Self;
    fn name(_: &ts_rs::Config) -> String {
        "number".into()
    }
    fn inline(_: &ts_rs::Config) -> String {
        "number".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_reads_back_from_its_number() {
        for number in 4000..5000 {
            let code = CloseCode::from_number(number);
            assert_eq!(code.number(), number);
            assert_eq!(code.may_reconnect(), number < 4500);
        }
    }

    #[test]
    fn an_error_code_is_its_name_on_the_wire() {
        for code in [ErrorCode::Malformed, ErrorCode::PermissionDenied, ErrorCode::LogUnavailable] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }
}
