//! Where a file or directory really is: the name under which checkpoints remember it. All calls block.

use std::{
    io,
    path::{Path, PathBuf},
};

use env::Files;

/// The absolute path without symbolic links; of what does not exist, as far as the directories above it do.
///
/// # Errors
/// As the operating system says.
pub(crate) fn real(files: &dyn Files, path: &Path) -> io::Result<PathBuf> {
    use io::ErrorKind::{NotADirectory, NotFound};
    for above in path.ancestors() {
        let named = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match files.canonical(named) {
            // What is left is nothing, or a relative path below `above`.
            Ok(real) => {
                let rest = path.strip_prefix(above).unwrap_or(path);
                return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use env::sim::Simulation;

    use super::*;

    #[test]
    fn what_does_not_exist_is_named_from_what_does() {
        Simulation::new(1).run(async |env| {
            let files = env.files();
            files.create_dir_all(Path::new("/a/b")).unwrap();
            files.create_new(Path::new("/a/file")).unwrap();
            for (path, expected) in [
                ("/a/b", "/a/b"),
                ("a/b/../b/.", "/a/b"),
                ("/a/b/c/d", "/a/b/c/d"),
                ("a/./b/c", "/a/b/c"),
                ("c", "/c"),
                ("", "/"),
                ("/a/file/c", "/a/file/c"),
            ] {
                assert_eq!(real(&*files, Path::new(path)).unwrap(), Path::new(expected), "{path}");
            }
        });
    }
}
