//! Raw QUIC.

use xpush_transports::{Admission, Settings, quic};

use crate::{Wire, client_settings, port::Port};

struct Quic {
    listener: quic::Listener,
    dialer: quic::Dialer,
    url: String,
    port: Port,
}

impl Wire for Quic {
    type Server = quic::Listener;
    type Client = quic::Dialled;

    async fn start(settings: Settings, admission: Admission) -> Self {
        let client = client_settings(&settings);
        let (udp, port) = Port::open(settings, admission);
        let dialer = quic::Dialer::new(&port.trust, &client).unwrap();
        Self { listener: udp.quic, dialer, url: format!("quic://{}", udp.local_addr), port }
    }

    async fn dial(&self) -> Result<quic::Dialled, String> {
        self.dialer.dial(&self.url).await.map_err(|error| error.to_string())
    }

    fn server(&mut self) -> &mut quic::Listener {
        &mut self.listener
    }

    fn shut_down(&self) {
        self.port.cancel.cancel();
    }
}

contract!(Quic);
