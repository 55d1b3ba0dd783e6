//! What is put into a directory at the moment in which it is removed as empty stays.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{FileLock, FileMeta, ReadFile, sim::Simulation};

/// Files into which somebody else puts one at the last moment: into each directory that is about to be removed.
struct Rivalled(Arc<dyn Files>);

impl Rivalled {
    fn put_into(&self, dir: &Path) -> io::Result<()> {
        match self.0.create_new(&dir.join("mine")) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

impl Files for Rivalled {
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.put_into(path)?;
        self.0.remove_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<bool> {
        self.put_into(path)?;
        self.0.remove_dir(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.0.open(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.0.create_new(path)
    }

    fn append(&self, path: &Path, len: u64) -> io::Result<Box<dyn WriteFile>> {
        self.0.append(path, len)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        self.0.metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn FileLock>, String>> {
        self.0.lock(path, holder)
    }

    fn lock_holder(&self, path: &Path) -> io::Result<Option<String>> {
        self.0.lock_holder(path)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.canonical(path)
    }
}

#[test]
fn what_comes_into_an_empty_directory_before_it_goes_stays() {
    Simulation::new(1).run(async |env| {
        let open = |root: &str, files| Directory::open(root, root.as_ref(), files, 0, env.wall()).unwrap();
        let prune = |dir: &Directory| dir.prune(&["a/b/gone".to_owned()]).unwrap();
        let below = |dir: &str| env.files().create_dir_all(dir.as_ref()).unwrap();
        let is_there = |path: &str| env.files().metadata(path.as_ref()).unwrap().is_some();
        let rivalled = || Arc::new(Rivalled(env.files()));

        below("/nested/a/b");
        prune(&open("/nested", rivalled()));
        assert!(is_there("/nested/a/b/mine"), "it was lost with the directory that it is in");
        prune(&open("/bare", rivalled()));
        assert!(is_there("/bare/mine"), "it was lost with the store's directory");
        below("/staged/staging~");
        open("/staged", rivalled()).tidy().unwrap();
        assert!(is_there("/staged/staging~/mine"), "it was lost with the staging directory");

        // Left alone, they go.
        below("/alone/a/b");
        prune(&open("/alone", env.files()));
        assert!(!is_there("/alone"));
    });
}

/// Whoever deletes a savepoint removes the empty directory of the store, too. What is put there next is as durable as ever.
#[test]
fn a_store_whose_directory_is_gone_makes_it_again() {
    for seed in 0..16 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            let root = "/savepoints/gone";
            let dir = Directory::open(root, root.as_ref(), env.files(), 0, env.wall()).unwrap();
            dir.open_staged("first").unwrap();
            env.files().remove_dir_all("/savepoints".as_ref()).unwrap();
            let staged = dir.stage("a/b", &vec!["mine".into()]).unwrap();
            assert_eq!(dir.publish_new(staged, "a/b").unwrap(), Created::New);
            sim.crash();
            assert_eq!(dir.read("a/b", 0..9).unwrap().expect("the power failed, and it is gone"), "mine");
        });
    }
}
