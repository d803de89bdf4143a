//! Socket addresses and control messages as the kernel lays them out, as plain bytes.
//!
//! Everything here is safe code over byte slices: what the kernel wrote is parsed, never cast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for one socket address (`sockaddr_in6` is 28 bytes), kept a multiple of 8.
pub(crate) const NAME_BYTES: usize = 32;
/// Room for the control messages of one receive: `SCM_TIMESTAMPNS` (32), `SO_RXQ_OVFL` (24),
/// `UDP_GRO` (24) and some slack.
pub(crate) const CONTROL_BYTES: usize = 96;
/// Room for the payload of one receive. The kernel keeps a segment run below 64 KiB
/// (`skb_gro_receive`, net/core/gro.c), as one datagram must be.
pub(crate) const SEGMENT_RUN_BYTES_MAX: usize = 1 << 16;

/// `struct cmsghdr` of the kernel: `size_t cmsg_len; int cmsg_level; int cmsg_type;`.
const CONTROL_HEADER_BYTES: usize = size_of::<usize>() + 8;
/// Bytes of the control message that asks for UDP segmentation: header and a padded `u16`.
pub(crate) const SEGMENT_CONTROL_BYTES: usize = CONTROL_HEADER_BYTES + size_of::<usize>();

/// A socket address in the kernel's layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    pub(crate) bytes: [u8; NAME_BYTES],
    pub(crate) len: u32,
}

/// Encodes an address as `sockaddr_in` or `sockaddr_in6`.
pub(crate) fn encode_name(address: &SocketAddr) -> Name {
    let mut bytes = [0; NAME_BYTES];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    let len = match address {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            size_of::<libc::sockaddr_in6>()
        }
    };
    Name { bytes, len: len as u32 }
}

/// Parses a `sockaddr_in` or `sockaddr_in6`; anything else is `None`.
pub(crate) fn parse_name(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)))
        }
        libc::AF_INET6 => {
            let flowinfo = u32_at(bytes, 4)?;
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope_id = u32_at(bytes, 24)?;
            let ip = Ipv6Addr::from(octets);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flowinfo, scope_id)))
        }
        _ => None,
    }
}

/// Whether a receive did not fit, by its `msg_flags`: without its control messages a segment run
/// can't be cut apart.
pub(crate) fn is_cut(flags: i32) -> bool {
    flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0
}

/// What the control messages of a receive say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// `SCM_TIMESTAMPNS`: nanoseconds since the Unix epoch.
    pub(crate) unix_ns: Option<u64>,
    /// `SO_RXQ_OVFL`: the socket's cumulative drop counter, wrapping at 2^32. The kernel leaves it
    /// out as long as it is zero.
    pub(crate) drops: Option<u32>,
    /// `UDP_GRO`: the payload is a segment run of datagrams of this length; the last may be
    /// shorter.
    pub(crate) segment_bytes: Option<u16>,
}

/// Parses the control messages of a receive; unknown and malformed ones are skipped.
pub(crate) fn parse_control(bytes: &[u8]) -> Control {
    let mut control = Control::default();
    for (level, kind, data) in ControlMessages(bytes) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => control.unix_ns = parse_timespec(data),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => control.drops = u32_at(data, 0),
            // An `int`, though a length of 16 bits.
            (libc::SOL_UDP, libc::UDP_GRO) => {
                control.segment_bytes = u32_at(data, 0).and_then(|bytes| bytes.try_into().ok());
            }
            _ => {}
        }
    }
    control
}

/// `N` bytes from `at` on, where there are as many.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// A number in the kernel's own byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

/// A `struct timespec` of 64-bit or 32-bit longs.
fn parse_timespec(data: &[u8]) -> Option<u64> {
    let (seconds, nanos) = match data.len() {
        16.. => (
            i64::from_ne_bytes(data[..8].try_into().ok()?),
            i64::from_ne_bytes(data[8..16].try_into().ok()?),
        ),
        8.. => (
            i64::from(i32::from_ne_bytes(data[..4].try_into().ok()?)),
            i64::from(i32::from_ne_bytes(data[4..8].try_into().ok()?)),
        ),
        _ => return None,
    };
    let seconds = u64::try_from(seconds).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(nanos).ok()?)
}

/// The origin (`ee_origin`) and errno of an error-queue entry (`struct sock_extended_err`),
/// which comes as `IP_RECVERR` or `IPV6_RECVERR`.
pub(crate) fn parse_extended_error(bytes: &[u8]) -> Option<(u8, i32)> {
    ControlMessages(bytes).find_map(|(level, kind, data)| {
        let wanted = (level == libc::SOL_IP && kind == libc::IP_RECVERR)
            || (level == libc::SOL_IPV6 && kind == libc::IPV6_RECVERR);
        let errno = u32_at(data, 0)?;
        wanted.then_some((*data.get(4)?, errno as i32))
    })
}

