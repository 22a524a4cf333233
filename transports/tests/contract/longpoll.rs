//! Long-polling.

use tokio_util::sync::CancellationToken;
use xpush_transports::{Admission, Settings, longpoll};

use crate::{Wire, client_settings, server::Server};

struct LongPoll {
    listener: longpoll::Listener,
    server: Server,
    settings: Settings,
    cancel: CancellationToken,
}

impl Wire for LongPoll {
    type Server = longpoll::Listener;
    type Client = longpoll::Dialled;

    const OPENS_WITHOUT_A_FRAME: bool = false;
    const SAYS_GOODBYE: bool = false;

    async fn start(settings: Settings, admission: Admission) -> Self {
        let cancel = CancellationToken::new();
        let (poller, listener) = longpoll::listener(settings.clone(), admission, cancel.clone());
        let server = Server::start(move |peer, request| {
            let poller = poller.clone();
            async move { poller.poll(peer, request).await }
        })
        .await;
        Self { listener, server, settings, cancel }
    }

    async fn dial(&self) -> Result<longpoll::Dialled, String> {
        let url = format!("http://{}/v1/poll", self.server.address);
        longpoll::dial(&url, &client_settings(&self.settings), None).await.map_err(|error| error.to_string())
    }

    fn server(&mut self) -> &mut longpoll::Listener {
        &mut self.listener
    }

    fn shut_down(&self) {
        self.cancel.cancel();
    }
}

contract!(LongPoll);
