//! Where a file or directory really is: the name under which checkpoints remember it. All calls block.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use env::Files;

/// The absolute path without symbolic links; of what does not exist, as far as the directories above it do. A `..` below
/// those leads to what is above it by name: once they are made, that is where it leads.
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
                let by_name = lexical(real, rest);
                let goes_up = rest.components().any(|part| part == Component::ParentDir);
                // What is above may exist, and be a symbolic link.
                return if goes_up { self::real(files, &by_name) } else { Ok(by_name) };
            }
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path.to_owned())
}

/// `rest` below `dir`, every `..` taken for the directory that its name says.
fn lexical(dir: PathBuf, rest: &Path) -> PathBuf {
    rest.components().fold(dir, |mut path, part| {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        path
    })
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
