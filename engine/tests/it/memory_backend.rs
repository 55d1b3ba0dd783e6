//! Checkpoints in memory: they are limited, and a checkpoint that does not fit fails with one line.

use std::time::Duration;

use checkpoint::coordinator::CheckpointOutcome;
use tidegate_engine::{cluster::view::JobView, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

/// Both ways to say so: a backend, and a URL.
const IN_MEMORY: [(&str, &str); 2] = [("state.backend", "memory"), ("checkpoints.url", "memory:checkpoints")];

/// Counts 100 new keys each second for a minute, with a checkpoint every second; how it stands then.
fn after_a_minute(in_memory: (&str, &str), limit: &str) -> JobView {
    simulate(async |sim, env| {
        let settings = [
            in_memory,
            ("allow-volatile", "true"),
            ("checkpoints.interval", "1s"),
            ("checkpoints.memory-max-size", limit),
            ("restart", "none"),
        ];
        let job = with_settings(Job::new("volatile"), &settings).unwrap();
        job.source("numbers", Numbers::endless(1).paced(1, Duration::from_millis(10)))
            .key_by(|number| *number)
            .count("count")
            .map(|(key, count)| Row(Kind::Count, key, count))
            .sink("out", Ledger::default());
        let (_process, handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(60)).await;
        let said = sim.printed().into_iter().any(|(_, line)| line.contains("die with this process"));
        assert!(said, "{:?}", sim.printed());
        handle.control().view()
    })
}

#[test]
fn a_checkpoint_that_does_not_fit_fails_in_one_line() {
    for in_memory in IN_MEMORY {
        does_not_fit(&after_a_minute(in_memory, "20KiB"));
    }
}

fn does_not_fit(view: &JobView) {
    let failed = view.checkpoints.history.iter().find_map(|one| match &one.outcome {
        CheckpointOutcome::Failed { reason } => Some(reason.clone()),
        _ => None,
    });
    let failed = failed.expect("a checkpoint fails");
    for text in
        ["no room in memory for", "the limit is 20480", "checkpoints.memory-max-size", "--checkpoints DIR"]
    {
        assert!(failed.contains(text), "{text:?} is missing in: {failed}");
    }
    assert!(!failed.contains('\n'), "{failed}");
    assert!(view.last_checkpoint.is_some(), "the first ones fit");
    let (_, why) = view.failures.last().expect("too many failures in a row end the attempt");
    assert!(why.contains("checkpoints.memory-max-size"), "{why}");
}

#[test]
fn what_fits_is_kept() {
    for in_memory in IN_MEMORY {
        let view = after_a_minute(in_memory, "10MiB");
        assert_eq!((view.checkpoints.failed, view.failures.len()), (0, 0), "{:?}", view.checkpoints.history);
        assert!(view.checkpoints.completed > 50);
    }
}
