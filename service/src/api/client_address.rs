//! Where a request comes from.
//!
//! Behind a proxy that is the proxy's address, unless it is one of `trusted_proxies`: only what those add to
//! `X-Forwarded-For` counts, since anybody may send that header.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};

use super::ApiState;
use crate::auth::address::AddressRange;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection, in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The address of a client, as far as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

impl FromRequestParts<ApiState> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Infallible> {
        // Those of which nothing is known are as one.
        let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| *peer);
        Ok(Self::of(peer, &parts.headers, &state.parts.trusted_proxies))
    }
}

impl ClientAddress {
    /// The last address that no trusted proxy has.
    fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address.to_canonical()));
        let lists = headers.get_all(FORWARDED_FOR).iter().map(|list| list.to_str().unwrap_or_default());
        let forwarded: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
        let mut address = peer;
        for earlier in forwarded.into_iter().rev() {
            match parse(earlier) {
                Some(earlier) if is_trusted(address) => address = earlier,
                _ => break,
            }
        }
        Self(address)
    }
}

/// Some proxies add the port.
fn parse(text: &str) -> Option<IpAddr> {
    let address: Result<IpAddr, _> = text.parse();
    address.or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, lists: &[&'static str]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        ClientAddress::of(peer.parse().unwrap(), &headers, &trusted).0.to_string()
    }

    #[test]
    fn only_what_a_trusted_proxy_says_counts() {
        assert_eq!(of("10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(of("::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(of("198.51.100.1", &["192.0.2.7"]), "198.51.100.1", "anybody can write that");
        assert_eq!(
            of("10.0.0.1", &["192.0.2.7, 198.51.100.1"]),
            "198.51.100.1",
            "the first one is the client's own word"
        );
        assert_eq!(of("10.0.0.1", &["192.0.2.7", "198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(of("fd00::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(of("10.0.0.1", &["192.0.2.7:80"]), "192.0.2.7");
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        for lists in [&[][..], &[""], &["unknown"], &["192.0.2.7, unknown"], &["192.0.2.7,"]] {
            assert_eq!(of("10.0.0.1", lists), "10.0.0.1", "{lists:?}");
        }
    }
}
