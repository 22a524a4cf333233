//! WebTransport, against a client that shares nothing with the server.

use xpush_protocol::Codec;
use xpush_transports::{Admission, Settings, webtransport};

use crate::{Wire, client_settings, port::Port};

struct WebTransport {
    listener: webtransport::Listener,
    dialer: webtransport::Dialer,
    url: String,
    port: Port,
}

impl Wire for WebTransport {
    type Server = webtransport::Listener;
    type Client = webtransport::Dialled;

    async fn start(settings: Settings, admission: Admission) -> Self {
        let client = client_settings(&settings);
        let (udp, port) = Port::open(settings, admission);
        let dialer = webtransport::Dialer::new(&port.trust, &client).unwrap();
        let url = format!("https://{}{}?v=1", udp.local_addr, webtransport::PATH);
        Self { listener: udp.webtransport, dialer, url, port }
    }

    async fn dial(&self) -> Result<webtransport::Dialled, String> {
        self.dialer.dial(&self.url, Some(Codec::Json)).await.map_err(|error| error.to_string())
    }

    fn server(&mut self) -> &mut webtransport::Listener {
        &mut self.listener
    }

    fn shut_down(&self) {
        self.port.cancel.cancel();
    }
}

contract!(WebTransport);
