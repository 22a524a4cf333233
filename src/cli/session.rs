//! How a command finds its server, and who it is there.

use clap::Args;
use xpush::client::{Client, Server, Via};
use xpush_protocol::{Codec, Connect};

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The server's HTTP address
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
        Ok(Server::discover(&self.server, &self.certificate_hash).await?)
    }

    /// Further servers, with the same trust.
    pub(crate) async fn discover_all(&self, bases: &[String]) -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::with_capacity(bases.len());
        for base in bases {
            servers.push(Server::discover(base, &self.certificate_hash).await?);
        }
        Ok(servers)
    }

    /// A connection that has said who it is.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let codec = if self.via == Via::Longpoll { Codec::Json } else { Codec::MessagePack };
        let mut client = self.discover().await?.dial(self.via, codec).await?;
        let agent = Some(format!("xpush-cli/{}", env!("CARGO_PKG_VERSION")));
        client.connect(Connect { token: self.token.clone(), agent, ..Connect::default() }).await?;
        Ok(client)
    }
}
