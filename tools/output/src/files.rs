//! Files that are written whole or not at all.
//!
//! A regular file is written beside its place, synced and renamed over it, so that a full disk or a
//! signal leaves the one that was there. Of a symbolic link it is the target that is replaced, as
//! git and editors do; a file with several names, or one that can only be overwritten (a mount
//! point, a folder of somebody else's), is written in place, and put back as it was if that fails.
//! Pipes and devices are written as they are, and stdout and stderr (`-`, `/dev/stdout`,
//! `/dev/fd/2`) through the descriptors that this process has.
//!
//! All of it happens on a thread of its own, because each of them may block for ever: a FIFO
//! without a reader, a disk behind a network that is gone.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, FileType, OFlags, access, fstat};
use tempfile::NamedTempFile;

use crate::{console, log};

/// What stands for stdout.
pub const STDOUT: &str = "-";
/// What stands for stderr.
pub const STDERR: &str = "/dev/stderr";
/// Symbolic links followed at most, as the kernel does.
const LINKS_MAX: usize = 40;
/// Pause between two looks at whether a signal has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a signal lets a write that can end still do so.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a FIFO waits for its reader before that is said.
const SAID_AFTER: Duration = Duration::from_secs(2);
/// Permissions of a new file, of which the umask takes some.
const NEW_MODE: u32 = 0o666;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A signal came while nobody took it.
    #[error("given up at a signal, for nobody has read it")]
    Unread,
    /// A signal came while the disk did not answer.
    #[error("given up at a signal, for the system did not take it")]
    Stuck,
}

impl WriteError {
    /// True if it was a signal that ended it.
    pub fn is_signal(&self) -> bool {
        matches!(self, Self::Unread | Self::Stuck)
    }
}

/// Set by the first signal of a time in which nothing but writing is left to do.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Gives up what blocks, now and from now on; false if that was so already.
pub fn give_up() -> bool {
    !SIGNALLED.swap(true, Ordering::AcqRel)
}

/// Files beside their places, to be removed if the process ends at once.
static HALF_WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn half_written() -> MutexGuard<'static, Vec<PathBuf>> {
    HALF_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what an exit at once would leave behind.
pub fn remove_half_written() {
    for path in half_written().drain(..) {
        // It may have got its name in this moment.
        let _ = fs::remove_file(path);
    }
}

/// Where a path leads.
#[derive(Debug)]
enum Target {
    Stdout,
    Stderr,
    /// A pipe or a device.
    AsItIs(PathBuf),
    /// A regular file that keeps its place.
    InPlace(PathBuf),
    /// A regular file, or none yet.
    Beside {
        path: PathBuf,
        old: Option<Metadata>,
    },
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file: it can be written again.
    File,
    /// A pipe or device: what was written is gone.
    Stream,
    /// Stdout.
    Stdout,
}

/// What this path leads to, as far as can be told.
pub fn place(path: &Path) -> Place {
    match target(path) {
        Ok(Target::Stdout) => Place::Stdout,
        Ok(Target::Stderr | Target::AsItIs(_)) => Place::Stream,
        Ok(Target::InPlace(_) | Target::Beside { .. }) | Err(_) => Place::File,
    }
}

fn target(path: &Path) -> io::Result<Target> {
    if path == Path::new(STDOUT) {
        return Ok(Target::Stdout);
    }
    // Also where there is no /dev.
    if path == Path::new(STDERR) {
        return Ok(Target::Stderr);
    }
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(io::Error::other("it ends with '/', which names a folder; name a file"));
    }
    let path = match follow(path)? {
        Followed::Path(path) => path,
        Followed::Descriptor(1) => return Ok(Target::Stdout),
        Followed::Descriptor(2) => return Ok(Target::Stderr),
        Followed::Descriptor(number) => PathBuf::from(format!("/proc/self/fd/{number}")),
    };
    let behind_proc = path.starts_with("/proc/self/fd");
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
            return Ok(Target::Beside { path, old: None });
        }
        Err(error) => return Err(error),
    };
    let kind = found.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a folder; name a file"));
    }
    if kind.is_socket() {
        return Err(io::Error::other("it is a socket; name a file or a pipe"));
    }
    Ok(match kind.is_file() {
        true if found.nlink() == 1 && !behind_proc => Target::Beside { path, old: Some(found) },
        true => Target::InPlace(path),
        false => Target::AsItIs(path),
    })
}

