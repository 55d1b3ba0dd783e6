//! What came and went between two barriers leaves nothing to write; its checkpoint completes all the same, and does not
//! wait for a change that may never come.

use std::{sync::atomic::Ordering, time::Duration};

use checkpoint::coordinator::CheckpointOutcome;
use statebackend::MapState;
use tidegate_engine::prelude::*;

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{simulate, start, with_settings},
};

/// Fills a map and clears it again with each number.
#[derive(Clone)]
struct Scratch;

impl ProcessFunction for Scratch {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = MapState<u64, u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.map("scratch")
    }

    fn process(&mut self, number: u64, map: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        map.put(ctx, &number, number)?;
        map.put(ctx, &(number + 1), number)?;
        map.clear(ctx)?;
        ctx.emit(number);
        Ok(())
    }
}

#[test]
fn a_map_filled_and_cleared_in_one_interval_delays_no_checkpoint() {
    simulate(async |sim, env| {
        let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "10s")];
        let job = with_settings(Job::new("scratch"), &settings).unwrap();
        // One number in the middle of every third interval.
        let numbers = Numbers::endless(1).paced(1, Duration::from_secs(30));
        let emitted = numbers.emitted();
        job.source("numbers", numbers)
            .key_by(|number| number % 3)
            .process("scratch", Scratch)
            .sink("out", Ledger::default());
        let (_process, handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(300)).await;

        let view = handle.control().view();
        let checkpoints = &view.checkpoints;
        assert!(emitted.load(Ordering::Relaxed) > 5, "too few intervals had changes");
        assert_eq!((checkpoints.failed, view.failures.len()), (0, 0), "{:?}", checkpoints.history);
        assert!(checkpoints.completed > 25, "only {} checkpoints completed", checkpoints.completed);
        for one in &checkpoints.history {
            let took = one.duration.filter(|_| one.outcome == CheckpointOutcome::Completed);
            assert!(took.is_none_or(|took| took < Duration::from_secs(1)), "{one:?}");
        }
    });
}
