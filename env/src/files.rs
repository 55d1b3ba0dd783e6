//! The local file system as the rest of Tidegate sees it. All calls block: make them from
//! [`Env::blocking`](crate::Env::blocking), or where a block of at most one page-cache copy is fine.

use std::{
    io,
    path::{Path, PathBuf},
};

use types::Timestamp;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Anything else.
    Other,
}

/// What is known about a path. Symbolic links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// File, directory, or something else.
    pub kind: FileKind,
    /// The length in bytes.
    pub len: u64,
    /// The time of the last change.
    pub modified: Timestamp,
}

/// A file opened for reading at any place.
pub trait ReadFile: Send + Sync {
    /// Reads into `buf` from `offset`; returns how many bytes, 0 only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Reads from `offset` until `buf` is full or the file ends; returns how many bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_full(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_at(offset + filled as u64, &mut buf[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
    /// The length now.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty now.
    ///
    /// # Errors
    /// As the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file being written from its start to its end.
pub trait WriteFile: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// As the operating system says. What was written is then unknown.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable. After an error the file must not be used, nor synced, again: the kernel may
    /// have dropped the bytes and would answer a second call with success.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// An exclusive lock on a file, freed when dropped and by the kernel when the process dies.
pub trait FileLock: Send + Sync {}

/// The local file system. Directory listings are sorted by name.
pub trait Files: Send + Sync {
    /// Opens for reading.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the operating system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens an existing file to write on at its end, after cutting it to `len` bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn WriteFile>>;
    /// Renames a file onto a name that must not exist; never replaces anything. Durable after `sync_dir` of both
    /// directories.
    ///
    /// # Errors
    /// `AlreadyExists`, or as the operating system says.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file, replacing the file of that name if there is one. Durable as [`rename_new`](Files::rename_new).
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it; succeeds if there is none.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory if nothing is in it, in one step: what is put into it at this moment is not lost. Whether there
    /// is none now.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir(&self, path: &Path) -> io::Result<bool>;
    /// Creates a directory and those above it; succeeds if it exists.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted by name.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// What is known about a path; `None` if nothing is there.
    ///
    /// # Errors
    /// As the operating system says.
    fn metadata(&self, path: &Path) -> io::Result<Option<FileMeta>>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file, made if need be, and writes `holder` into it. If another process holds it,
    /// what that one wrote.
    ///
    /// # Errors
    /// As the operating system says.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn FileLock>, String>>;
    /// What the process that holds the lock on this file wrote into it; `None` if nobody holds it. Changes nothing, and
    /// keeps nobody from taking the lock.
    ///
    /// # Errors
    /// As the operating system says.
    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>>;
    /// The absolute path with symbolic links resolved.
    ///
    /// # Errors
    /// As the operating system says.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives its bytes two at a time, and is interrupted before each time.
    struct Halting(&'static [u8], AtomicUsize);

    impl ReadFile for Halting {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let left = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let read = left.len().min(buf.len()).min(2);
            buf[..read].copy_from_slice(&left[..read]);
            Ok(read)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
    }

    #[test]
    fn a_full_read_ends_where_the_buffer_or_the_file_ends() {
        let file = Halting(b"0123456789", AtomicUsize::new(0));
        let mut bytes = [b'x'; 5];
        assert_eq!(file.read_full(2, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes, b"23456");
        assert_eq!(file.read_full(7, &mut bytes).unwrap(), 3);
        assert_eq!(&bytes, b"78956");
        assert_eq!(file.read_full(11, &mut bytes).unwrap(), 0);
    }
}
