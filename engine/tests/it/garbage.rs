//! Nothing stays in a checkpoint directory that nothing refers to.

use std::{collections::BTreeSet, time::Duration};

use checkpoint::{
    collect::Collector,
    history::{self, From, JobLock, StartRequest, Started},
    snapshots,
    storage::paths,
};
use env::{Env, FaultPoint, sim::FaultAction};
use tidegate_engine::cluster::attempt::Ask;
use types::{AttemptId, MaxParallelism, Result, SubtaskIndex, Uid};

use crate::{
    counting::{counting, endless},
    ledger::Ledger,
    world::{simulate, start},
};

/// Files that nobody needs, by what `verify` says of the directory at `url`.
async fn needless(env: &Env, url: &str) -> Vec<String> {
    let report = snapshots::verify(env, env.open_store(url).unwrap(), &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    report.problems.iter().map(ToString::to_string).collect()
}

/// Collects all garbage of job "subject", which no process runs, as an attempt of it would; then the retained checkpoint
/// is whole and nothing else is there.
///
/// # Errors
/// A fault that was still armed went off.
pub(crate) async fn collect_all(env: &Env, url: &str) -> Result<()> {
    let store = env.open_store(url)?;
    let lock = JobLock::acquire(env, &*store, true).await?;
    let request = StartRequest { from: From::None, ..StartRequest::new("subject", MaxParallelism(128), 1) };
    let Started::Running(mut history, _) = history::start(env, store.clone(), &lock, &request).await? else {
        panic!("it is started anew")
    };
    let mut collector = Collector::new(env, store, 1);
    loop {
        let before = history.newest().number;
        collector.collect(&mut history, &BTreeSet::new(), true).await?;
        let left = needless(env, url).await;
        if left.is_empty() {
            return Ok(());
        }
        assert!(history.newest().number > before, "nobody collects {left:?}");
    }
}

#[test]
fn what_died_with_an_attempt_goes_after_the_first_checkpoint_of_the_next() {
    simulate(async |sim, env| {
        let settings =
            [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off"), ("parallelism", "2")];
        let ledger = Ledger::default();
        let job = || counting(&endless(), &settings, &ledger);
        let (process, handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        sim.arm(FaultPoint::ManifestAfter, 1, FaultAction::Kill);
        tokio::select! {
            biased;
            () = process.died() => {}
            answer = handle.control().ask(Ask::Checkpoint) => panic!("{answer:?}"),
        }
        // Far more than one garbage mark lists.
        let (store, count) = (env.open_store("/checkpoints").unwrap(), Uid::new("count").unwrap());
        for number in 1_000..1_600 {
            let orphan = paths::run(AttemptId(0), &count, SubtaskIndex(0), number);
            store.put(&orphan, vec!["nobody needs it".into()]).await.unwrap();
        }
        assert!(needless(&env, "/checkpoints").await.len() > 600);

        let (_process, handle) = start(sim, job()).await.unwrap();
        for left in [400, 100, 0] {
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            let needless = needless(&env, "/checkpoints").await;
            assert!(needless.len() <= left, "{left}: {needless:?}");
        }
    });
}
