//! What is read through copies has the bytes of the file that the manifest names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use env::{Store, sim::Simulation};
use tidegate_checkpoint::local_recovery::{LocalStore, ReadBytes};

use super::{PIECE, assert_reads, begun, content, run, run_path};

const FETCHED_AT_ONCE: usize = 4 << 20;

#[test]
fn a_copy_has_the_bytes_of_the_file_however_long_it_is() {
    let lens = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, FETCHED_AT_ONCE, FETCHED_AT_ONCE + 1];
    for len in lens {
        for fetched in [false, true] {
            Simulation::new(1).run(async |env| {
                let (content, path) = (content(len), run_path(0, 1));
                let store = env.open_store("sim:far").unwrap();
                let runs = [run(&path, &content)];
                let bytes = Bytes::from(content.clone());
                let local = begun(&env, 0, &[]).await;
                if fetched {
                    store.put(&path, vec![bytes]).await.unwrap();
                } else {
                    // As an upload writes, and as a merge does.
                    let through = LocalStore::new(Arc::clone(&store), Some(local.clone()), &[]);
                    if len % 2 == 0 {
                        let (one, two) = (bytes.slice(..len / 2), bytes.slice(len / 2..));
                        through.put(&path, vec![one, two]).await.unwrap();
                    } else {
                        let mut writer = through.writer(&path).await.unwrap();
                        writer.write(bytes).await.unwrap();
                        writer.finish().await.unwrap();
                    }
                }
                drop(local);
                let counts = Arc::new(ReadBytes::default());
                let local = begun(&env, 1, &runs).await;
                let through =
                    LocalStore::new(Arc::clone(&store), Some(local.clone()), &runs).restoring(&counts);
                assert_reads(&through, &path, &content).await;
                let read = (counts.local() > 0, counts.store());
                let from_store = if fetched { len as u64 } else { 0 };
                // An empty file is not worth a copy, and read from the store.
                assert_eq!(read, (!fetched && len > 0, from_store), "{len} bytes");
            });
        }
    }
}

#[test]
fn a_copy_that_changes_after_it_was_checked_is_noticed() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let (content, path) = (content(3 * PIECE), run_path(0, 1));
        let runs = [run(&path, &content)];
        let store = env.open_store("sim:far").unwrap();
        let through = LocalStore::new(Arc::clone(&store), Some(begun(&env, 0, &[]).await), &runs);
        through.put(&path, vec![content.clone().into()]).await.unwrap();
        let counts = Arc::new(ReadBytes::default());
        let through = through.restoring(&counts);
        assert_eq!(through.get_range(&path, 0..9).await.unwrap().unwrap(), &content[..9]);
        let copies = env.files().read_dir(Path::new("/local")).unwrap();
        let directory = copies.iter().find(|path| path.extension().is_none()).unwrap();
        let copy = directory.join("attempt-0+runs+it+0-1.run");
        control.disk().damage(&copy, |bytes| bytes[2 * PIECE] ^= 4).unwrap();
        // Where it has not changed it is good still.
        assert_eq!(through.get_range(&path, 9..19).await.unwrap().unwrap(), &content[9..19]);
        assert_eq!((counts.local(), counts.store()), (19, 0));
        let all = through.get_range(&path, 0..content.len() as u64).await.unwrap().unwrap();
        assert!(all == content);
        assert_eq!((counts.local(), counts.store()), (19, content.len() as u64));
        assert!(env.files().metadata(&copy).unwrap().is_none(), "it is dropped");
        let said: Vec<_> = control.printed().into_iter().map(|(_, line)| line).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("it has changed since it was checked"), "{said:?}");
    });
}

#[test]
fn what_the_store_has_of_a_file_is_copied_only_if_the_manifest_names_it() {
    for harm in ["shorter", "longer", "other bytes", "missing"] {
        let sim = Simulation::new(1);
        let control = sim.control();
        sim.run(async |env| {
            let (content, path) = (content(1000), run_path(0, 1));
            let runs = [run(&path, &content)];
            let mut stored = content.clone();
            match harm {
                "shorter" => drop(stored.pop()),
                "longer" => stored.push(7),
                _ => stored[500] ^= 1,
            }
            let store = env.open_store("sim:far").unwrap();
            if harm != "missing" {
                store.put(&path, vec![stored.clone().into()]).await.unwrap();
            }
            let counts = Arc::default();
            let through = LocalStore::new(store, Some(begun(&env, 1, &runs).await), &runs).restoring(&counts);
            let found = through.get_range(&path, 0..2000).await.unwrap();
            // Whoever reads it sees for himself.
            assert_eq!(found.as_deref(), (harm != "missing").then_some(&stored[..]), "{harm}");
            let left = env.files().read_dir(Path::new("/local")).unwrap();
            let directory = left.iter().find(|path| path.extension().is_none()).unwrap();
            assert_eq!(env.files().read_dir(directory).unwrap(), [""; 0].map(PathBuf::from), "{harm}");
            assert_eq!(control.printed(), [], "{harm}");
        });
    }
}