/// A path whose last part is no symbolic link.
enum Followed {
    Path(PathBuf),
    /// One of this process's own.
    Descriptor(u32),
}

/// Follows symbolic links, those that lead nowhere yet included.
fn follow(path: &Path) -> io::Result<Followed> {
    let own_descriptors = fs::canonicalize("/proc/self/fd").ok();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {}
            // Writing says what is wrong, if it is more than that nothing is there.
            Ok(_) | Err(_) => return Ok(Followed::Path(path)),
        }
        let folder = fs::canonicalize(folder(&path))?;
        // What a link in there reads as (`pipe:[4711]`) is no path.
        if own_descriptors.as_ref() == Some(&folder) {
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            return Ok(number.map_or(Followed::Path(path), Followed::Descriptor));
        }
        path = folder.join(fs::read_link(&path)?);
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// What makes two names the same file, whatever they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// It is there.
    Inode {
        /// Its filesystem.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// It will be in this folder.
    Name {
        /// The folder's filesystem.
        device: u64,
        /// The folder's number there.
        inode: u64,
        /// Its name in the folder.
        name: OsString,
    },
    /// Stdout or stderr, where that is a device.
    Descriptor(u32),
}

impl Identity {
    /// Of a file that is read.
    pub fn of_input(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().and_then(Self::of)
    }

    /// Of stdout.
    pub fn of_stdout() -> Self {
        Self::of_descriptor(rustix::stdio::stdout(), 1)
    }

    /// Of stderr.
    pub fn of_stderr() -> Self {
        Self::of_descriptor(rustix::stdio::stderr(), 2)
    }

    fn of_descriptor(fd: std::os::fd::BorrowedFd<'_>, number: u32) -> Self {
        match fstat(fd) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice => {
                Self::Inode { device: found.st_dev, inode: found.st_ino }
            }
            Ok(_) | Err(_) => Self::Descriptor(number),
        }
    }

    /// `None` for a device: `/dev/null` takes as many as there are.
    fn of(found: &Metadata) -> Option<Self> {
        let inode = Self::Inode { device: found.dev(), inode: found.ino() };
        (!found.file_type().is_char_device()).then_some(inode)
    }
}

/// Checks that a path can be written to, as far as that is known without opening or touching what
/// is there. Says which file it is; `None` if any number of things can be written there.
///
/// # Errors
/// Why not.
pub fn check(path: &Path) -> io::Result<Option<Identity>> {
    match target(path)? {
        Target::Stdout => Ok(Some(Identity::of_stdout())),
        Target::Stderr => Ok(Some(Identity::of_stderr())),
        Target::AsItIs(path) => {
            access(&path, Access::WRITE_OK)?;
            Ok(Identity::of(&fs::metadata(&path)?))
        }
        Target::InPlace(path) => {
            access(&path, Access::READ_OK | Access::WRITE_OK)?;
            Ok(Identity::of(&fs::metadata(&path)?))
        }
        Target::Beside { path, old: Some(old) } => {
            access(&path, Access::WRITE_OK)?;
            if check_folder(folder(&path)).is_err() {
                access(&path, Access::READ_OK)?;
            }
            Ok(Identity::of(&old))
        }
        Target::Beside { path, old: None } => {
            check_folder(folder(&path))?;
            let found = fs::metadata(folder(&path))?;
            let name = path.file_name().unwrap_or_default().to_owned();
            Ok(Some(Identity::Name { device: found.dev(), inode: found.ino(), name }))
        }
    }
}

/// Checks that files can be made in a folder, with one of our own that is gone at once: permission
/// bits don't tell (root, read-only mounts, quotas).
///
/// # Errors
/// What the system said.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    temporary(folder)?.close()
}

/// Writes a file, a pipe or a device, and waits until it is there.
///
/// # Errors
/// Why it is not; a regular file is then as it was.
pub fn write(path: &Path, bytes: Vec<u8>) -> Result<(), WriteError> {
    let fifo = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let given_up = Arc::new(AtomicBool::new(false));
    let (done, wait) = mpsc::sync_channel(1);
    let (of_thread, to) = (Arc::clone(&given_up), path.to_owned());
    thread::Builder::new().name("write".to_owned()).spawn(move || {
        // Nobody waits any more if it was given up.
        let _ = done.send(write_now(&to, &bytes, &of_thread));
    })?;
    let began = Instant::now();
    let mut say = fifo;
    loop {
        match wait.recv_timeout(LOOK_EVERY) {
            Ok(written) => return Ok(written?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that wrote it has ended").into());
            }
        }
        if SIGNALLED.load(Ordering::Acquire) && began.elapsed() >= PATIENCE {
            given_up.store(true, Ordering::Release);
            return Err(match place(path) {
                Place::File => WriteError::Stuck,
                Place::Stream | Place::Stdout => WriteError::Unread,
            });
        }
        if say && began.elapsed() >= SAID_AFTER {
            say = false;
            let name = path.display();
            log::say(&format!("{name} is a pipe: waiting for a reader (a signal gives it up)"));
        }
    }
}

