//! The ring and the memory the kernel uses behind it: with [`buffers`](super::buffers) all the
//! `unsafe` of the io_uring backend.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{self, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode};

use crate::memory::PageMemory;
use crate::segment_run::Message;
use crate::send::RawSend;
use crate::wire::{CONTROL_BYTES, NAME_BYTES};

use super::buffers::BufferRing;
use super::kernel::{Completion, Kernel};

/// The one buffer group: all sockets receive into the same ring of buffers.
const BUFFER_GROUP: u16 = 0;
/// Entries of the submission queue; a full one is submitted and goes on.
const SUBMISSIONS_MAX: u32 = 1024;
/// Entries of the completion queue beyond the buffers: every socket can end its receive at the
/// same moment. More sockets than this use the kernel's own overflow list, which loses nothing
/// (`IORING_FEAT_NODROP`); the overflow counter is watched in any case.
const ENDINGS_MAX: usize = 8192;
/// Tries to get submissions taken by a kernel short of memory before giving up.
const SUBMIT_TRIES_MAX: usize = 1000;

/// Memory the kernel may touch while requests are in flight.
struct Shared {
    buffers: BufferRing,
    /// The template of every multishot receive: room for name and control messages.
    template: PageMemory,
    /// What the read of the waker's eventfd fills.
    wake_count: PageMemory,
}

/// An io_uring with a ring of receive buffers. For the thread that made it only
/// (`IORING_SETUP_SINGLE_ISSUER`); its raw pointers keep it from being `Send`.
pub(crate) struct Ring {
    uring: IoUring,
    shared: ManuallyDrop<Shared>,
    syscalls: u64,
}

impl Ring {
    /// `buffers` is a power of two up to 32,768.
    pub(crate) fn new(buffers: usize, sockets: usize, sends: usize) -> io::Result<Self> {
        let completions = buffers + sockets.min(ENDINGS_MAX) + sends + 64;
        // The kernel wants at least as many completions as submissions.
        let completions = completions.max(SUBMISSIONS_MAX as usize);
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions.next_power_of_two() as u32)
            .build(SUBMISSIONS_MAX)?;
        if !uring.params().is_feature_nodrop() || !uring.params().is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let shared = Shared {
            buffers: BufferRing::new(buffers)?,
            template: PageMemory::new(size_of::<libc::msghdr>())?,
            wake_count: PageMemory::new(8)?,
        };
        let template = shared.template.at(0).cast::<libc::msghdr>();
        // SAFETY: a page-aligned mapping as large as a msghdr, for which zeroes are valid; nothing
        // else refers to it yet.
        unsafe {
            (*template).msg_namelen = NAME_BYTES as u32;
            (*template).msg_controllen = CONTROL_BYTES as _;
        }
        let shared = ManuallyDrop::new(shared);
        let mut ring = Self { uring, shared, syscalls: 0 };
        let buffers = &mut ring.shared.buffers;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and is unmapped only after
        // the ring is gone (see `drop`).
        unsafe {
            ring.uring.submitter().register_buf_ring_with_flags(
                buffers.address(),
                buffers.count(),
                BUFFER_GROUP,
                0,
            )?;
        }
        for buffer in 0..buffers.count() {
            buffers.recycle(buffer);
        }
        buffers.publish();
        ring.uring.submitter().register_files_sparse(sockets as u32)?;
        Ok(ring)
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every pointer in an entry is into `shared`, which outlives every request (see
        // `Drop`), or into a send queue, whose memory outlives the submission of its sends (see
        // `send`).
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }
}

impl Kernel for Ring {
    fn set_file(&mut self, index: u32, fd: RawFd) -> io::Result<()> {
        self.syscalls += 1;
        self.uring.submitter().register_files_update(index, &[fd]).map(drop)
    }

    fn recycle(&mut self, buffer: u16) {
        self.shared.buffers.recycle(buffer);
    }

    fn publish(&mut self) {
        self.shared.buffers.publish();
    }

