//! Page-aligned memory that the kernel reads and writes behind Rust's back.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

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
    /// at any time, so [`atomic`](Self::atomic) and [`atomic64`](Self::atomic64) are the only way to
    /// what is in there.
    pub(crate) fn shared(fd: impl AsFd, len: usize) -> io::Result<Self> {
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, Self::READ_WRITE, MapFlags::SHARED, fd, 0) }?;
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
        // It takes no advice, and needs none.
        if cfg!(miri) {
            return Ok(memory);
        }
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
        // SAFETY: inside the mapping, which lives as long as `self` and may be read and written, and
        // aligned, as the mapping is to a page. The kernel's accesses are aligned and whole, and we
        // have no others: nobody slices what is shared like that.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }

    /// The same, of 64 bits.
    pub(crate) fn atomic64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<u64>() <= self.len && offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: inside the mapping, which lives as long as `self` and may be read and written, and
        // aligned to its own size; the rest as in `atomic`.
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

/// A mapping that the kernel writes and we only read.
#[derive(Debug)]
pub(crate) struct ReadOnlyMemory(PageMemory);

impl ReadOnlyMemory {
    /// Maps `len` bytes of what `fd` stands for, from `offset` on.
    pub(crate) fn shared(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let (anywhere, flags) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { mmap(anywhere, len, ProtFlags::READ, flags, fd, offset) }?;
        Ok(Self(PageMemory::of(base, len)?))
    }

    /// Memory that nobody writes any more.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn of(memory: PageMemory) -> Self {
        Self(memory)
    }

    /// Writes there as the kernel would.
    #[cfg(test)]
    pub(crate) fn written_by_kernel(&mut self, offset: usize, bytes: &[u8]) {
        assert!(self.0.write(offset, bytes), "{} bytes at {offset}", bytes.len());
    }

    /// The number at `offset`, which the kernel may be writing; what it wrote before is seen after
    /// this. Panics past the end and where it is not aligned, as for [`PageMemory::at`].
    pub(crate) fn load(&self, offset: usize) -> u32 {
        assert!(offset + size_of::<u32>() <= self.0.len && offset.is_multiple_of(size_of::<u32>()));
        // SAFETY: inside the mapping, which lives as long as `self`, and aligned, as the mapping is
        // to a page. Of read-only memory, small numbers may be loaded `Relaxed`, and nothing else
        // (std::sync::atomic, "Atomic accesses to read-only memory"), as is done here. Slices begin
        // behind the numbers that the kernel still writes.
        let number = unsafe { &*self.0.at(offset).cast::<AtomicU32>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        number
    }

    /// The same, of 64 bits.
    pub(crate) fn load64(&self, offset: usize) -> u64 {
        assert!(offset + size_of::<u64>() <= self.0.len && offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: as in `load`; 64 bits are small on the processors that Rust has AtomicU64 for
        // without a lock, and these have 64 bits themselves.
        let number = unsafe { &*self.0.at(offset).cast::<AtomicU64>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        number
    }

    /// As [`PageMemory::slice`]: the caller makes sure that the kernel does not write there.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> &[u8] {
        self.0.slice(offset, len)
    }
}
