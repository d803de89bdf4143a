//! How bytes get into files: through io_uring, or plainly.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Writes in flight at once; more wait for these.
const WRITES_IN_FLIGHT_MAX: usize = 128;

/// One file of a [`DiskIo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) usize);

/// A write to be done whole.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) slot: Slot,
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
}

/// What the disk thread needs of the system. Order of results is the order of the arguments.
pub(super) trait DiskIo {
    fn add(&mut self, file: File) -> Slot;
    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>>;
    /// Makes durable and closes.
    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>>;
}

/// Makes a file that must not exist yet. A parameter for tests only.
pub(super) type Opener = fn(&Path) -> io::Result<File>;

pub(super) fn create_new(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

/// Device and inode: what a path's file is told by from another that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(pub(super) u64, pub(super) u64);

impl Identity {
    fn of(data: &Metadata) -> Self {
        Self(data.dev(), data.ino())
    }
}

/// What is found under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) identity: Identity,
    /// Of a regular file its length.
    pub(super) bytes: Option<u64>,
}

/// Where recordings lie: files by their paths, and how bytes get into them.
pub(super) trait Disk {
    /// Makes a file that must not exist yet, and says which one it is.
    fn create(&mut self, path: &Path) -> io::Result<(Slot, Option<Identity>)>;
    /// As [`DiskIo::write`].
    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>>;
    /// As [`DiskIo::close`].
    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>>;
    /// Cuts off what lies behind so many bytes of a regular file, if that can be done.
    fn cut(&mut self, path: &Path, bytes: u64);
    /// What is there.
    fn look(&self, path: &Path) -> io::Result<Found>;
}

/// The disk that there is.
pub(super) struct RealDisk {
    pub(super) opener: Opener,
    pub(super) io: Box<dyn DiskIo>,
}

impl Disk for RealDisk {
    fn create(&mut self, path: &Path) -> io::Result<(Slot, Option<Identity>)> {
        let file = (self.opener)(path)?;
        let identity = file.metadata().ok().map(|data| Identity::of(&data));
        Ok((self.io.add(file), identity))
    }

    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>> {
        self.io.write(writes)
    }

    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>> {
        self.io.close(slots)
    }

    fn cut(&mut self, path: &Path, bytes: u64) {
        let Ok(file) = File::options().write(true).open(path) else { return };
        if file.metadata().is_ok_and(|data| data.is_file()) {
            let _ = file.set_len(bytes);
        }
    }

    fn look(&self, path: &Path) -> io::Result<Found> {
        let data = std::fs::metadata(path)?;
        let bytes = data.is_file().then_some(data.len());
        Ok(Found { identity: Identity::of(&data), bytes })
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the file is closed already")
}

/// One blocking system call after the other.
#[derive(Default)]
pub(super) struct PlainIo {
    files: Vec<Option<File>>,
}

impl DiskIo for PlainIo {
    fn add(&mut self, file: File) -> Slot {
        self.files.push(Some(file));
        Slot(self.files.len() - 1)
    }

    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>> {
        let one = |write: Write| {
            let file = self.files.get(write.slot.0).and_then(Option::as_ref).ok_or_else(closed)?;
            file.write_all_at(&write.data, write.offset)
        };
        writes.into_iter().map(one).collect()
    }

    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>> {
        let mut one = |slot: &Slot| {
            let file = self.files.get_mut(slot.0).and_then(Option::take).ok_or_else(closed)?;
            file.sync_all()
        };
        slots.iter().map(&mut one).collect()
    }
}

/// Many writes at once through tokio-uring.
pub(super) struct UringIo {
    runtime: tokio_uring::Runtime,
    files: Vec<Option<std::rc::Rc<tokio_uring::fs::File>>>,
}

impl UringIo {
    /// Fails where the kernel, or a container's seccomp filter, refuses io_uring.
    pub(super) fn new() -> io::Result<UringIo> {
        let mut builder = tokio_uring::builder();
        builder.entries(2 * WRITES_IN_FLIGHT_MAX as u32);
        let runtime = tokio_uring::Runtime::new(&builder)?;
        // A ring may exist and still refuse to work; one no-op tells.
        runtime.block_on(tokio_uring::no_op())?;
        Ok(UringIo { runtime, files: Vec::new() })
    }
}

impl DiskIo for UringIo {
    fn add(&mut self, file: File) -> Slot {
        self.files.push(Some(std::rc::Rc::new(tokio_uring::fs::File::from_std(file))));
        Slot(self.files.len() - 1)
    }

