//! A disk that hangs: nobody waits for it, it is not asked again until it answers, and no copy is lost by that.

use std::{sync::Arc, time::Duration};

use env::{
    Env, Store,
    sim::{Control, Options, Simulation},
};
use futures::future::join_all;
use tidegate_checkpoint::local_recovery::{LocalRecovery, LocalStore, ReadBytes};
use types::{AttemptId, CheckpointId, JobId, Run};

use super::{PIECE, begun, content, directories, run, run_path};

/// How long a disk that hangs takes for a call, at the most.
const HANGS: Duration = Duration::from_secs(50_000);

/// A simulation in which a store is far away, and local recovery keeps copies of what is in it.
fn with_copies(seed: u64, body: impl AsyncFnOnce(&Control, &Env, Arc<dyn Store>, LocalRecovery)) {
    let sim = Simulation::new(seed);
    let control = sim.control();
    sim.run(async |env| {
        let store = env.open_store("sim:far").unwrap();
        let local = begun(&env, 0, &[]).await;
        body(&control, &env, store, local).await;
    });
}

#[test]
fn a_disk_that_hangs_holds_nobody_up_and_is_not_asked_again() {
    for seed in 0..6 {
        with_copies(seed, async |control, env, store, local| {
            let content = content(4 * PIECE);
            let run = run(&run_path(0, 1), &content);
            let through =
                LocalStore::new(Arc::clone(&store), Some(local.clone()), std::slice::from_ref(&run));
            let write = async |number: u64| {
                let (path, since) = (run_path(0, number), env.now());
                let mut writer = through.writer(&path).await.unwrap();
                writer.write(content.clone().into()).await.unwrap();
                writer.finish().await.unwrap();
                through.put(&run_path(0, number + 1), vec![content.clone().into()]).await.unwrap();
                assert_eq!(store.get(&path).await.unwrap().unwrap(), content);
                env.now().since(since)
            };
            // A checkpoint lists what it is of and is completed; before, a restore of it reads what there are copies of.
            let complete = async |checkpoint: u64, number: u64| {
                let since = env.now();
                let read = through.get_range(&run.file.path, 0..content.len() as u64).await.unwrap().unwrap();
                assert!(read == content, "seed {seed}");
                let listed = [number, number + 1].map(|number| run_path(0, number));
                local.listed(CheckpointId(checkpoint), listed.iter().map(String::as_str));
                local.completed(CheckpointId(checkpoint)).await;
                env.now().since(since)
            };
            write(1).await;
            let copies = || directories(&*env.files()).values().sum::<usize>();
            assert_eq!(copies(), 2, "seed {seed}");

            let usual = control.options();
            control.set_options(Options { blocking_delay: HANGS, ..usual });
            let many = || join_all((10..50).step_by(2).map(write));
            let first = match seed % 3 {
                0 => many().await.into_iter().max().unwrap(),
                1 => write(10).await,
                // Of tasks that end meanwhile.
                _ => {
                    assert!(env.timeout(Duration::from_secs(1), many()).await.is_none(), "seed {seed}");
                    write(50).await
                }
            };
            assert!(first < Duration::from_secs(30), "seed {seed}: a checkpoint waited for {first:?}");
            for checkpoint in 2..20 {
                // Copies are given up while they cannot be removed.
                let number = if checkpoint < 10 { 1 } else { 7 };
                let next = complete(checkpoint, number).await + write(60 + 2 * checkpoint).await;
                assert!(
                    next < Duration::from_secs(1),
                    "seed {seed}: the disk is asked again at once: {next:?}"
                );
                env.sleep(Duration::from_secs(20)).await;
            }
            let calls = control.blocking_calls();
            assert!((1..=2).contains(&calls), "seed {seed}: {calls} calls wait for the disk");
            let told =
                control.printed().into_iter().filter(|(_, line)| line.contains("left out for now")).count();
            assert_eq!(told, 1, "seed {seed}: {:?}", control.printed());

            control.set_options(usual);
            env.sleep(HANGS).await;
            write(7).await;
            complete(20, 7).await;
            assert_eq!(copies(), 2, "seed {seed}: it is used again, and what was owed is gone");
        });
    }
}

/// A restore reads the store while the disk says nothing, and the copies when it does.
#[test]
fn a_disk_that_hangs_costs_no_copies() {
    for seed in 0..6 {
        with_copies(seed, async |control, env, store, local| {
            let content = content(4 * PIECE);
            let runs: Vec<Run> = (0..20).map(|number| run(&run_path(0, number), &content)).collect();
            let through = LocalStore::new(Arc::clone(&store), Some(local.clone()), &[]);
            for run in &runs {
                through.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
            }
            let named = runs.iter().map(|run| &*run.file.path);
            local.begin(JobId(1), AttemptId(1), CheckpointId(1), named).await;
            let counts = Arc::new(ReadBytes::default());
            let restoring =
                LocalStore::new(Arc::clone(&store), Some(local.clone()), &runs).restoring(&counts);
            let read = async || {
                let since = env.now();
                let all = join_all(runs.iter().map(async |run| {
                    let whole = restoring.get_range(&run.file.path, 0..content.len() as u64).await;
                    assert!(whole.unwrap().unwrap() == content, "seed {seed}");
                }));
                all.await;
                env.now().since(since)
            };
            let usual = control.options();
            control.set_options(Options { blocking_delay: HANGS, ..usual });
            let took = read().await;
            assert!(took < Duration::from_secs(30), "seed {seed}: a restore waited for {took:?}");
            assert_eq!(counts.local(), 0, "seed {seed}");
            control.set_options(usual);
            env.sleep(HANGS).await;
            local.completed(CheckpointId(1)).await;
            assert_eq!(directories(&*env.files()).values().sum::<usize>(), runs.len(), "seed {seed}");
            read().await;
            assert_eq!(counts.local(), (runs.len() * content.len()) as u64, "seed {seed}");
        });
    }
}
