//! The local file system of the machine, over `std::fs` and the system calls that it lacks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use types::Timestamp;

use crate::{FileKind, FileLock, FileMeta, Files, ReadFile, WriteFile};

pub(super) struct RealFiles;

/// A wall-clock time as a timestamp.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp(time.duration_since(UNIX_EPOCH).map_or_else(|before| -ms(before.duration()), ms))
}

struct RealRead(File);

impl ReadFile for RealRead {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

struct RealWrite {
    file: File,
    failed: bool,
}

impl RealWrite {
    fn boxed(file: File) -> Box<dyn WriteFile> {
        Box::new(Self { file, failed: false })
    }

    fn attempt(&mut self, act: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write or sync of this file failed"));
        }
        let done = act(&mut self.file);
        self.failed = done.is_err();
        done
    }
}

impl WriteFile for RealWrite {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.attempt(|file| file.write_all(bytes))
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.attempt(|file| file.sync_all())
    }
}

/// The kernel frees the lock when the file is closed.
struct RealLock {
    _file: File,
}

impl FileLock for RealLock {}

/// Whoever only looks who holds a lock shares it for a moment: looks before it counts as held, and the time between them.
const LOOKS: u32 = 500;
const LOOK: Duration = Duration::from_millis(2);

/// Whether the lock could be had at once.
fn locked(file: &File, how: FlockOperation) -> io::Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the holder of a lock wrote.
fn holder_in(file: File) -> io::Result<String> {
    const LONGEST: u64 = 4096;
    let mut holder = Vec::new();
    file.take(LONGEST).read_to_end(&mut holder)?;
    Ok(String::from_utf8_lossy(&holder).into_owned())
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::File
    } else if file_type.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    }
}

impl Files for RealFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(RealRead(File::open(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(RealWrite::boxed(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn WriteFile>> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than expected"));
        }
        file.set_len(len)?;
        file.seek(SeekFrom::End(0))?;
        Ok(RealWrite::boxed(file))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_dir(path) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(true),
                // POSIX lets a file system say either.
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(FileMeta {
                kind: kind(meta.file_type()),
                len: meta.len(),
                modified: timestamp(meta.modified()?),
            })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn FileLock>, String>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut looks = LOOKS;
        while !locked(&file, FlockOperation::NonBlockingLockExclusive)? {
            looks -= 1;
            if looks == 0 || !locked(&file, FlockOperation::NonBlockingLockShared)? {
                return holder_in(file).map(Err);
            }
            // Nobody holds it: others look.
            flock(&file, FlockOperation::Unlock)?;
            std::thread::sleep(LOOK);
        }
        file.set_len(0)?;
        file.write_all(holder.as_bytes())?;
        Ok(Ok(Box::new(RealLock { _file: file })))
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // Freed with the file, at once.
        let is_free = locked(&file, FlockOperation::NonBlockingLockShared)?;
        if is_free { Ok(None) } else { holder_in(file).map(Some) }
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }
}
