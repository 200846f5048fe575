//! Whose connection it is: the address that a limit counts. Pure.
//!
//! ```text
//! peer not trusted --> the peer          peer trusted --> N-th entry of X-Forwarded-For from its end
//! ```
//! Each trusted proxy appends the address that it saw, so what a client wrote itself stands further left
//! than the N-th entry and is never looked at.
//!
//! Source: fault model, row SEC11.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The other end of a request's connection: a client, or a proxy.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// A network, as `address/bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    addr: IpAddr,
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.parse().ok()?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (bits <= most).then_some(Self { addr, bits })
    }

    fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(addr)) => {
                let differ = u32::from(own) ^ u32::from(addr);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(addr)) => {
                let differ = u128::from(own) ^ u128::from(addr);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The proxies that are believed, and how many of them stand before a client.
#[derive(Clone, Debug)]
pub struct Proxies {
    trusted: Vec<Network>,
    /// 1 or more.
    hops: usize,
}

impl Default for Proxies {
    /// None is trusted.
    fn default() -> Self {
        Self { trusted: Vec::new(), hops: 1 }
    }
}

impl Proxies {
    /// Reads the list of `--trusted-proxies`: networks as `10.0.0.0/8`, or single addresses. `hops` is the
    /// entry of X-Forwarded-For that counts, from its end.
    ///
    /// # Errors
    /// The entry that is none of these.
    pub fn parse<S: AsRef<str>>(list: &[S], hops: usize) -> Result<Self, String> {
        let network = |entry: &S| {
            let entry = entry.as_ref();
            Network::parse(entry)
                .ok_or_else(|| format!("{entry:?} is no network; 10.0.0.0/8, fd00::/8 or 192.0.2.1 is"))
        };
        Ok(Self { trusted: list.iter().map(network).collect::<Result<_, _>>()?, hops: hops.max(1) })
    }

    /// The client of a request that came from `peer` with these X-Forwarded-For lines, in their order. A
    /// trusted proxy that names nobody there counts itself.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a [u8]>) -> Client {
        let peer = peer.to_canonical();
        if !self.trusted.iter().any(|network| network.contains(peer)) {
            return Client::of(peer);
        }
        let entries = forwarded.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        let named = entries.map(|entry| std::str::from_utf8(entry).ok().and_then(read)).nth(self.hops - 1);
        Client::of(named.flatten().unwrap_or(peer))
    }
}

/// An entry of X-Forwarded-For: an address, perhaps with a port, a zone or brackets.
fn read(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    if let Ok(addr) = entry.parse::<SocketAddr>() {
        return Some(addr.ip());
    }
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let bare = bare.split_once('%').map_or(bare, |(addr, _zone)| addr);
    bare.parse().ok()
}

/// Who counts as one: an IPv4 address, or the /64 network of an IPv6 address, as one home or one machine
/// has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    pub(super) fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => Self(addr.into()),
            IpAddr::V6(addr) => Self(Ipv6Addr::from(u128::from(addr) >> 64 << 64).into()),
        }
    }
}

impl Default for Client {
    /// Nobody in particular.
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(addr) => addr.fmt(f),
            IpAddr::V6(addr) => write!(f, "{addr}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(trusted: &[&str], hops: usize, peer: &str, lines: &[&str]) -> String {
        let proxies = Proxies::parse(trusted, hops).expect("a good list");
        proxies.client(peer.parse().expect("an address"), lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn sec11_only_trusted_proxies_are_believed() {
        assert_eq!(client(&[], 1, "192.0.2.9", &["198.51.100.7"]), "192.0.2.9");
        assert_eq!(client(&["10.0.0.0/8"], 1, "192.0.2.9", &["198.51.100.7"]), "192.0.2.9");
        assert_eq!(client(&["10.0.0.0/8"], 1, "10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["10.0.0.0/8"], 1, "::ffff:10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["fd00::/8"], 1, "fd00::1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["0.0.0.0/0"], 1, "192.0.2.9", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn sec11_the_nth_entry_from_the_end_counts_over_all_lines() {
        let lines = ["1.1.1.1, 2.2.2.2", "3.3.3.3"];
        assert_eq!(client(&["10.0.0.1"], 1, "10.0.0.1", &lines), "3.3.3.3");
        assert_eq!(client(&["10.0.0.1"], 2, "10.0.0.1", &lines), "2.2.2.2");
        assert_eq!(client(&["10.0.0.1"], 3, "10.0.0.1", &lines), "1.1.1.1");
        assert_eq!(client(&["10.0.0.1"], 4, "10.0.0.1", &lines), "10.0.0.1", "nobody is named there");
    }

    #[test]
    fn sec11_forms_of_one_address_are_one_client_and_ipv6_counts_by_its_64() {
        let one = |entry| client(&["10.0.0.1"], 1, "10.0.0.1", &[entry]);
        for entry in ["198.51.100.7", " 198.51.100.7 ", "198.51.100.7:4711", "::ffff:198.51.100.7"] {
            assert_eq!(one(entry), "198.51.100.7", "{entry}");
        }
        for entry in ["2001:db8:1:2::1", "[2001:db8:1:2::9]", "[2001:db8:1:2:ffff::]:443", "2001:db8:1:2::1%eth0"] {
            assert_eq!(one(entry), "2001:db8:1:2::/64", "{entry}");
        }
        for garbage in ["", "unknown", "_hidden", "1.2.3", "300.1.1.1", "\u{1F600}"] {
            assert_eq!(one(garbage), "10.0.0.1", "{garbage}");
        }
    }

    #[test]
    fn a_bad_network_is_named() {
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "proxy"] {
            assert!(Proxies::parse(&[bad], 1).is_err_and(|problem| problem.contains(bad)), "{bad}");
        }
    }

    fn forged() -> impl Strategy<Value = Vec<String>> {
        let entry = prop_oneof![
            "[0-9.]{0,20}",
            "[0-9a-f:%\\[\\]]{0,40}",
            ".{0,30}",
            Just("203.0.113.1".to_owned()),
            Just(String::new()),
        ];
        prop_oneof![proptest::collection::vec(entry.clone(), 0..20), proptest::collection::vec(entry, 9_990..10_000)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sec11_what_a_client_forges_never_changes_its_key(
            forged in forged(), hops in 1usize..4, lines in any::<bool>(), client: u32, proxy in 0u32..0xff_ffff,
        ) {
            let client = IpAddr::V4(client.into());
            let peer = IpAddr::V4((10 << 24 | proxy).into());
            let proxies = Proxies::parse(&["10.0.0.0/8"], hops).expect("a good list");
            // The first proxy appends the client, each further one the proxy before it.
            let mut honest = vec![client.to_string()];
            honest.extend((1..hops).map(|n| format!("10.0.0.{n}")));
            let texts = if lines {
                vec![forged.join(","), honest.join(", ")]
            } else {
                vec![forged.into_iter().chain(honest).collect::<Vec<_>>().join(", ")]
            };
            let key = proxies.client(peer, texts.iter().map(|text| text.as_bytes()));
            prop_assert_eq!(key, Client::of(client));
            // From a stranger nothing counts.
            let stranger = IpAddr::V4([192, 0, 2, 1].into());
            prop_assert_eq!(proxies.client(stranger, texts.iter().map(|text| text.as_bytes())), Client::of(stranger));
        }
    }
}