    fn receive(&mut self, index: u32, user_data: u64) -> io::Result<()> {
        let template = self.shared.template.at(0).cast::<libc::msghdr>();
        let entry = opcode::RecvMsgMulti::new(Fixed(index), template, BUFFER_GROUP).build();
        self.push(entry.user_data(user_data))
    }

    fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(target).build().flags(Flags::SKIP_SUCCESS);
        self.push(entry.user_data(user_data))
    }

    fn read_wake(&mut self, eventfd: &File, user_data: u64) -> io::Result<()> {
        let target = self.shared.wake_count.at(0);
        let entry = opcode::Read::new(Fd(eventfd.as_raw_fd()), target, 8).build();
        self.push(entry.user_data(user_data))
    }

    fn poll_readable(&mut self, fd: &OwnedFd, user_data: u64) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(entry.user_data(user_data))
    }

    fn send(&mut self, index: u32, send: &RawSend, user_data: u64) -> io::Result<()> {
        let flags = libc::MSG_DONTWAIT;
        let entry = match send {
            RawSend::One { data, len, name, name_len } => {
                opcode::Send::new(Fixed(index), *data, *len)
                    .flags(flags)
                    .dest_addr(name.cast())
                    .dest_addr_len(*name_len)
                    .build()
            }
            RawSend::SegmentRun { header } => {
                opcode::SendMsg::new(Fixed(index), *header).flags(flags as u32).build()
            }
        };
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(user_data))
    }

    fn has_submissions(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    fn submit(&mut self) -> io::Result<()> {
        for _ in 0..SUBMIT_TRIES_MAX {
            let waiting = self.uring.submission().len();
            if waiting == 0 {
                return Ok(());
            }
            self.syscalls += 1;
            // SAFETY: the plain form of io_uring_enter: no argument, no flags.
            let result = unsafe {
                self.uring.submitter().enter::<libc::sigset_t>(waiting as u32, 0, 0, None)
            };
            match result.map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(Some(code)) => return Err(io::Error::from_raw_os_error(code)),
                Err(None) => return Err(io::Error::other("io_uring_enter failed")),
            }
        }
        Err(io::Error::other("io_uring takes no more requests; the kernel is out of memory"))
    }

    fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    fn wait(&mut self, want: usize, timeout: Duration) -> io::Result<()> {
        let time = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&time);
        self.syscalls += 1;
        match self.uring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn complete(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        let queue = self.uring.completion();
        if queue.overflow() > 0 {
            return Err(io::Error::other("the io_uring completion queue lost completions"));
        }
        out.extend(queue.map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            buffer: io_uring::cqueue::buffer_select(entry.flags()),
            more: io_uring::cqueue::more(entry.flags()),
        }));
        Ok(())
    }

    fn message(&self, buffer: u16, result: u32) -> Option<Message<'_>> {
        self.shared.buffers.message(buffer, result)
    }

    fn payload(&self, buffer: u16, offset: usize, len: usize) -> &[u8] {
        self.shared.buffers.payload(buffer, offset, len)
    }

    fn syscalls(&self) -> u64 {
        self.syscalls
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel ends requests some time after the ring is closed; so end them now, and only
        // then give the memory back they write to.
        let second = Timespec::from(Duration::from_secs(1));
        let cancelled =
            self.uring.submitter().register_sync_cancel(Some(second), CancelBuilder::any().all());
        let gone = match &cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        // SAFETY: the plain form of io_uring_enter; it runs what the cancelling has left to do.
        let ran = unsafe {
            let flags = EnterFlags::GETEVENTS.bits();
            self.uring.submitter().enter::<libc::sigset_t>(0, 0, flags, None)
        };
        let released = self.uring.submitter().unregister_buf_ring(BUFFER_GROUP);
        if gone && ran.is_ok() && released.is_ok() {
            // SAFETY: dropped once, here; no request that knows these addresses is left.
            unsafe { ManuallyDrop::drop(&mut self.shared) }
        } else {
            tracing::warn!(?cancelled, ?released, "io_uring requests linger; memory is kept");
        }
    }
}
