//! Sockets that the agent binds for pods, whose users could not bind port 80.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
};

use super::StartError;

// Clients that wait to be accepted while a pod loads its model.
const BACKLOG: i32 = 1024;

/// Binds all addresses, or none.
pub(crate) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<OwnedFd>, StartError> {
    addresses.iter().map(|address| bind_one(*address)).collect()
}

fn bind_one(address: SocketAddr) -> Result<OwnedFd, StartError> {
    let bound = || -> io::Result<OwnedFd> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let tcp = Some(ipproto::TCP);
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, tcp)?;
        // The run before may have left connections in TIME_WAIT.
        set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressTaken { address },
        _ => StartError::AddressUnavailable { address, source },
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_told_from_one_that_is_not_ours() {
        // Where no other test listens, and no connection begins.
        let any: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let sockets = bind_all(&[any]).unwrap();
        let socket = TcpListener::from(sockets[0].try_clone().unwrap());
        let address = socket.local_addr().unwrap();
        drop(socket);
        let error = bind_all(&[any, address]).unwrap_err();
        assert!(matches!(error, StartError::AddressTaken { address: taken } if taken == address));
        // TEST-NET-1 is nobody's.
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        let error = bind_all(&[foreign]).unwrap_err();
        assert!(matches!(error, StartError::AddressUnavailable { .. }), "{error}");
        drop(sockets);
        bind_all(&[address]).unwrap();
    }
}
