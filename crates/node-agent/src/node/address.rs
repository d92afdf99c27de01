//! The node's own address: the one that the route to the API server leaves from, never loopback.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
};

/// No address was found; one must be given.
#[derive(Debug, thiserror::Error)]
#[error("no address of this machine leads to {server}: give one with --node-ip")]
pub struct NoAddress {
    server: String,
}

/// The address under which this machine reaches `host:port`. When that is a loopback address, as
/// beside a local control plane, the one of the default route, else the first that the machine has.
///
/// # Errors
/// [`NoAddress`].
pub fn towards(host: &str, port: u16) -> Result<IpAddr, NoAddress> {
    let server = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
    // TEST-NET-1: nothing is sent, the kernel only picks a route.
    let default = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    server
        .into_iter()
        .chain([default])
        .filter_map(source_towards)
        .find(|address| usable(*address))
        .or_else(first_of_machine)
        .ok_or_else(|| NoAddress { server: format!("{host}:{port}") })
}

/// Whether pods and the API server may be told this address.
pub fn usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    // Connecting a UDP socket sends nothing; it only fixes the route.
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn first_of_machine() -> Option<IpAddr> {
    let text = fs::read_to_string("/proc/net/fib_trie").ok()?;
    local_addresses(&text).into_iter().map(IpAddr::from).find(|address| usable(*address))
}

/// The machine's own addresses in the kernel's table of routes: a line with an address, then one
/// that says `/32 host LOCAL`.
fn local_addresses(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.trim() == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_its_like_are_never_told() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
        ] {
            assert!(!usable(text.parse().expect("an address")), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.2", "fd00::1"] {
            assert!(usable(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn own_addresses_are_found_in_the_route_table() {
        let text = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 127.0.0.0/31 1 0 0\n        |-- 127.0.0.0\n           /8 host LOCAL\n        |-- 127.0.0.1\n           /32 host LOCAL\n     |-- 10.7.0.0\n        /24 link UNICAST\n     |-- 10.7.0.9\n        /32 host LOCAL\n     |-- 10.7.0.255\n        /32 link BROADCAST\n";
        let found: Vec<_> = local_addresses(text).into_iter().map(|a| a.to_string()).collect();
        assert_eq!(found, ["10.7.0.9", "127.0.0.1"]);
    }

    #[test]
    fn a_local_api_server_gives_no_loopback_address() {
        match towards("127.0.0.1", 6443) {
            Ok(address) => assert!(usable(address), "{address}"),
            // A machine with loopback only.
            Err(error) => assert!(error.to_string().contains("--node-ip"), "{error}"),
        }
    }
}