/// The control message that asks the kernel to cut a send into datagrams of `segment_bytes`
/// (`UDP_SEGMENT`, udp(7)).
pub(crate) fn encode_segment(segment_bytes: u16) -> [u8; SEGMENT_CONTROL_BYTES] {
    const SIZE: usize = size_of::<usize>();
    let mut bytes = [0; SEGMENT_CONTROL_BYTES];
    bytes[..SIZE].copy_from_slice(&(CONTROL_HEADER_BYTES + 2).to_ne_bytes());
    bytes[SIZE..SIZE + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    bytes[SIZE + 4..SIZE + 8].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    bytes[SIZE + 8..SIZE + 10].copy_from_slice(&segment_bytes.to_ne_bytes());
    bytes
}

/// Walks the control messages in a buffer: level, type, data. Stops at the first malformed one.
struct ControlMessages<'a>(&'a [u8]);

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const SIZE: usize = size_of::<usize>();
        let len = usize::from_ne_bytes(self.0.get(..SIZE)?.try_into().ok()?);
        let level = i32::from_ne_bytes(self.0.get(SIZE..SIZE + 4)?.try_into().ok()?);
        let kind = i32::from_ne_bytes(self.0.get(SIZE + 4..SIZE + 8)?.try_into().ok()?);
        let data = self.0.get(CONTROL_HEADER_BYTES..len)?;
        let aligned = len.checked_next_multiple_of(SIZE)?;
        self.0 = self.0.get(aligned..).unwrap_or(&[]);
        Some((level, kind, data))
    }
}

/// Whether a socket of this address is IPv6.
pub(crate) fn is_v6(address: &SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (CONTROL_HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    fn timespec(seconds: i64, nanos: i64) -> Vec<u8> {
        [seconds.to_ne_bytes(), nanos.to_ne_bytes()].concat()
    }

    #[test]
    fn control_with_timestamp_drops_and_segment_is_parsed() {
        let mut bytes = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &timespec(3, 7));
        bytes.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()));
        bytes.extend(message(libc::SOL_UDP, libc::UDP_GRO, &1_200i32.to_ne_bytes()));
        assert!(bytes.len() <= CONTROL_BYTES);
        let control = parse_control(&bytes);
        let all = (Some(3_000_000_007), Some(9), Some(1_200));
        assert_eq!((control.unix_ns, control.drops, control.segment_bytes), all);
    }

    #[test]
    fn foreign_control_messages_are_skipped() {
        let mut bytes = message(libc::SOL_IP, libc::SO_RXQ_OVFL, &1u32.to_ne_bytes());
        bytes.extend(message(libc::SOL_SOCKET, 12_345, &[1, 2, 3]));
        bytes.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &5u32.to_ne_bytes()));
        assert_eq!(parse_control(&bytes), Control { drops: Some(5), ..Control::default() });
    }

    #[test]
    fn a_negative_or_short_timestamp_is_none() {
        let negative = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &timespec(-1, 0));
        assert_eq!(parse_control(&negative).unix_ns, None);
        let short = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[0; 4]);
        assert_eq!(parse_control(&short).unix_ns, None);
    }

    #[test]
    fn a_message_longer_than_the_buffer_ends_the_walk() {
        let mut bytes = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &5u32.to_ne_bytes());
        bytes[..size_of::<usize>()].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(parse_control(&bytes), Control::default());
    }

    #[test]
    fn an_icmp_error_is_told_from_a_local_one() {
        let mut data = libc::ECONNREFUSED.to_ne_bytes().to_vec();
        data.extend([libc::SO_EE_ORIGIN_ICMP, 3, 3, 0]);
        let bytes = message(libc::SOL_IP, libc::IP_RECVERR, &data);
        let wanted = Some((libc::SO_EE_ORIGIN_ICMP, libc::ECONNREFUSED));
        assert_eq!(parse_extended_error(&bytes), wanted);
        assert_eq!(parse_extended_error(&[]), None);
    }

    #[test]
    fn the_segment_message_reads_back() {
        let bytes = encode_segment(1_200);
        let (level, kind, data) = ControlMessages(&bytes).next().unwrap();
        assert_eq!((level, kind), (libc::SOL_UDP, libc::UDP_SEGMENT));
        assert_eq!(data, 1_200u16.to_ne_bytes());
    }

    #[test]
    fn a_unix_socket_address_is_refused() {
        assert_eq!(parse_name(&[1, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_control_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            parse_control(&bytes);
            parse_extended_error(&bytes);
            parse_name(&bytes);
        }

        #[test]
        fn addresses_survive_the_round_trip(ip in any::<IpAddr>(), port in any::<u16>()) {
            let address = SocketAddr::new(ip, port);
            let name = encode_name(&address);
            prop_assert_eq!(parse_name(&name.bytes[..name.len as usize]), Some(address));
        }
    }
}