    fn write(&mut self, writes: Vec<Write>) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(writes.len());
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let batch: Vec<_> = writes
                .by_ref()
                .take(WRITES_IN_FLIGHT_MAX)
                .map(|write| (self.files.get(write.slot.0).cloned().flatten(), write))
                .collect();
            results.extend(self.runtime.block_on(all(batch, |(file, write)| async move {
                let file = file.ok_or_else(closed)?;
                file.write_all_at(write.data, write.offset).await.0
            })));
        }
        results
    }

    fn close(&mut self, slots: &[Slot]) -> Vec<io::Result<()>> {
        let mut results = Vec::with_capacity(slots.len());
        for batch in slots.chunks(WRITES_IN_FLIGHT_MAX) {
            let files = batch.iter().map(|slot| self.files.get_mut(slot.0).and_then(Option::take));
            results.extend(self.runtime.block_on(all(files.collect(), |file| async move {
                let file = file.ok_or_else(closed)?;
                file.sync_all().await
            })));
        }
        results
    }
}

/// Runs all of them at once and waits for all.
async fn all<T, F>(items: Vec<T>, run: impl Fn(T) -> F) -> Vec<io::Result<()>>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let tasks: Vec<_> = items.into_iter().map(|item| tokio_uring::spawn(run(item))).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(match task.await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error)),
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(test: impl Fn(&mut dyn DiskIo)) {
        test(&mut PlainIo::default());
        match UringIo::new() {
            Ok(mut io) => test(&mut io),
            Err(error) => stampede_testing::skip(error),
        }
    }

    #[test]
    fn writes_land_where_they_belong() {
        each(|io| {
            let dir = tempfile::tempdir().unwrap();
            // More at once than are in flight.
            let files = 2 * WRITES_IN_FLIGHT_MAX + 44;
            let paths: Vec<_> = (0..files).map(|n| dir.path().join(n.to_string())).collect();
            let slots: Vec<_> =
                paths.iter().map(|path| io.add(File::create(path).unwrap())).collect();
            let write = |slot: &Slot, offset, text: &str| Write {
                slot: *slot,
                offset,
                data: text.as_bytes().to_vec(),
            };
            let mut writes: Vec<_> = slots.iter().map(|slot| write(slot, 3, "def")).collect();
            writes.extend(slots.iter().map(|slot| write(slot, 0, &format!("{:03}", slot.0))));
            assert!(io.write(writes).iter().all(Result::is_ok));
            assert!(io.close(&slots).iter().all(Result::is_ok));
            for (n, path) in paths.iter().enumerate() {
                assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{n:03}def"));
            }
            let late = write(&slots[0], 0, "x");
            assert_eq!(io.write(vec![late])[0].as_ref().unwrap_err().kind(), closed().kind());
        });
    }

    #[test]
    fn a_half_written_chunk_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ivf");
        std::fs::write(&path, "whole and hal").unwrap();
        let mut disk = RealDisk { opener: create_new, io: Box::new(PlainIo::default()) };
        disk.cut(&path, 5);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        // Not a regular file, or not there: left alone.
        for path in ["/dev/full", "/nonexistent/x.ivf"] {
            disk.cut(path.as_ref(), 5);
        }
    }

    #[test]
    fn a_full_disk_is_an_error_of_that_file_only() {
        each(|io| {
            let dir = tempfile::tempdir().unwrap();
            let full = io.add(File::options().write(true).open("/dev/full").unwrap());
            let good = io.add(File::create(dir.path().join("good")).unwrap());
            let data = vec![7; 4_096];
            let results = io.write(vec![
                Write { slot: full, offset: 0, data: data.clone() },
                Write { slot: good, offset: 0, data },
            ]);
            let full_error = results[0].as_ref().unwrap_err();
            assert_eq!(full_error.kind(), io::ErrorKind::StorageFull, "{full_error}");
            assert!(results[1].is_ok());
        });
    }
}
