//! One request to the kernel's routing table: every address of a range is this machine's own
//! (`ip route replace local CIDR dev lo`), so that pods' sockets can be bound to it.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
    recv, sendto, socket_with,
};

use super::Cidr;

/// Adds the route; one that is there already is left as it is.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; what the kernel says otherwise.
pub(crate) fn add_local_route(cidr: Cidr) -> io::Result<()> {
    // Without a protocol it is the first one, NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let request = local_route(cidr);
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 4096];
    let (len, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    acknowledged(&answer[..len])
}

// linux/netlink.h and linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const AF_INET: u8 = 2;
// The loopback device has this number in every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;

fn local_route(cidr: Cidr) -> Vec<u8> {
    let mut body = vec![
        AF_INET,
        cidr.prefix(),
        0,
        0,
        RT_TABLE_LOCAL,
        RTPROT_STATIC,
        RT_SCOPE_HOST,
        RTN_LOCAL,
        // Flags.
        0,
        0,
        0,
        0,
    ];
    let mut attribute = |kind: u16, value: [u8; 4]| {
        body.extend_from_slice(&8_u16.to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.extend_from_slice(&value);
    };
    attribute(RTA_DST, cidr.network().octets());
    attribute(RTA_OIF, LOOPBACK_IFINDEX.to_ne_bytes());
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence and sender: there is one request, and one answer.
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(&body);
    message
}

fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let odd = || io::Error::other("the kernel gave an answer that is none to a new route");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) if code < 0 && code > i32::MIN => {
            Err(io::Error::from_raw_os_error(-code))
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_kernels_layout() {
        let message = local_route("10.244.3.0/24".parse().unwrap());
        assert_eq!(message.len(), 44);
        assert_eq!(message[..4], 44_u32.to_ne_bytes());
        assert_eq!(message[16..24], [2, 24, 0, 0, 255, 4, 254, 2]);
        assert_eq!(message[32..36], [10, 244, 3, 0]);
    }

    #[test]
    fn an_answer_is_an_error_number_or_nonsense() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        acknowledged(&answer(NLMSG_ERROR, 0)).unwrap();
        let denied = acknowledged(&answer(NLMSG_ERROR, -1)).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(acknowledged(&answer(NLMSG_ERROR, i32::MIN)).is_err());
        assert!(acknowledged(&answer(3, 0)).is_err());
        assert!(acknowledged(&[]).is_err());
    }
}
