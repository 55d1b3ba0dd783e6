//! A process that dies leaves no copy behind that is used and wrong.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use env::{Files, Store, sim::Simulation};
use futures::future::{Either, select};
use tidegate_checkpoint::local_recovery::{LocalStore, ReadBytes};

use super::{PIECE, assert_reads, begun, content, run, run_path};

#[test]
fn a_process_that_dies_at_any_moment_leaves_no_copy_that_is_used_and_wrong() {
    let mut died = 0;
    for change in 1.. {
        let sim = Simulation::new(change);
        let control = sim.control();
        let ended = sim.run(async |env| {
            let store = env.open_store("sim:far").unwrap();
            let contents: Vec<_> =
                (1..=4_u64).map(|number| (number, content(number as usize * 300))).collect();
            let runs: Vec<_> =
                contents.iter().map(|(number, content)| run(&run_path(0, *number), content)).collect();
            let (process, in_it) = control.process("it");
            let local = begun(&in_it, 0, &[]).await;
            control.disk().crash_at(change);
            let far = in_it.open_store("sim:far").unwrap();
            let through = LocalStore::new(far, Some(local), &[]);
            for ((_, content), run) in contents.iter().zip(&runs) {
                let bytes = Bytes::from(content.clone());
                // The power fails, and what hears of it is gone.
                let put = through.put(&run.file.path, vec![bytes.slice(..100), bytes.slice(100..)]);
                if let Either::Left(_) = select(Box::pin(process.died()), put).await {
                    break;
                }
            }
            let has_died = !process.is_alive();
            for ((_, content), run) in contents.iter().zip(&runs) {
                store.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
            }
            let counts = Arc::new(ReadBytes::default());
            let through = LocalStore::new(store, Some(begun(&env, 1, &runs).await), &runs).restoring(&counts);
            for ((_, content), run) in contents.iter().zip(&runs) {
                assert_reads(&through, &run.file.path, content).await;
            }
            died += u64::from(has_died);
            !has_died
        });
        if ended {
            break;
        }
    }
    assert!(died > 10, "{died} died");
}

#[test]
fn a_process_that_is_killed_leaves_whole_copies_and_what_is_half_written_goes() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let contents: Vec<_> = (1..=3_usize).map(|number| content(number * PIECE)).collect();
        let number = |at: usize| at as u64 + 1;
        let runs: Vec<_> =
            contents.iter().enumerate().map(|(at, content)| run(&run_path(0, number(at)), content)).collect();
        let (process, in_it) = control.process("it");
        let local = begun(&in_it, 0, &[]).await;
        let through = LocalStore::new(in_it.open_store("sim:far").unwrap(), Some(local), &[]);
        for (content, run) in contents.iter().zip(&runs).take(2) {
            through.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
        }
        let mut writer = through.writer(&runs[2].file.path).await.unwrap();
        writer.write(Bytes::from(contents[2][..PIECE].to_vec())).await.unwrap();
        let files = env.files();
        let directory = files.read_dir(Path::new("/local")).unwrap();
        let directory = directory.into_iter().find(|path| path.extension().is_none()).unwrap();
        assert_eq!(files.read_dir(&directory).unwrap().len(), 3);
        process.kill();
        drop(writer);
        let names = |files: &dyn Files| -> Vec<String> {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            files.read_dir(&directory).unwrap().into_iter().map(name).collect()
        };
        assert_eq!(names(&*files)[2], "attempt-0+runs+it+0-3.run.partial", "the dead clean nothing up");

        let store = env.open_store("sim:far").unwrap();
        store.put(&runs[2].file.path, vec![contents[2].clone().into()]).await.unwrap();
        let counts = Arc::new(ReadBytes::default());
        let local = begun(&env, 1, &runs).await;
        assert_eq!(names(&*files), ["attempt-0+runs+it+0-1.run", "attempt-0+runs+it+0-2.run"]);
        let through = LocalStore::new(store, Some(local), &runs).restoring(&counts);
        for (content, run) in contents.iter().zip(&runs) {
            let found = through.get_range(&run.file.path, 0..run.file.len).await.unwrap().unwrap();
            assert!(found == *content);
        }
        let lens = runs.iter().map(|run| run.file.len).collect::<Vec<_>>();
        assert_eq!((counts.local(), counts.store()), (lens[0] + lens[1], lens[2]));
        assert_eq!(names(&*files).len(), 3, "it has a copy now");
    });
}
