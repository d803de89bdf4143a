//! The disk thread in virtual time, and a disk that is slow, stalls or is full, for the simulator.
//! Whoever has one moves its time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::exchange::{DiskReport, FLUSH_INTERVAL, Message, Shared};
use super::io::{Disk, Found, Identity, Slot, Write};
use super::thread::{GATHER, Writer};
use super::{DiskHandle, QUEUE_MESSAGES_MAX};

/// Files in memory, and what the disk is like that they lie on.
#[derive(Debug)]
pub struct VirtualFiles {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Each operation takes so long.
    pub each: Duration,
    /// Operations end no sooner.
    pub stalled_until: Option<Instant>,
    /// Bytes that find room in all.
    pub bytes_max: u64,
    /// Operations since the last look.
    operations: u32,
}

impl Default for VirtualFiles {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            each: Duration::ZERO,
            stalled_until: None,
            bytes_max: u64::MAX,
            operations: 0,
        }
    }
}

impl VirtualFiles {
    /// What is in which file.
    pub fn files(&self) -> BTreeMap<&Path, &[u8]> {
        self.files.iter().map(|(path, bytes)| (path.as_path(), &bytes[..])).collect()
    }

    /// So many bytes more find room.
    pub fn fills_up(&mut self, room: u64) {
        self.bytes_max = self.used() + room;
    }

    /// It is as it was before.
    pub fn recovers(&mut self) {
        (self.each, self.stalled_until, self.bytes_max) = (Duration::ZERO, None, u64::MAX);
    }

    fn used(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn position(&self, path: &Path) -> io::Result<usize> {
        let found = self.files.iter().position(|(own, _)| own == path);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes as much of it as finds room, as a file system does.
    fn write(&mut self, Write { slot: Slot(index), offset, data }: Write) -> io::Result<()> {
        self.operations += 1;
        let used = self.used();
        let file = self.files.get_mut(index).ok_or(io::ErrorKind::NotFound)?;
        let (offset, end) = (offset as usize, offset as usize + data.len());
        let grows = end.saturating_sub(file.1.len()) as u64;
        let lacks = (used + grows).saturating_sub(self.bytes_max).min(grows) as usize;
        let fits = &data[..data.len() - lacks];
        if file.1.len() < offset + fits.len() {
            file.1.resize(offset + fits.len(), 0);
        }
        file.1[offset..offset + fits.len()].copy_from_slice(fits);
        match lacks {
            0 => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

struct Memory(Rc<RefCell<VirtualFiles>>);

impl Disk for Memory {
    fn create(&mut self, path: &Path) -> io::Result<(Slot, Option<Identity>)> {
        let mut disk = self.0.borrow_mut();
        disk.operations += 1;
        if disk.position(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.push((path.to_owned(), Vec::new()));
        let slot = disk.files.len() - 1;
        Ok((Slot(slot), Some(Identity(0, slot as u64))))
    }

    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>> {
        let mut disk = self.0.borrow_mut();
        writes.into_iter().map(|write| disk.write(write)).collect()
    }

    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>> {
        let mut disk = self.0.borrow_mut();
        disk.operations += slots.len() as u32;
        slots.iter().map(|_| Ok(())).collect()
    }

    fn cut(&mut self, path: &Path, bytes: u64) {
        let mut disk = self.0.borrow_mut();
        if let Ok(index) = disk.position(path) {
            disk.files[index].1.truncate(bytes as usize);
        }
    }

    fn look(&self, path: &Path) -> io::Result<Found> {
        let disk = self.0.borrow();
        let index = disk.position(path)?;
        let bytes = Some(disk.files[index].1.len() as u64);
        Ok(Found { identity: Identity(0, index as u64), bytes })
    }
}

/// The disk thread without a thread.
pub struct VirtualDisk {
    writer: Writer,
    messages: Receiver<Message>,
    files: Rc<RefCell<VirtualFiles>>,
    flush_at: Instant,
    /// It sleeps, or waits for the disk, until then.
    wakes_at: Instant,
    /// Of the messages that wait now, those that it takes after it has slept.
    gathering: bool,
}

impl VirtualDisk {
    /// One whose queue holds so many messages, [`QUEUE_MESSAGES_MAX`] at most, and the way to write
    /// through it.
    pub fn new(
        now: Instant,
        queue_messages_max: usize,
        files: Rc<RefCell<VirtualFiles>>,
    ) -> (Self, DiskHandle) {
        let (queue, messages) = bounded(queue_messages_max.min(QUEUE_MESSAGES_MAX));
        let shared = Arc::new(Shared::default());
        let memory = Box::new(Memory(Rc::clone(&files)));
        let writer = Writer::new(PathBuf::from("/recordings"), memory, Arc::clone(&shared));
        let (flush_at, wakes_at, gathering) = (now + FLUSH_INTERVAL, now, false);
        let disk = Self { writer, messages, files, flush_at, wakes_at, gathering };
        (disk, DiskHandle { queue, shared })
    }

    /// When it does something next, if nothing comes before.
    pub fn next(&self) -> Instant {
        match self.messages.is_empty() && !self.gathering {
            true => self.flush_at.max(self.wakes_at),
            false => self.wakes_at,
        }
    }

    /// Does what is due: what `thread::Writer::serve` does between two waits.
    pub fn turn(&mut self, now: Instant) {
        if now < self.wakes_at {
            return;
        }
        if std::mem::take(&mut self.gathering) {
            for _ in 0..self.messages.len() {
                if let Ok(message) = self.messages.try_recv() {
                    self.writer.take(message);
                }
            }
        }
        let due = now >= self.flush_at;
        if due {
            self.flush_at = now + FLUSH_INTERVAL;
        }
        self.writer.round(due);
        let mut disk = self.files.borrow_mut();
        let operations = std::mem::take(&mut disk.operations);
        self.wakes_at = now + disk.each * operations;
        if let Some(until) = disk.stalled_until.filter(|_| operations > 0) {
            self.wakes_at = self.wakes_at.max(until);
        }
        drop(disk);
        if self.wakes_at == now
            && let Ok(message) = self.messages.try_recv()
        {
            self.writer.take(message);
            (self.wakes_at, self.gathering) = (now + GATHER, true);
        }
    }

    /// Writes what is queued, closes every file and says what became of them.
    pub fn finish(mut self) -> DiskReport {
        for message in self.messages.try_iter().collect::<Vec<_>>() {
            self.writer.take(message);
        }
        self.writer.into_report(&self.messages)
    }
}
