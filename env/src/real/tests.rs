//! The real world on this machine: files, locks, stores, tasks, sockets.

#![allow(clippy::unwrap_used)]

use std::{fs, io, path::Path, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use types::ErrorKind;

use crate::{Created, Env, FileKind, store_conformance};

fn real<T>(body: impl AsyncFnOnce(Env, &Path) -> T) -> T {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { body(Env::real(), dir.path()).await })
}

#[test]
fn only_a_reader_that_has_gone_away_is_no_reason_to_fail() {
    assert!(super::printed(Ok(())).is_ok());
    assert!(super::printed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
    let full = super::printed(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    assert!(full.to_string().starts_with("cannot write to standard output: "), "{full}");
}

fn url(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_local_store_conforms() {
    real(async |env, dir| {
        let url = format!("file://{}/store", dir.display());
        let store = env.open_store(&url).unwrap();
        assert_eq!(store.url(), url);
        assert_eq!(store.local_dir(), Some(dir.canonicalize().unwrap().join("store")));
        store_conformance(&env, store).await;
    });
}

#[test]
fn the_memory_store_conforms() {
    real(async |env, _| store_conformance(&env, env.open_store("memory:x").unwrap()).await);
}

#[test]
fn memory_stores_are_told_apart_by_name() {
    real(async |env, _| {
        let (one, same, other) = (
            env.open_store("memory:a").unwrap(),
            env.open_store("memory:a").unwrap(),
            env.open_store("memory:b").unwrap(),
        );
        assert_eq!(one.create("x", vec![Bytes::from_static(b"1")]).await.unwrap(), Created::New);
        assert_eq!(same.create("x", vec![]).await.unwrap(), Created::Exists);
        assert_eq!(other.get("x").await.unwrap(), None);
    });
}

#[test]
fn rival_openings_of_a_directory_share_it() {
    real(async |env, dir| {
        let (one, two) = (env.open_store(url(dir)).unwrap(), env.open_store(url(dir)).unwrap());
        assert_eq!(one.create("a/x", vec![Bytes::from_static(b"1")]).await.unwrap(), Created::New);
        assert_eq!(two.create("a/x", vec![]).await.unwrap(), Created::Exists);
        fs::remove_dir_all(dir.join("a")).unwrap();
        fs::remove_dir_all(dir.join("staging~")).unwrap();
        let again = one.create("a/x", vec![Bytes::from_static(b"2")]).await.unwrap();
        assert_eq!(again, Created::New, "a directory that vanished is made again");
        assert_eq!(two.get("a/x").await.unwrap().as_deref(), Some(&b"2"[..]));
    });
}

#[test]
fn directories_that_hold_nothing_any_more_go_with_what_they_held() {
    real(async |env, dir| {
        let dir = dir.join("store");
        let store = env.open_store(url(&dir)).unwrap();
        let paths = ["a/b/x", "a/c/y", "z"].map(str::to_owned);
        for path in &paths {
            store.put(path, vec![]).await.unwrap();
        }
        store.tidy().await.unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        for path in &paths[..1] {
            store.delete(path).await.unwrap();
        }
        store.prune(&paths).await.unwrap();
        assert!(!dir.join("a/b").exists() && dir.join("a/c/y").exists() && dir.join("z").exists());
        for path in &paths {
            store.delete(path).await.unwrap();
        }
        store.prune(&paths).await.unwrap();
        assert!(
            !dir.join("a").exists() && dir.join("empty").exists(),
            "an empty directory of somebody else's"
        );
        store.put("a/b/x", vec![]).await.unwrap();
        store.delete("a/b/x").await.unwrap();
        fs::remove_dir(dir.join("empty")).unwrap();
        store.tidy().await.unwrap();
        store.prune(&paths).await.unwrap();
        assert!(!dir.exists(), "nothing is left in it");
    });
}

#[test]
fn the_rubbish_of_dead_writers_is_hidden_and_goes_after_a_day() {
    real(async |env, dir| {
        let staging = dir.join("staging~");
        fs::create_dir(&staging).unwrap();
        for (name, age) in [("old", Duration::from_secs(25 * 3600)), ("new", Duration::from_secs(3600))] {
            let file = fs::File::create(staging.join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        let store = env.open_store(url(dir)).unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
        store.put("x", vec![]).await.unwrap();
        assert!(!staging.join("old").exists());
        assert!(staging.join("new").exists());
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1, "a staged file was left");
    });
}

#[test]
fn what_cannot_be_a_store_is_refused_with_its_path() {
    real(async |env, dir| {
        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        for bad in [file.clone(), file.join("below")] {
            let error = env.open_store(url(&bad)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains(url(&bad)), "{error}");
        }
        assert_eq!(env.open_store("hdfs://x").err().unwrap().kind(), ErrorKind::InvalidJob);
    });
}

#[test]
fn rename_new_never_replaces() {
    real(async |env, dir| {
        let files = env.files();
        let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
        for (path, text) in [(&a, "a"), (&b, "b")] {
            let mut file = files.create_new(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        assert_eq!(files.create_new(&a).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(files.rename_new(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&b).unwrap(), b"b");
        files.rename_new(&a, &c).unwrap();
        assert_eq!(files.read_dir(dir).unwrap(), [b.clone(), c.clone()]);
        files.rename(&c, &b).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"a");
        files.sync_dir(dir).unwrap();
    });
}

#[test]
fn a_directory_goes_only_if_it_is_empty() {
    real(async |env, dir| {
        let (files, above) = (env.files(), dir.join("above"));
        fs::create_dir_all(above.join("below")).unwrap();
        fs::write(above.join("below/mine"), "mine").unwrap();
        for there in [&above, &above.join("below")] {
            assert!(!files.remove_dir(there).unwrap());
        }
        assert_eq!(
            files.remove_dir(&above.join("below/mine")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        fs::remove_file(above.join("below/mine")).unwrap();
        for gone in [&above.join("below"), &above, &above] {
            assert!(files.remove_dir(gone).unwrap());
        }
        assert!(!above.exists());
    });
}

#[test]
fn append_cuts_and_goes_on() {
    real(async |env, dir| {
        let (files, path) = (env.files(), dir.join("log"));
        files.create_new(&path).unwrap().write_all(b"0123456789").unwrap();
        files.append(&path, 4).unwrap().write_all(b"abc").unwrap();
        let file = files.open(&path).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(file.read_at(2, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"23abc");
        assert_eq!((file.len().unwrap(), file.read_at(7, &mut bytes).unwrap()), (7, 0));
        assert_eq!(files.append(&path, 8).err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
        let meta = files.metadata(&path).unwrap().unwrap();
        assert_eq!((meta.kind, meta.len), (FileKind::File, 7));
        assert_eq!(files.metadata(&path.join("x")).unwrap(), None);
    });
}

#[test]
fn a_lock_has_one_holder_and_names_it() {
    real(async |env, dir| {
        let (files, path) = (env.files(), dir.join("lock"));
        let held = files.lock(&path, "process 17").unwrap().unwrap();
        assert_eq!(files.lock(&path, "process 18").unwrap().err().unwrap(), "process 17");
        drop(held);
        let held = files.lock(&path, "19").unwrap().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"19");
        drop(held);
    });
}

#[test]
fn panics_become_errors_with_their_text() {
    real(async |env, _| {
        let task = env.spawn_task("the task", async { panic!("the {}", "reason") });
        let error = task.join().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.to_string(), "the task panicked: the reason");
        let error = env.blocking("the work", || -> u32 { panic!("why") }).await.unwrap_err();
        assert_eq!(error.to_string(), "the work panicked: why");
        assert_eq!(env.blocking("work", || 7).await.unwrap(), 7);
    });
}

#[test]
fn an_aborted_task_is_cancelled() {
    real(async |env, _| {
        let task = env.spawn_task("endless", std::future::pending());
        task.abort();
        assert_eq!(task.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn a_taken_address_is_named() {
    real(async |env, _| {
        let mut listener = env.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().unwrap();
        let error = env.listen(&address).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address), "{error}");
        let (near, far) = tokio::join!(env.connect(&address), listener.accept());
        near.unwrap();
        far.unwrap();
    });
}

#[test]
fn clocks_and_seeds_are_the_machines() {
    real(async |env, _| {
        let (before, wall) = (env.now(), env.wall());
        env.sleep(Duration::from_millis(2)).await;
        assert!(env.now().since(before) >= Duration::from_millis(2));
        assert!(env.wall() >= wall && wall.0 > 1_700_000_000_000);
        assert_ne!(env.seed("a"), env.seed("a"));
    });
}