fn write_now(path: &Path, bytes: &[u8], given_up: &AtomicBool) -> io::Result<()> {
    match target(path)? {
        Target::Stdout => through(rustix::stdio::stdout(), bytes),
        Target::Stderr => through(rustix::stdio::stderr(), bytes),
        Target::AsItIs(path) => {
            let no_terminal = OFlags::NOCTTY.bits().cast_signed();
            let mut file = OpenOptions::new().write(true).custom_flags(no_terminal).open(path)?;
            file.write_all(bytes)
        }
        Target::InPlace(path) => in_place(&path, bytes),
        Target::Beside { path, old } => beside(&path, old.as_ref(), bytes, given_up),
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn through(fd: std::os::fd::BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    match console::write_all(fd, bytes) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A file of our own in a folder, removed when it is dropped.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    // Opened here: tempfile's own errors have lost the number of what refused.
    tempfile::Builder::new().prefix(".stampede-").suffix(".tmp").make_in(folder, |path| {
        OpenOptions::new().write(true).create_new(true).mode(NEW_MODE).open(path)
    })
}

fn beside(
    path: &Path,
    old: Option<&Metadata>,
    bytes: &[u8],
    given_up: &AtomicBool,
) -> io::Result<()> {
    let mut file = match temporary(folder(path)) {
        Ok(file) => file,
        // The folder takes no new file, but there is an old one.
        Err(error) if old.is_some() && is_of_the_folder(&error) => return in_place(path, bytes),
        Err(error) => return Err(error),
    };
    let temporary = file.path().to_owned();
    half_written().push(temporary.clone());
    let written = fill(file.as_file_mut(), old, bytes);
    let renamed = match written {
        Ok(()) if given_up.load(Ordering::Acquire) => Err(ErrorKind::Interrupted.into()),
        // Dropping what is left removes it.
        Ok(()) => file.persist(path).map(drop).map_err(|error| error.error),
        Err(error) => Err(error),
    };
    half_written().retain(|other| *other != temporary);
    match renamed {
        Err(error) if old.is_some() && is_of_the_folder(&error) => in_place(path, bytes),
        Err(error) => Err(error),
        Ok(()) => {
            // The name itself; not all filesystems can.
            if let Ok(folder) = File::open(folder(path)) {
                let _ = folder.sync_all();
            }
            Ok(())
        }
    }
}

/// True for what refuses new names but may well let an old file be overwritten.
fn is_of_the_folder(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // EBUSY: the file is a mount point, as one that a container was given.
    [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::BUSY, Errno::XDEV]
        .into_iter()
        .any(|refusal| error.raw_os_error() == Some(refusal.raw_os_error()))
}

fn fill(file: &mut File, old: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    if let Some(old) = old {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            // Only root may, and a file of somebody else's is still better than none.
            let _ = std::os::unix::fs::fchown(&*file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.write_all(bytes)?;
    sync(file)
}

fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // A filesystem that can't.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Overwrites a file without a moment in which nothing of it is there: what is overwritten is put
/// back if the rest does not fit.
fn in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let old_bytes = file.metadata()?.len();
    let mut old_head = Vec::new();
    Read::by_ref(&mut file).take(bytes.len() as u64).read_to_end(&mut old_head)?;
    let overwrite = |file: &mut File, bytes: &[u8]| {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytes)
    };
    let written = overwrite(&mut file, bytes)
        .and_then(|()| file.set_len(bytes.len() as u64))
        .and_then(|()| sync(&file));
    written.inspect_err(|_| {
        // Its own blocks are still there, so this finds room.
        let restored = overwrite(&mut file, &old_head).and_then(|()| file.set_len(old_bytes));
        if let Err(error) = restored {
            tracing::error!("{} could not be put back as it was: {error}", path.display());
        }
    })
}

/// Makes a file that must not be there yet; one that does not come out whole is removed again.
///
/// # Errors
/// What the system said, `AlreadyExists` if something is there.
pub fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| sync(&file));
    written.inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write(&path, b"new".to_vec()).unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        assert_eq!(mode(&path), mode(&plain), "the umask's");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        write(&path, b"newer".to_vec()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "newer");
        assert_eq!(mode(&path), 0o640);
        assert_ne!(fs::metadata(&path).unwrap().ino(), before, "renamed over");
        assert_eq!(names(dir.path()), ["plain", "r.json"]);
    }

    #[test]
    fn of_a_symbolic_link_the_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("there/r.json"));
        symlink("there/r.json", &link).unwrap();
        write(&link, b"one".to_vec()).unwrap();
        write(&link, b"two".to_vec()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        let round = dir.path().join("round");
        symlink("round", &round).unwrap();
        assert!(write(&round, b"x".to_vec()).is_err() && check(&round).is_err());
    }

    #[test]
    fn a_file_with_two_names_keeps_both() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "a longer text").unwrap();
        fs::hard_link(&one, &two).unwrap();
        write(&one, b"short".to_vec()).unwrap();
        assert_eq!(fs::read_to_string(&two).unwrap(), "short");
        write(&two, b"longer again".to_vec()).unwrap();
        assert_eq!(fs::read_to_string(&one).unwrap(), "longer again");
    }

    #[test]
    fn what_does_not_fit_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "old").unwrap();
        fs::hard_link(&one, &two).unwrap();
        // Both ways to fail on a full disk, without one.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        let child = std::process::Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact --ignored --nocapture \"$1\"",
            ])
            .arg(std::env::current_exe().unwrap())
            .arg("files::tests::inside_of_a_small_disk")
            .env("STAMPEDE_TEST_FOLDER", dir.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{limit:?} {child:?}");
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
        assert_eq!(fs::read_to_string(&one).unwrap(), "old");
        assert_eq!(fs::read_to_string(dir.path().join("alone")).unwrap(), "old");
        assert_eq!(names(dir.path()), ["alone", "one", "two"]);
    }

    #[test]
    #[ignore = "run by what_does_not_fit_leaves_what_was_there, with a limit on file sizes"]
    fn inside_of_a_small_disk() {
        let folder = PathBuf::from(std::env::var_os("STAMPEDE_TEST_FOLDER").unwrap());
        fs::write(folder.join("alone"), "old").unwrap();
        for name in ["one", "alone", "new"] {
            let error = write(&folder.join(name), vec![7; 1 << 16]).unwrap_err();
            assert!(matches!(&error, WriteError::Io(_)), "{name}: {error}");
        }
    }

    #[test]
    fn a_check_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, fifo) = (dir.path().join("file"), dir.path().join("fifo"));
        fs::write(&file, "text").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let before = fs::metadata(&file).unwrap();
        for path in [&file, &fifo, &dir.path().join("new")] {
            assert!(check(path).unwrap().is_some(), "{path:?}");
        }
        let after = fs::metadata(&file).unwrap();
        assert_eq!((before.mtime_nsec(), before.len()), (after.mtime_nsec(), after.len()));
        assert_eq!(names(dir.path()), ["fifo", "file"]);
        assert_eq!(place(&fifo), Place::Stream);
        for bad in [dir.path().to_owned(), dir.path().join("no/such"), PathBuf::from("/proc/x")] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_file_has_one_identity_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        symlink("new", path("link")).unwrap();
        let of = |name: &str| check(&path(name)).unwrap();
        let new = of("new");
        assert!(new.is_some());
        assert_eq!(new, of("./sub/../new"));
        assert_eq!(new, of("link"), "a link that leads nowhere yet");
        assert_ne!(new, of("other"));
        assert_ne!(new, of("sub/new"));
        fs::write(path("new"), "").unwrap();
        fs::hard_link(path("new"), path("second")).unwrap();
        assert_eq!(of("new"), of("second"));
        assert_eq!(of("link"), Identity::of_input(&path("second")));
        assert_eq!(check(Path::new("/dev/null")).unwrap(), None);
        let [one, two] = [STDOUT, "/dev/stdout"].map(|name| check(Path::new(name)).unwrap());
        assert_eq!((one.is_some(), &one), (true, &two));
        for name in ["/dev/fd/1", "/proc/self/fd/1", "-"] {
            assert_eq!(place(Path::new(name)), Place::Stdout, "{name}");
        }
    }

    #[test]
    fn a_new_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        create_new(&path, b"text").unwrap();
        let again = create_new(&path, b"other").unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
