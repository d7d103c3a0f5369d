//! Where lines go: a file, a FIFO or standard output, opened, opened again, and written to without waiting for longer than
//! asked. What the lines say never enters.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, FileType, Mode, OFlags};

use super::rules::Target;
use crate::limits::{ACCESS_LOG_PIPE_BYTES, ACCESS_LOG_STALL_MS};

/// An open target.
#[derive(Debug)]
pub struct Sink {
    file: File,
    /// A write to it takes as long as it takes, and takes everything. False for pipes, terminals and sockets, which are asked
    /// first whether they have room.
    is_regular: bool,
    /// The last line that was begun has no end.
    is_torn: bool,
}

/// What came of a write.
#[derive(Debug)]
pub enum Written {
    /// So many bytes, up to all of them.
    Some(usize),
    /// Nobody reads what is there already.
    Stalled,
}

impl Sink {
    /// Opens a target, or makes the file. Does not wait for a FIFO's reader: without one it is an error.
    pub fn open(target: &Target) -> io::Result<Sink> {
        let file: OwnedFd = match target {
            Target::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Target::File(path) => {
                let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
                let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
                let file = rustix::fs::open(path, flags | OFlags::NONBLOCK, mode)?;
                // Only the opening was not to wait: whoever else has the same FIFO is not to be surprised.
                rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
                file
            }
        };
        let is_regular = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile;
        Ok(Sink { file: file.into(), is_regular, is_torn: false })
    }

    /// Writes the beginning of `lines`, which are whole lines but for a first one that was begun before.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<Written> {
        if self.is_torn {
            // A line that was not written to its end stays alone.
            let Written::Some(1) = self.write_some(b"\n")? else { return Ok(Written::Stalled) };
            self.is_torn = false;
        }
        self.write_some(lines)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<Written> {
        if self.is_regular {
            return self.file.write(bytes).map(Written::Some);
        }
        let mut wanted = [PollFd::new(&self.file, PollFlags::OUT)];
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(ACCESS_LOG_STALL_MS) * 1_000_000 };
        match poll(&mut wanted, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Written::Stalled),
            other => _ = other?,
        }
        // A pipe with any room has room for so much, and takes it in one piece (pipe(7)): two processes do not mix their lines.
        let piece = &bytes[..bytes.len().min(ACCESS_LOG_PIPE_BYTES)];
        let whole = if piece.len() < bytes.len() { memchr::memrchr(b'\n', piece).map(|end| end + 1) } else { None };
        self.file.write(&piece[..whole.unwrap_or(piece.len())]).map(Written::Some)
    }

    /// What was begun will not be ended.
    pub fn tear(&mut self) {
        self.is_torn = true;
    }
}

/// Why a target could not be opened now; nothing is made, and nothing opened.
pub fn look(target: &Target) -> io::Result<()> {
    let Target::File(path) = target else { return Ok(()) };
    if path.is_dir() {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    match rustix::fs::access(path, Access::WRITE_OK) {
        Err(rustix::io::Errno::NOENT) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        other => Ok(other?),
    }
}
