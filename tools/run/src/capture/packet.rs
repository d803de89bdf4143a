//! A captured packet as it would have been on the wire without SRTP: IP, UDP, RTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use stampede_core::CapturedPacket;

const UDP_BYTES: usize = 8;
const RTP_BYTES: usize = 12;
const UDP_PROTOCOL: u8 = 17;
const HOPS: u8 = 64;
const RTP_VERSION_2: u8 = 0x80;

/// The packet from `from` to `to`, and how long it would be with its payload.
pub(super) fn datagram(
    packet: &CapturedPacket,
    from: SocketAddr,
    to: SocketAddr,
) -> (Vec<u8>, usize) {
    let udp_bytes = UDP_BYTES + RTP_BYTES + packet.payload_bytes;
    let mut bytes = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_header(from, to, udp_bytes),
        (from, to) => ipv6_header(from, to, udp_bytes),
    };
    let original_bytes = bytes.len() + udp_bytes;
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend((udp_bytes as u16).to_be_bytes());
    // No checksum: there never was one of the decrypted packet.
    bytes.extend(0u16.to_be_bytes());
    bytes.push(RTP_VERSION_2);
    bytes.push(u8::from(packet.marker) << 7 | packet.payload_type & 0x7f);
    bytes.extend(packet.sequence.to_be_bytes());
    bytes.extend(packet.timestamp.to_be_bytes());
    bytes.extend(packet.ssrc.to_be_bytes());
    bytes.extend(&packet.payload);
    (bytes, original_bytes)
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, inside: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(((inside + 20) as u16).to_be_bytes());
    // No identification; don't fragment.
    header.extend([0, 0, 0x40, 0, HOPS, UDP_PROTOCOL, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let words = header.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    header
}

fn ipv6_header(from: IpAddr, to: IpAddr, inside: usize) -> Vec<u8> {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip).octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((inside as u16).to_be_bytes());
    header.extend([UDP_PROTOCOL, HOPS]);
    header.extend(octets(from));
    header.extend(octets(to));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_checks_out() {
        let header = ipv4_header(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), 100);
        let words = header.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!((header.len(), header[3]), (20, 120));
    }
}
