//! Where this server's wires are, as a client that reached it by some host name has to call them.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use xpush::{
    config::{Config, PublicUrls},
    membership::{NodeId, NodeInfo, Roles, Status},
    node::Node,
};
use xpush_protocol::{Endpoint, TransportKind, Transports};
use xpush_transports::tls::Certificates;

/// The answer to `GET /v1/transports`, but for the host.
pub(super) struct Document {
    node: String,
    /// Where the others say that this node is.
    host: Option<String>,
    http: SocketAddr,
    tls: SocketAddr,
    public: PublicUrls,
    certificates: Arc<Certificates>,
}

impl Document {
    pub(super) fn new(
        config: &Config,
        http: SocketAddr,
        tls: SocketAddr,
        certificates: Arc<Certificates>,
    ) -> Self {
        let (node, host, public) =
            (config.node.name.clone(), config.node.host.clone(), config.public_urls.clone());
        Self { node, host, http, tls, public, certificates }
    }

    /// `host` is what the client called, with or without a port; over TLS it gets the TLS port for all wires.
    pub(super) fn answer(&self, host: &str, secure: bool) -> Transports {
        let web = if secure { self.tls } else { self.http };
        let (http, ws) = if secure { ("https", "wss") } else { ("http", "ws") };
        let at = |address: SocketAddr| authority(host, address);
        let tcp = at(web);
        // A client reaches a forwarded port by its own number; UDP and TLS have the one they are bound to.
        let of = |kind, public: &Option<String>, url: String| Endpoint {
            kind,
            url: public.clone().unwrap_or(url),
        };
        let public = &self.public;
        let udp = at(self.tls);
        let transports = vec![
            of(TransportKind::WebTransport, &public.webtransport, format!("https://{udp}/v1/connect")),
            of(TransportKind::Quic, &public.quic, format!("quic://{udp}")),
            of(TransportKind::WebSocket, &public.websocket, format!("{ws}://{tcp}/v1/connect")),
            of(TransportKind::LongPoll, &public.longpoll, format!("{http}://{tcp}/v1/poll")),
        ];
        Transports {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            transports,
            certificate_hashes: self.certificates.hashes(),
        }
    }

    /// As the other nodes tell of this one.
    pub(super) fn node(&self, id: &NodeId, roles: Roles, weight: u32) -> NodeInfo {
        let host = self.host.clone().unwrap_or_else(|| self.http.ip().to_string());
        NodeInfo {
            id: id.clone(),
            instance: rand::random(),
            version: env!("CARGO_PKG_VERSION").into(),
            roles,
            weight,
            wires: self.answer(&host, false),
            secure_wires: self.answer(&host, true),
            url: format!("http://{}", authority(&host, self.http)),
            secure_url: format!("https://{}", authority(&host, self.tls)),
            status: Status::default(),
        }
    }

    /// What a newcomer reads first.
    pub(super) fn banner(&self, config: &Config, node: &Node) -> String {
        let mut text = format!("XPUSH {} runs as node `{}`\n", env!("CARGO_PKG_VERSION"), node.id);
        let mut line = |name: &str, what: String| {
            // Writing into a String does not fail.
            let _ = writeln!(text, "  {name:<13} {what}");
        };
        line("page", format!("http://{}/", authority("localhost", self.http)));
        line("HTTP", format!("http://{} (API, WebSocket, long-polling)", self.http));
        line("TLS and UDP", format!("https://{} (the same, WebTransport, QUIC)", self.tls));
        line("store", config.store.path.display().to_string());
        if config.is_development() {
            let keys = config.store.path.join("dev-keys.toml");
            line("development", format!("keys in {}; from this machine no token is needed", keys.display()));
        }
        text.pop();
        text
    }
}

/// The host that the client called, with the port that is meant.
fn authority(host: &str, address: SocketAddr) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let valid = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
    // `localhost` is ::1 first for a browser; whoever is bound to one address of the two is called by that one.
    let bound_to_one = !address.ip().is_unspecified() && (!valid || name.eq_ignore_ascii_case("localhost"));
    if bound_to_one {
        return address.to_string();
    }
    if !valid {
        let any = if address.is_ipv4() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
        };
        return SocketAddr::new(any, address.port()).to_string();
    }
    format!("{name}:{}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_is_called_by_the_host_that_the_client_called() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(authority("chat.example:8080", at("0.0.0.0:8443")), "chat.example:8443");
        assert_eq!(authority("chat.example", at("0.0.0.0:8443")), "chat.example:8443");
        assert_eq!(authority("localhost:8080", at("127.0.0.1:8443")), "127.0.0.1:8443");
        assert_eq!(authority("localhost:8080", at("[::]:8443")), "localhost:8443");
        assert_eq!(authority("[::1]:8080", at("[::1]:8443")), "[::1]:8443");
        assert_eq!(authority("evil\"><script>", at("127.0.0.1:8443")), "127.0.0.1:8443");
        assert_eq!(authority("", at("0.0.0.0:8443")), "127.0.0.1:8443");
    }
}
