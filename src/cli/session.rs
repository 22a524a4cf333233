//! How a command finds its server, and who it is there.

use clap::Args;
use xpush::client::{Client, Event, Options, Server, Session, Via};
use xpush_protocol::{Codec, Connect};

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The server's HTTP address; of a cluster some, with commas: it tells the others
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "XPUSH_SERVER")]
    pub(crate) server: String,
    /// The wire
    #[arg(long, value_enum, default_value_t = Via::Quic)]
    pub(crate) via: Via,
    /// A client's token; without one, anonymous (on the server's own machine, in development)
    #[arg(long, env = "XPUSH_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// SHA-256 of the certificate to trust for an https server, in base64
    #[arg(long, value_name = "HASH")]
    pub(crate) certificate_hash: Vec<String>,
}

impl ServerArgs {
    pub(crate) async fn discover(&self) -> anyhow::Result<Server> {
        let first = self.server.split(',').next().unwrap_or_default();
        Ok(Server::discover(first, &self.certificate_hash).await?)
    }

    /// Further servers, with the same trust.
    pub(crate) async fn discover_all(&self, bases: &[String]) -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::with_capacity(bases.len());
        for base in bases {
            servers.push(Server::discover(base, &self.certificate_hash).await?);
        }
        Ok(servers)
    }

    /// The one that costs less, where the wire has both.
    pub(crate) fn codec(&self) -> Codec {
        if self.via == Via::Longpoll { Codec::Json } else { Codec::MessagePack }
    }

    /// A connection that has said who it is.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let mut client = self.discover().await?.dial(self.via, self.codec()).await?;
        client.connect(Connect { token: self.token.clone(), agent: agent(), ..Connect::default() }).await?;
        Ok(client)
    }

    /// A session, which outlives its connections. Nothing is known of the server yet.
    pub(crate) fn session(&self) -> Session {
        Session::start(Options {
            bases: self.server.split(',').map(str::to_owned).collect(),
            via: Some(self.via),
            token: self.token.clone(),
            certificate_hashes: self.certificate_hash.clone(),
            agent: agent(),
            ..Options::default()
        })
    }
}

fn agent() -> Option<String> {
    Some(format!("xpush-cli/{}", env!("CARGO_PKG_VERSION")))
}

/// Tells the user where a session is, once it moves.
#[derive(Default)]
pub(crate) struct Whereabouts {
    was_connected: bool,
}

impl Whereabouts {
    /// Fails if there never was a server: most likely the address is wrong.
    pub(crate) fn note(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Disconnected { reason } if !self.was_connected => anyhow::bail!("{reason}"),
            Event::Disconnected { reason } => eprintln!("xpush: {reason}; connecting again"),
            Event::Connected { node, via } if self.was_connected => {
                eprintln!("xpush: connected to {node} over {via}");
            }
            Event::Connected { .. } => self.was_connected = true,
            _ => {}
        }
        Ok(())
    }
}
