//! Making UDP sockets with the options the accounting needs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{sys, wire};

/// Sizes of a socket's buffers, in bytes of the kernel's own accounting (which charges a small
/// datagram with some 800 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// `SO_RCVBUF`.
    pub receive_bytes: usize,
    /// `SO_SNDBUF`.
    pub send_bytes: usize,
}

/// Binds a UDP socket for a [`Backend`](crate::Backend): buffers sized, receive timestamps, drop
/// counter and error queue on. May be called on any thread.
///
/// The kernel may grant smaller buffers than asked for when `net.core.rmem_max`/`wmem_max` are low
/// and the process lacks `CAP_NET_ADMIN`; `SO_RCVBUF` tells.
///
/// # Errors
/// What the kernel said; small buffers are not an error.
pub fn bind(address: SocketAddr, buffers: SocketBuffers) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if wire::is_v6(&address) {
        // Sources of a dual-stack socket would come as mapped addresses, which match no candidate.
        socket.set_only_v6(true)?;
    }
    let fd = socket.as_raw_fd();
    let receive_bytes = i32::try_from(buffers.receive_bytes).unwrap_or(i32::MAX);
    if sys::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, receive_bytes).is_err() {
        sys::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, receive_bytes)?;
    }
    let send_bytes = i32::try_from(buffers.send_bytes).unwrap_or(i32::MAX);
    if sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, send_bytes).is_err() {
        sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, send_bytes)?;
    }
    let socket = UdpSocket::from({
        socket.bind(&address.into())?;
        socket
    });
    configure(&socket)?;
    Ok(socket)
}

/// The local address from which the kernel would send to `remote`. Nothing is sent.
///
/// # Errors
/// What the kernel said: mostly that there is no route.
pub fn local_ip_towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Turns on what the accounting needs. Blocking mode, because io_uring ends a multishot receive on
/// a non-blocking socket at once; all our own calls say `MSG_DONTWAIT`.
pub(crate) fn configure(socket: &UdpSocket) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    socket.set_nonblocking(false)?;
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // Without it (Linux before 5.0) every datagram comes alone.
    let _ = sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    queue_error_reports(socket, true)
}

/// Whether the kernel queues reports about undeliverable datagrams, which an unconnected socket
/// hears of in no other way (ip(7), `IP_RECVERR`).
pub(crate) fn queue_error_reports(socket: &UdpSocket, queued: bool) -> io::Result<()> {
    let (level, name) = if wire::is_v6(&socket.local_addr()?) {
        (libc::SOL_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::SOL_IP, libc::IP_RECVERR)
    };
    sys::set_option(socket.as_raw_fd(), level, name, i32::from(queued))
}

/// The error of a call for a socket that is not there.
pub(crate) fn no_such_socket() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no such socket in this backend")
}

/// The error of a backend whose sockets are all taken.
pub(crate) fn too_many_sockets(sockets_max: usize) -> io::Error {
    io::Error::other(format!("all {sockets_max} sockets of this worker are in use (sockets_max)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_loopback_begins_on_loopback() {
        let towards = |text: &str| local_ip_towards(text.parse().unwrap());
        assert_eq!(towards("127.0.0.1:7880").unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        // A link-local address without its link leads nowhere.
        assert!(towards("[fe80::1]:7880").is_err());
    }
}
