//! Operator list states in a whole job, through kills and at any parallelism: the elements of one are dealt out, each to one
//! subtask, those of another all have; in whichever order they are declared.

use std::{collections::BTreeSet, time::Duration};

use checkpoint::{history, manifest};
use env::Env;
use tidegate_engine::{cluster::attempt::Ask, prelude::*};
use types::{Bincode, Codec};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{run, simulate, start, with_settings},
};

fn numbers() -> Numbers {
    Numbers::new(2, 600).paced(3, Duration::from_millis(10))
}

/// Keeps each number in a list of its own, and the hundreds in one that all subtasks have.
#[derive(Clone)]
struct Keeping;

impl ProcessFunction for Keeping {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = (OperatorListState<u64>, OperatorListState<u64>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.operator_list("own"), states.operator_union_list("hundreds"))
    }

    fn process(&mut self, number: u64, lists: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let (own, hundreds) = lists;
        own.get(ctx).push(number);
        if number.is_multiple_of(100) {
            hundreds.get(ctx).push(number);
        }
        // Whoever restores has those of all.
        let mut seen: Vec<u64> = std::mem::take(hundreds.get(ctx));
        seen.sort_unstable();
        seen.dedup();
        *hundreds.get(ctx) = seen;
        ctx.emit(number);
        Ok(())
    }
}

fn job(parallelism: &str, ledger: &Ledger<u64>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "200ms"),
        ("parallelism", parallelism),
        ("restart", "none"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", numbers()).process("keeping", Keeping).sink("out", ledger.clone());
    job
}

/// The elements of a list state in the newest checkpoint, of each subtask.
async fn stored(env: &Env, name: &str) -> Vec<Vec<u64>> {
    let store = env.open_store("/checkpoints").unwrap();
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let completed = newest.standing.completed.last().unwrap().manifest.clone();
    let manifest = manifest::read(env, &*store, &completed).await.unwrap();
    let operator = manifest.operators.iter().find(|it| it.uid.as_str() == "keeping").unwrap();
    let elements = operator.subtasks.iter().map(|subtask| {
        let part = subtask.lists.iter().find(|part| part.name == name).unwrap();
        part.elements.iter().map(|element| Bincode::decode(element).unwrap()).collect()
    });
    elements.collect()
}

#[test]
fn they_are_whole_through_kills_and_at_any_parallelism() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        for parallelism in ["2", "3", "1"] {
            let (process, handle) = start(sim, job(parallelism, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(500)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(100)).await;
            process.kill();
            let own = stored(&env, "own").await.concat();
            let different: BTreeSet<_> = own.iter().collect();
            assert!(own.len() > 50 && different.len() == own.len(), "each number has one subtask: {own:?}");
        }
        run(sim, job("4", &ledger)).await.unwrap();
        let all: BTreeSet<u64> = numbers().all().map(|(number, _)| number).collect();
        let own = stored(&env, "own").await;
        assert_eq!(own.iter().map(Vec::len).sum::<usize>(), all.len());
        assert_eq!(own.concat().into_iter().collect::<BTreeSet<_>>(), all);
        assert!(own.iter().all(|own| !own.is_empty()), "they are dealt out to all");
        let hundreds = stored(&env, "hundreds").await;
        let expected: BTreeSet<u64> = all.into_iter().filter(|number| number.is_multiple_of(100)).collect();
        assert_eq!(hundreds.concat().into_iter().collect::<BTreeSet<_>>(), expected);
        let before = |number: &u64| hundreds.iter().all(|of_one| of_one.contains(number));
        assert!(before(&0) && before(&100), "all have what was there at the last restore: {hundreds:?}");
    });
}
