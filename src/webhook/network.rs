//! Whom this server may call. A URL comes from outside, and a server that calls whatever it is told to is a way into
//! the network behind it (SSRF): the cloud's metadata service, a database, the operator's own tools.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Not public, by IANA's registry of special-purpose IPv4 addresses (RFC 6890), with multicast and what is reserved.
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    // Carriers' NAT (RFC 6598).
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Link-local; the clouds' metadata services are here.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// What is public of IPv6 is in here (RFC 4291): so ULA, link-local, loopback, multicast, NAT64 and what nobody has thought
/// of yet is not.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Of those, what is not: protocols' own (Teredo among them), documentation, and 6to4, which has an IPv4 address within.
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Which addresses may be called.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Those that the operator allows though they are not public.
    private: Vec<IpNet>,
}

/// How an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Public,
    /// Not public, and the operator allows it.
    Allowed,
    Refused,
}

impl Reach {
    /// Public addresses, and those of these networks.
    #[must_use]
    pub fn with_private(private: Vec<IpNet>) -> Self {
        Self { private }
    }

    #[must_use]
    pub fn kind(&self, address: IpAddr) -> Kind {
        // `::ffff:127.0.0.1` is `127.0.0.1`, to the kernel as well.
        let address = address.to_canonical();
        if self.private.iter().any(|network| network.contains(&address)) {
            Kind::Allowed
        } else if is_public(address) {
            Kind::Public
        } else {
            Kind::Refused
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_UNICAST.contains(&address)
                && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Finds the addresses of a name. Who calls connects to what it gave and to nothing else.
pub trait Resolve: Send + Sync + 'static {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// As the operating system resolves them.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(reach: &Reach, address: &str) -> Kind {
        reach.kind(address.parse().unwrap())
    }

    #[test]
    fn no_address_within_is_called() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            // IPv4-compatible, long out of use.
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in refused {
            assert_eq!(kind(&Reach::default(), address), Kind::Refused, "{address}");
        }
    }

    #[test]
    fn public_addresses_are_called() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ];
        for address in public {
            assert_eq!(kind(&Reach::default(), address), Kind::Public, "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_called_and_nothing_beside_it() {
        let reach =
            Reach::with_private(vec!["127.0.0.1/32".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        for allowed in ["127.0.0.1", "::ffff:127.0.0.1", "fd00:1::7"] {
            assert_eq!(kind(&reach, allowed), Kind::Allowed, "{allowed}");
        }
        for refused in ["127.0.0.2", "10.0.0.1", "::1", "fd00:2::7"] {
            assert_eq!(kind(&reach, refused), Kind::Refused, "{refused}");
        }
    }
}
