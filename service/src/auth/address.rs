//! Which addresses keys may be fetched from. Pure.
//!
//! Who may write a `jwks_uri` may otherwise make the service ask anything in its own network. Names are no help: what
//! counts are the addresses that are connected to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Rules for addresses. Without any, all are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Ranges that are rejected.
    pub ranges: Vec<AddressRange>,
    /// Rejects what is not public: loopback, private networks, multicast, reserved.
    pub local: bool,
    /// Rejects all of IPv6.
    pub ipv6: bool,
}

/// Why an address is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It lies in a rejected range.
    Range,
    /// It is of IPv6.
    Ipv6,
}

/// A range of addresses, such as `10.0.0.0/8`. An address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    prefix_bits: u32,
}

impl AddressRules {
    /// Whether nothing is rejected.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.local && !self.ipv6
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: IpAddr) -> Result<(), Rejection> {
        // An IPv4 address in the clothes of IPv6 leads to the same place.
        let address = address.to_canonical();
        if self.ipv6 && address.is_ipv6() {
            return Err(Rejection::Ipv6);
        }
        let is_rejected = self.ranges.iter().any(|range| range.contains(address)) || self.local && !is_public(address);
        if is_rejected { Err(Rejection::Range) } else { Ok(()) }
    }
}

impl AddressRange {
    /// Whether an address lies in it; of IPv4 in its own form.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_prefix(u128::from(network.to_bits()), u128::from(address.to_bits()), 32 - self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(network.to_bits(), address.to_bits(), 128 - self.prefix_bits)
            }
            _ => false,
        }
    }
}

/// Whether two addresses differ in their last bits only. A shift by all bits is none to the processor.
fn same_prefix(left: u128, right: u128, bits: u32) -> bool {
    left.checked_shr(bits) == right.checked_shr(bits)
}

impl FromStr for AddressRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').map_or((text, None), |(network, prefix)| (network, Some(prefix)));
        let network: IpAddr = network.parse().map_err(|_| ())?;
        let bits_max = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits_max), str::parse).map_err(|_| ())?;
        if prefix_bits <= bits_max { Ok(Self { network, prefix_bits }) } else { Err(()) }
    }
}

/// Whether an address is one of a host in the public internet, by the IANA's registries of special addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!((a, b), (0 | 224.., _) | (100, 64..=127) | (198, 18 | 19))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99);
    !is_special
}

/// Only `2000::/3` is given out to hosts; within it some is not, or leads to an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // 6to4: the IPv4 address stands behind.
        [0x2002, high, low, ..] => is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        // Protocols such as Teredo, and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn local_is_all_that_is_not_public() {
        let rules = AddressRules { local: true, ..AddressRules::default() };
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert_eq!(rules.check(ip(address)), Err(Rejection::Range), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2002:101:101::"] {
            assert_eq!(rules.check(ip(address)), Ok(()), "{address}");
        }
    }

    #[test]
    fn ranges_are_written_with_a_prefix_or_as_one_address() {
        let ranges =
            ["10.0.0.0/8", "192.0.2.7", "fd00::/8", "0.0.0.0/0"].map(|text| text.parse::<AddressRange>().unwrap());
        for (range, inside, outside) in [
            (0, "10.255.0.1", "11.0.0.1"),
            (1, "192.0.2.7", "192.0.2.8"),
            (2, "fd12::1", "fe00::1"),
            (3, "9.9.9.9", "::1"),
        ] {
            let rules = AddressRules { ranges: vec![ranges[range]], ..AddressRules::default() };
            assert_eq!(rules.check(ip(inside)), Err(Rejection::Range), "{inside}");
            assert_eq!(rules.check(ip(outside)), Ok(()), "{outside}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "local", "::/129", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<AddressRange>(), Err(()), "{text}");
        }
    }

    #[test]
    fn ipv6_can_be_rejected_as_such() {
        let rules = AddressRules { ipv6: true, ..AddressRules::default() };
        assert_eq!(rules.check(ip("2606:4700::1111")), Err(Rejection::Ipv6));
        assert_eq!(rules.check(ip("::ffff:1.1.1.1")), Ok(()), "an IPv4 address in another form");
        assert!(AddressRules::default().is_empty() && !rules.is_empty());
    }
}
