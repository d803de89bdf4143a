//! Page-aligned memory that the kernel reads and writes behind Rust's back.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// A mapping: page-aligned, never moved, returned on drop.
///
/// It hands out raw pointers for the kernel and checked slices for us. It is not `Send`: it
/// belongs to the backend that made it.
#[derive(Debug)]
pub(crate) struct PageMemory {
    base: NonNull<u8>,
    len: usize,
}

impl PageMemory {
    /// Maps `len` zeroed bytes (at least one) of our own.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, Self::READ_WRITE, MapFlags::PRIVATE)
        }?;
        Self::of(base, len)
    }

    const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

    /// Maps the first `len` bytes of what `fd` stands for, shared with the kernel. It writes there
    /// at any time: what it may be writing is read by [`atomic`](Self::atomic) only.
    pub(crate) fn shared(fd: impl AsFd, len: usize) -> io::Result<Self> {
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, Self::READ_WRITE, MapFlags::SHARED, fd, 0) }?;
        Self::of(base, len)
    }

    /// The same, read only, from `offset` on. What is shared like that may be sliced: the caller
    /// makes sure that the kernel does not write to the slice's range meanwhile.
    pub(crate) fn shared_to_read(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let (anywhere, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap(anywhere, len, ProtFlags::READ, flags, fd, offset) }?;
        Self::of(base, len)
    }

    fn of(base: *mut c_void, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| io::Error::other("mmap returned address zero"))?;
        Ok(Self { base, len })
    }

    /// Like [`new`](Self::new), for memory of which little is ever touched: no huge pages, which
    /// would take all of it.
    pub(crate) fn new_sparse(len: usize) -> io::Result<Self> {
        let memory = Self::new(len)?;
        // SAFETY: exactly the mapping that was just made. Advice changes no contents; a kernel that
        // knows no huge pages refuses it, and then there is nothing to advise against.
        let _ =
            unsafe { madvise(memory.base.as_ptr().cast(), memory.len, Advice::LinuxNoHugepage) };
        Ok(memory)
    }

    /// The address of byte `offset`, for the kernel. Panics past the end: every caller computes
    /// offsets from its own slot counts, never from anything received.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len, "offset {offset} is outside of {} bytes", self.len);
        // SAFETY: `offset` is inside the one mapping, checked above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes `offset..offset + len`, or an empty slice where that is not inside the mapping.
    /// The caller makes sure that the kernel does not own this range at the moment.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> &[u8] {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return &[];
        }
        // SAFETY: the range is inside the mapping, which lives as long as `self` and is always
        // initialised (by the kernel). The kernel does not write to it meanwhile: that is
        // the caller's contract, kept by handing out only what the kernel has given back.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }

    /// Bytes `offset..offset + len` to write to, or an empty slice where that is not inside the
    /// mapping. The caller makes sure that the kernel does not own this range at the moment.
    pub(crate) fn slice_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return &mut [];
        }
        // SAFETY: the range is inside the mapping, which lives as long as `self` and is always
        // initialised; `&mut self` means that no other slice of it is alive. The kernel does not
        // use it meanwhile: that is the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// The number at `offset`, which the kernel may be reading and writing. Panics past the end and
    /// where it is not aligned: as for [`at`](Self::at).
    pub(crate) fn atomic(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + size_of::<u32>() <= self.len && offset.is_multiple_of(size_of::<u32>()));
        // SAFETY: inside the mapping, which lives as long as `self`, and aligned, as the mapping is
        // to a page. Where a slice covers it, nobody writes it meanwhile: neither the kernel, which
        // does not own that range then, nor we, who need `&mut` to hand it back.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }

    /// The same, of 64 bits.
    pub(crate) fn atomic64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<u64>() <= self.len && offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: as in `atomic`.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    /// Copies `bytes` to `offset`. False, and nothing is copied, where they don't fit.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        // SAFETY: the range is inside the mapping, and `&mut self` means that no slice of it is
        // alive, so source and target can't overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.base.as_ptr().add(offset),
                bytes.len(),
            );
        }
        true
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for PageMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that was made; nobody holds a slice of it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
