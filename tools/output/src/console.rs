//! What goes to stdout and stderr, past `println!` and its kin: those panic when the reader has
//! gone away (`| head -1`), which would cost the report and the exit code.
//!
//! Nothing here goes through the standard library's buffers, so that nothing is left in them for an
//! exit to wait for.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Text for people to stdout. A reader that went away, or a full disk behind it, is no reason to end
/// anything.
pub fn out(text: &str) {
    let _ = write_all(rustix::stdio::stdout(), text.as_bytes());
}

/// The same to stderr.
pub fn err(text: &str) {
    let _ = write_all(rustix::stdio::stderr(), text.as_bytes());
}

/// Writes all of it.
///
/// # Errors
/// What the system said.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Whoever shares the pipe has made it non-blocking (node does): wait as a write would.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_no_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = write_all(writer.as_fd(), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pipe_that_somebody_made_non_blocking_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let sent = vec![7; 1 << 20];
        let length = sent.len();
        let writing = std::thread::spawn(move || write_all(writer.as_fd(), &sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(got.len(), length);
    }
}
