//! Packet sockets with a ring of received packets (packet(7), `TPACKET_V3`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{check, set_option};

/// linux/net_tstamp.h: the stamp the kernel gave the packet, which sockets report, too.
const SOF_TIMESTAMPING_SOFTWARE: i32 = 1 << 4;

/// A packet socket that receives nothing before [`listen`]: with link layer headers, and a
/// `virtio_net_hdr` before each.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let option = |name, value| set_option(fd, libc::SOL_PACKET, name, value);
    option(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as i32)?;
    option(libc::PACKET_VNET_HDR, 1)?;
    option(libc::PACKET_TIMESTAMP, SOF_TIMESTAMPING_SOFTWARE)?;
    Ok(socket)
}

/// Gives it a ring of `blocks` blocks. One with anything in it is handed over `retire_ms` after its
/// first packet at the latest.
pub(crate) fn make_ring(
    socket: &OwnedFd,
    blocks: u32,
    block_bytes: u32,
    retire_ms: u32,
) -> io::Result<()> {
    // Frames mean nothing in this version, but have to add up.
    const FRAME_BYTES: u32 = 2_048;
    let request = libc::tpacket_req3 {
        tp_block_size: block_bytes,
        tp_block_nr: blocks,
        tp_frame_size: FRAME_BYTES,
        tp_frame_nr: blocks * (block_bytes / FRAME_BYTES),
        tp_retire_blk_tov: retire_ms,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    // SAFETY: the pointer and length describe `request`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_RX_RING,
            (&raw const request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Starts to receive IPv4 packets that arrive, of all devices.
pub(crate) fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: a sockaddr_ll is plain old data, for which zeroes are valid ("any").
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// What a ring was given since the last time it was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statistics {
    /// Packets put into it.
    pub(crate) received: u32,
    /// Packets dropped because it was full.
    pub(crate) dropped: u32,
}

/// Asks the kernel, which starts to count again.
pub(crate) fn take_statistics(socket: &OwnedFd) -> io::Result<Statistics> {
    // `tpacket_stats_v3`: packets with the dropped ones, drops, times the ring was frozen.
    let mut statistics = [0u32; 3];
    let mut len = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the pointer and `len` describe `statistics`; the kernel writes at most `len` bytes.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    let [packets, dropped, _] = statistics;
    Ok(Statistics { received: packets.wrapping_sub(dropped), dropped })
}
