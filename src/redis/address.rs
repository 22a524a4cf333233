//! What `redis.url` says. The texts of errors never repeat it: it may hold a password.

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::LinkError;

pub(super) const EXPECTED: &str = "redis://[user:password@]host[:port][/db], \
     redis+sentinel://[user:password@]host:port,host:port/primary[/db] or \
     redis+cluster://[user:password@]host:port,host:port, and with TLS rediss instead of redis";

/// Servers that a URL may name.
const SERVERS_LIMIT: usize = 64;
const SENTINEL_PORT: u16 = 26379;
const SERVER_PORT: u16 = 6379;

/// Which kind of Redis, and where.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Single(ConnectionInfo),
    Sentinel(Sentinels),
    Cluster(Vec<ConnectionInfo>),
}

/// Who knows where the primary is.
#[derive(Debug, Clone)]
pub(super) struct Sentinels {
    /// Asked in this order. They are taken to need no password.
    pub(super) addresses: Vec<ConnectionInfo>,
    /// The name of what they watch.
    pub(super) primary: String,
    /// How to connect to the primary, but for its host and port.
    pub(super) server: ConnectionInfo,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, LinkError> {
        let wrong = |problem: &str| LinkError::Url { problem: problem.into() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => ("redis", kind),
            ("rediss", kind) => ("rediss", kind),
            _ => return Err(wrong("has another scheme")),
        };
        if kind.is_empty() {
            return Ok(Self::Single(info(url)?));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let hosts: Vec<_> = hosts.split(',').filter(|host| !host.is_empty()).collect();
        if hosts.is_empty() || hosts.len() > SERVERS_LIMIT {
            return Err(wrong("names no host, or too many"));
        }
        let each = |user: &str, port: u16| {
            let one = |host: &&str| {
                // An IPv6 address has colons of its own, in brackets.
                let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
                let port = if has_port { String::new() } else { format!(":{port}") };
                info(&format!("{tls}://{user}{host}{port}"))
            };
            hosts.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        match kind {
            "sentinel" => {
                let (primary, db) = path.split_once('/').unwrap_or((path, ""));
                if primary.is_empty() || primary.contains('?') || db.contains('?') {
                    return Err(wrong("does not name what the Sentinels watch"));
                }
                let server = info(&format!("{tls}://{user}{host}/{db}", host = hosts[0]))?;
                let addresses = each("", SENTINEL_PORT)?;
                Ok(Self::Sentinel(Sentinels { addresses, primary: primary.to_owned(), server }))
            }
            "cluster" if path.is_empty() => Ok(Self::Cluster(each(&user, SERVER_PORT)?)),
            "cluster" => Err(wrong("has a path, and a Cluster has no databases")),
            _ => Err(wrong("has another scheme")),
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        let info = match self {
            Self::Single(info) => info,
            Self::Sentinel(sentinels) => &sentinels.server,
            // It is not empty.
            Self::Cluster(seeds) => &seeds[0],
        };
        matches!(info.addr(), ConnectionAddr::TcpTls { .. })
    }
}

/// The same way of connecting, to another server.
pub(super) fn moved(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

fn info(url: &str) -> Result<ConnectionInfo, LinkError> {
    let wrong = |problem: &str| LinkError::Url { problem: problem.into() };
    let info = url.into_connection_info().map_err(|_| wrong("can't be read"))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(wrong("would take any certificate"));
    }
    // Pub/Sub and commands tell each other apart on one connection.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_which_kind_of_redis_it_is() {
        let Address::Single(one) = Address::parse("redis://ann:secret@cache:7000/3").unwrap() else {
            panic!("one server")
        };
        assert_eq!(*one.addr(), ConnectionAddr::Tcp("cache".into(), 7000));
        assert_eq!((one.redis_settings().username(), one.redis_settings().db()), (Some("ann"), 3));

        let url = "redis+sentinel://:secret@s1,s2:7,[::1]:8/mymaster/2";
        let Address::Sentinel(sentinels) = Address::parse(url).unwrap() else { panic!("Sentinels") };
        let names: Vec<_> = sentinels.addresses.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(names, ["s1:26379", "s2:7", "::1:8"]);
        assert_eq!(sentinels.addresses[0].redis_settings().password(), None);
        let server = sentinels.server.redis_settings();
        assert_eq!(
            (sentinels.primary.as_str(), server.password(), server.db()),
            ("mymaster", Some("secret"), 2)
        );

        let cluster = Address::parse("rediss+cluster://ann:p%40ss@a:1,b:2").unwrap();
        assert!(cluster.has_tls());
        let Address::Cluster(seeds) = cluster else { panic!("a cluster") };
        assert_eq!(seeds[1].addr().to_string(), "b:2");
        assert_eq!(seeds[1].redis_settings().password(), Some("p@ss"));
        assert_eq!(moved(&seeds[0], "c", 3).addr().to_string(), "c:3");
    }

    #[test]
    fn a_wrong_url_is_named_without_its_password() {
        for bad in [
            "secret",
            "http://ann:secret@a",
            "redis+other://ann:secret@a",
            "redis+sentinel://ann:secret@a:1",
            "redis+cluster://ann:secret@",
            "redis+cluster://ann:secret@a/1",
            "redis+cluster://ann:secret@a:port",
            "rediss://ann:secret@a/#insecure",
        ] {
            let error = Address::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("`redis.url` ") && !error.contains("secret"), "{bad}: {error}");
        }
    }
}
