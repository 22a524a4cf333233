//! What every wire promises, tested on each of them: one file a wire says how to start and dial it, and
//! `promises` is the same for all.
//!
//! To add a wire: implement `Wire` in a file of its own, and write `contract!(YourWire);` at its end.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::{future::Future, time::Duration};

use xpush_transports::{Admission, Connection, Settings, Transport};

/// Runs every promise against one wire.
macro_rules! contract {
    ($wire:ty) => {
        contract! { $wire:
            frames_arrive_whole_and_in_order_both_ways,
            frames_of_every_size_up_to_the_limit_arrive,
            a_batch_arrives_in_order_within_each_lane,
            a_frame_over_the_limit_ends_the_connection,
            the_server_tells_the_client_why_it_closes,
            the_client_tells_the_server_why_it_closes,
            a_client_that_sends_no_first_frame_is_closed,
            an_idle_client_is_closed,
            a_client_that_speaks_is_not_idle,
            connections_beyond_the_limit_of_an_address_are_refused,
            a_client_that_stops_reading_makes_the_server_wait,
            a_server_that_stops_reading_makes_the_client_wait,
            a_client_that_vanishes_is_noticed,
            a_cancelled_read_loses_nothing,
            nothing_is_accepted_after_shutdown,
        }
    };
    ($wire:ty: $($promise:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let promise = Box::pin(crate::promises::$promise::<$wire>());
            tokio::time::timeout(crate::PATIENCE, promise).await.expect("the test ends in time");
        }
    )+};
}

#[cfg(all(feature = "longpoll", feature = "dial"))]
mod longpoll;
mod memory;
#[cfg(all(feature = "quic", feature = "dial"))]
mod port;
mod promises;
#[cfg(all(feature = "quic", feature = "dial"))]
mod quic;
#[cfg(all(any(feature = "websocket", feature = "longpoll"), feature = "dial"))]
#[path = "../server/mod.rs"]
mod server;
#[cfg(all(feature = "websocket", feature = "dial"))]
mod websocket;
#[cfg(all(feature = "webtransport", feature = "dial"))]
mod webtransport;

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// One wire, started on a loopback port of its own. What was started ends when this is dropped.
trait Wire: Sized + Send + 'static {
    type Server: Transport;
    type Client: Connection;

    /// The server sees a connection before its first frame.
    const OPENS_WITHOUT_A_FRAME: bool = true;

    /// A client can say that it goes, and is missed at once when it does not. Else its silence tells.
    const SAYS_GOODBYE: bool = true;

    fn start(settings: Settings, admission: Admission) -> impl Future<Output = Self> + Send;

    /// A client, with `client_settings`.
    fn dial(&self) -> impl Future<Output = Result<Self::Client, String>> + Send;

    fn server(&mut self) -> &mut Self::Server;

    /// Cancels the transport's token.
    fn shut_down(&self);
}

/// A client that is patient, and that writes more than the server takes.
#[cfg_attr(not(feature = "dial"), allow(dead_code))]
fn client_settings(server: &Settings) -> Settings {
    Settings { frame_limit: server.frame_limit * 4, ..Settings::default() }
}
