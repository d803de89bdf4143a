//! What the kernel writes into receive slots, written by hand (under Miri, too), and who waits to be
//! read.

use super::*;

/// Writes into a slot what `recvmmsg` writes: lengths, flags and so much payload.
fn written(receive: &mut ReceiveSlots, slot: usize, control_len: usize, payload: &[u8]) {
    let header = receive.header(slot);
    // SAFETY: inside the mapping, and nobody refers to it.
    let message = unsafe { &mut *header };
    message.msg_len = payload.len() as u32;
    let name = wire::encode_name(&SocketAddr::from(([127, 0, 0, 1], 9)));
    message.msg_hdr.msg_namelen = name.len;
    message.msg_hdr.msg_controllen = control_len as _;
    // SAFETY: the name, the control messages and the payload lie where the header says, in memory
    // that lives as long as `receive`, and are no longer than it says.
    unsafe {
        let hdr = &message.msg_hdr;
        hdr.msg_name.cast::<u8>().copy_from_nonoverlapping(name.bytes.as_ptr(), name.len as usize);
        hdr.msg_control.cast::<u8>().write_bytes(0, control_len.min(CONTROL_BYTES));
        let part = &*hdr.msg_iov;
        assert!(payload.len() <= part.iov_len);
        part.iov_base.cast::<u8>().copy_from_nonoverlapping(payload.as_ptr(), payload.len());
    }
}

#[test]
fn each_receive_slot_has_its_own_room_and_is_fit_for_the_next_use() {
    let mut receive = ReceiveSlots::new(3).unwrap();
    for round in 0..2 {
        for slot in 0..3 {
            written(&mut receive, slot, CONTROL_BYTES, &[slot as u8 + round; 100]);
        }
        for slot in 0..3 {
            let message = receive.take(slot);
            assert_eq!(wire::parse_name(message.name), Some(([127, 0, 0, 1], 9).into()));
            assert_eq!((message.len, message.cut), (100, false));
            // SAFETY: inside the mapping, and nobody refers to it.
            let header = unsafe { &*receive.header(slot) };
            assert_eq!(header.msg_hdr.msg_namelen as usize, NAME_BYTES);
            assert_eq!(header.msg_hdr.msg_controllen, CONTROL_BYTES);
        }
        for slot in 0..3 {
            assert_eq!(receive.payload(slot, 0, 100), [slot as u8 + round; 100]);
            assert_eq!(receive.payload(slot, 99, 1), [slot as u8 + round]);
        }
    }
}

#[test]
fn lengths_that_no_kernel_says_stay_inside_of_the_slot() {
    let mut receive = ReceiveSlots::new(2).unwrap();
    written(&mut receive, 1, usize::MAX, &[7; 10]);
    // SAFETY: inside the mapping, and nobody refers to it.
    unsafe { (*receive.header(1)).msg_len = u32::MAX };
    let message = receive.take(1);
    assert_eq!((message.control.len(), message.len), (CONTROL_BYTES, SEGMENT_RUN_BYTES_MAX));
    assert_eq!(receive.payload(1, SEGMENT_RUN_BYTES_MAX - 1, 2).len(), 1);
    assert_eq!(receive.payload(1, usize::MAX, 2).len(), 0);
}

/// Polls for one datagram, and says of which socket it is.
fn one(backend: &mut Mmsg) -> SocketId {
    let wait = Wait { timeout: Duration::from_secs(5), gather: Duration::ZERO, datagrams_max: 1 };
    assert_eq!(backend.poll(wait).unwrap(), 1);
    backend.batch()[0].socket
}

#[test]
#[cfg_attr(miri, ignore = "it needs sockets")]
fn an_id_that_is_used_again_while_it_waits_waits_once() {
    let limits = BackendLimits { sockets_max: 2, ..probe::LIMITS };
    let mut backend = Mmsg::new(&limits).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let add = |backend: &mut Mmsg| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let id = backend.add_socket(socket).unwrap();
        (0..3).for_each(|_| assert_eq!(sender.send_to(&[1], address).unwrap(), 1));
        id
    };
    let (first, second) = (add(&mut backend), add(&mut backend));
    assert_eq!(one(&mut backend), first);
    assert_eq!(backend.ready.len(), 2, "both have more");
    backend.remove_socket(first);
    // The id is free with the next batch, and still waits.
    assert_eq!(one(&mut backend), second);
    assert_eq!(add(&mut backend), first, "the same id");
    for _ in 0..2 {
        one(&mut backend);
        assert!(backend.ready.len() <= 2, "{:?}", backend.ready);
    }
}
