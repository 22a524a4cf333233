//! The TypeScript declarations of everything on the wire, written from the structs so that they can't drift.

use ts_rs::{Config, TS};

use crate::*;

const HEADER: &str = "// Written from protocol/src by `XPUSH_BLESS=1 cargo test -p xpush-protocol --features typescript`.\n// A test fails when this file is not what the Rust types give: change those, not this.\n";

/// The whole file.
#[must_use]
pub fn declarations() -> String {
    let config = Config::default();
    let mut out = String::from(HEADER);
    macro_rules! declare {
        ($($type:ty),* $(,)?) => {
            $(
                out.push('\n');
                if let Some(docs) = <$type as TS>::docs() {
                    out.push_str(docs.trim_end());
                    out.push('\n');
                }
                out.push_str("export ");
                out.push_str(&<$type as TS>::decl(&config));
                out.push('\n');
            )*
        };
    }
    declare!(
        ClientFrame,
        Connect,
        Resubscribe,
        Subscribe,
        Unsubscribe,
        Publish,
        Send,
        Target,
        UserDevice,
        Signal,
        Read,
        Received,
        Delete,
        History,
        Presence,
        Refresh,
        Ping,
        ServerFrame,
        Connected,
        Limits,
        Subscribed,
        Unsubscribed,
        UnsubscribeReason,
        Published,
        Sent,
        HistoryPage,
        PresenceList,
        Member,
        Refreshed,
        Pong,
        Done,
        Error,
        ErrorCode,
        Publication,
        Message,
        ChannelSignal,
        Receipt,
        Join,
        Leave,
        Occupancy,
        Gap,
        Lag,
        Draining,
        Expired,
        Close,
        Epoch,
        Cursor,
        TransportKind,
        Transports,
        Endpoint,
        TicketRequest,
        Ticket,
        NodeList,
        NodeEntry,
        Problem,
        PollRequest,
        PollAnswer,
    );
    out
}
