//! The wire within one process.

use tokio_util::sync::CancellationToken;
use xpush_transports::{Admission, Settings, memory};

use crate::Wire;

struct Memory {
    listener: memory::Listener,
    dialer: memory::Dialer,
    cancel: CancellationToken,
}

impl Wire for Memory {
    type Server = memory::Listener;
    type Client = memory::Connection;

    async fn start(settings: Settings, admission: Admission) -> Self {
        let cancel = CancellationToken::new();
        let (dialer, listener) = memory::listener(settings, admission, cancel.clone());
        Self { listener, dialer, cancel }
    }

    async fn dial(&self) -> Result<memory::Connection, String> {
        self.dialer.dial().await.map_err(|error| error.to_string())
    }

    fn server(&mut self) -> &mut memory::Listener {
        &mut self.listener
    }

    fn shut_down(&self) {
        self.cancel.cancel();
    }
}

contract!(Memory);
contract!(Memory: what_the_wire_takes_at_once_and_what_its_writer_writes_arrives_in_order);
