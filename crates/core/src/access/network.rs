//! Networks of clients: of robots, of grants with conditions, of proxies that are believed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network, as in `10.0.0.0/8`: an address and how many of its first bits count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// All other bits are 0.
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network; write an address with the length of its prefix, such as 10.0.0.0/8 or fd00::/8, or a single address"
)]
pub struct NetworkError(String);

impl Network {
    /// Whether the address lies in it. An IPv4 address is itself also when it is written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        cut(address.to_canonical(), self.bits) == Some(self.address)
    }
}

/// An address without what follows its first bits; `None` when it has fewer.
fn cut(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    Some(match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX
                .checked_shl(128_u32.checked_sub(bits)?)
                .unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    })
}

/// What counts as one client: its address, of IPv6 the network of 64 bits, since its host can choose the rest for each request.
pub(crate) fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.into());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let widest = if written.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
            None => widest,
        };
        // IPv4 in the form of IPv6.
        let (address, bits) = match written.to_canonical() {
            address if address.is_ipv4() && written.is_ipv6() && bits >= 96 => (address, bits - 96),
            _ => (written, bits),
        };
        let address = cut(address, bits).ok_or_else(wrong)?;
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where one may come from; without any network, everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether a client with this address may come; one whose address is not known only if everybody may.
    pub fn admit(&self, address: Option<IpAddr>) -> bool {
        self.0.is_empty()
            || address.is_some_and(|address| self.0.iter().any(|network| network.contains(address)))
    }
}

impl FromStr for Networks {
    type Err = NetworkError;

    /// Separated by commas; a bare address is that one alone.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parts = text.split(',').map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_hold_their_addresses_only() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "203.0.113.7", "::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network}");
            assert!(!network.contains(outside.parse().unwrap()), "{network}");
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "ten",
            "::/129",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        let networks: Networks = "10.1.0.0/16, fd00::/8,192.0.2.7".parse().unwrap();
        assert_eq!(networks.to_string(), "10.1.0.0/16,fd00::/8,192.0.2.7/32");
        for (address, admitted) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.0.1", true),
            ("fd12::1", true),
            ("fe80::1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::", false),
        ] {
            assert_eq!(
                networks.admit(Some(address.parse().unwrap())),
                admitted,
                "{address}"
            );
        }
        assert!(!networks.admit(None), "an unknown address is in no network");
        assert!(Networks::default().admit(None));
        let all: Networks = "0.0.0.0/0".parse().unwrap();
        assert!(
            all.admit(Some("1.2.3.4".parse().unwrap())) && !all.admit(Some("::1".parse().unwrap()))
        );
        for broken in [
            "x",
            "10.0.0.0/33",
            "10.0.0.0/",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
        ] {
            let error = broken.parse::<Networks>().unwrap_err().to_string();
            assert!(
                error.contains(broken) && error.contains("10.0.0.0/8"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn printed_networks_parse_to_themselves(ip: u32, len in 0u8..=32, high: u128, long in 0u8..=128) {
            let v4: Network = format!("{}/{len}", std::net::Ipv4Addr::from_bits(ip)).parse().unwrap();
            prop_assert_eq!(v4.to_string().parse::<Network>().unwrap(), v4);
            let v6: Network = format!("{}/{long}", Ipv6Addr::from_bits(high)).parse().unwrap();
            prop_assert_eq!(v6.to_string().parse::<Network>().unwrap(), v6);
        }
    }
}
