//! WebSocket, in both codecs' kinds of message: the contract's frames are JSON, so they go as text.

use tokio_util::sync::CancellationToken;
use xpush_protocol::Codec;
use xpush_transports::{Admission, Settings, websocket};

use crate::{Wire, client_settings, server::Server};

struct WebSocket {
    listener: websocket::Listener,
    server: Server,
    settings: Settings,
    cancel: CancellationToken,
}

impl Wire for WebSocket {
    type Server = websocket::Listener;
    type Client = websocket::Connection;

    async fn start(settings: Settings, admission: Admission) -> Self {
        let cancel = CancellationToken::new();
        let (upgrader, listener) = websocket::listener(settings.clone(), admission, cancel.clone());
        let server = Server::start(move |peer, request| {
            let response = upgrader.upgrade(peer, request);
            async move { response }
        })
        .await;
        Self { listener, server, settings, cancel }
    }

    async fn dial(&self) -> Result<websocket::Connection, String> {
        let url = format!("ws://{}/v1/connect", self.server.address);
        websocket::dial(&url, Some(Codec::Json), &client_settings(&self.settings), None)
            .await
            .map_err(|error| error.to_string())
    }

    fn server(&mut self) -> &mut websocket::Listener {
        &mut self.listener
    }

    fn shut_down(&self) {
        self.cancel.cancel();
    }
}

contract!(WebSocket);
contract!(WebSocket: what_the_wire_takes_at_once_and_what_its_writer_writes_arrives_in_order);
