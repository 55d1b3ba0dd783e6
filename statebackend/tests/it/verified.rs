//! A verified copy is what it was made of, but for what was to be dropped; anything else is found before it is used.

use std::{collections::BTreeSet, sync::Arc};

use env::{Env, Store};
use statebackend::{
    RunCompression, RunSet, StateSummary, VerifiedCopy, copy_verified, summarize, verify_copy,
};
use types::{CheckpointId, ErrorKind, ExpiryClocks, Result, Run};

use crate::fixture::{Context, MAX, Subtask, declare, identity, key, simulated};

/// Two runs with a value, a list and a map of many keys, some of them gone.
async fn runs(store: &dyn Store) -> Vec<Run> {
    let (_, handles) = declare();
    let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
    for checkpoint in 1..=2 {
        for number in 0..200_u64 {
            let key = key(&format!("key number {number}"));
            let mut ctx = Context { state: &mut subtask.state, key: &key };
            handles.value.set(&mut ctx, number * checkpoint).unwrap();
            handles.map.put(&mut ctx, &(number as u32), checkpoint).unwrap();
            handles.list.append(&mut ctx, format!("line {checkpoint}")).unwrap();
            if number % 7 == checkpoint {
                handles.map.clear(&mut ctx).unwrap();
            }
        }
        subtask.state.flip(CheckpointId(checkpoint));
        subtask.seal(store, 500).await;
    }
    subtask.runs
}

fn without(runs: &[Run], names: &[&str]) -> Vec<Run> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    runs.iter().map(|run| Run { without: names.clone(), ..run.clone() }).collect()
}

async fn copied(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    before: &[Run],
    dropped: &[&str],
) -> Result<Option<Run>> {
    let dropped: BTreeSet<String> = dropped.iter().map(|name| (*name).to_owned()).collect();
    let never = ExpiryClocks::default();
    let copy = VerifiedCopy { from: store, runs: RunSet::new(runs, &never), before, dropped: &dropped };
    store.delete("copy").await.unwrap();
    copy_verified(env, &copy, store, "copy", identity(0, 9), RunCompression::Zstd).await
}

#[test]
fn each_state_that_stays_has_the_digest_that_it_had() {
    simulated(1, async |env: Env, store: Arc<dyn Store>| {
        let runs = runs(&*store).await;
        let before = summarize(&env, &*store, RunSet::unexpired(&runs)).await.unwrap();
        assert_eq!(before.states.len(), 3);
        for dropped in [&[][..], &["by-hour"], &["lines", "total"]] {
            let run = copied(&env, &*store, &without(&runs, dropped), &runs, dropped).await.unwrap().unwrap();
            assert!(run.without.is_empty() && run.tombstones == 0);
            let mut expected: StateSummary = before.clone();
            expected.states.retain(|name, _| !dropped.contains(&name.as_str()));
            assert_eq!(
                summarize(&env, &*store, RunSet::unexpired(&[run])).await.unwrap(),
                expected,
                "{dropped:?}"
            );
        }
        let all = ["by-hour", "lines", "total"];
        assert_eq!(copied(&env, &*store, &without(&runs, &all), &runs, &all).await.unwrap(), None);
        assert_eq!(store.len("copy").await.unwrap(), None, "nothing lives, and nothing is written");
    });
}

#[test]
fn a_copy_that_lost_or_kept_too_much_is_refused() {
    simulated(2, async |env: Env, store: Arc<dyn Store>| {
        let runs = runs(&*store).await;
        let (newest, less) = (runs[1..].to_vec(), without(&runs, &["lines"]));
        for (copies, dropped, state) in [
            // More than was to go.
            (&less, &[][..], "lines"),
            (&less, &["total"], "lines"),
            // Less than was to go.
            (&runs, &["total"], "total"),
            // A run that was left out.
            (&newest, &[], "lines"),
        ] {
            let refused = copied(&env, &*store, copies, &runs, dropped).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
            let text = format!("copy in memory:state: state {state:?} of operator count is not what");
            assert!(refused.message().contains(&text), "{refused}");
        }
    });
}

#[test]
fn a_copy_that_was_there_already_is_read_back_like_a_new_one() {
    simulated(3, async |env: Env, store: Arc<dyn Store>| {
        let runs = runs(&*store).await;
        let copy = copied(&env, &*store, &runs, &runs, &[]).await.unwrap().unwrap();
        let (never, nothing, operator) =
            (ExpiryClocks::default(), BTreeSet::new(), copy.identity.operator.clone());
        let of = |before| VerifiedCopy {
            from: &*store,
            runs: RunSet::new(before, &never),
            before,
            dropped: &nothing,
        };
        let verify =
            async |before, found: &[Run]| verify_copy(&env, &of(before), &*store, found, &operator).await;
        verify(&runs, std::slice::from_ref(&copy)).await.unwrap();
        verify(&[], &[]).await.unwrap();
        // Of an older state, of nothing, and nothing of something.
        for (before, found, place) in [
            (&runs[..1], std::slice::from_ref(&copy), "copy in memory:state: "),
            (&[], std::slice::from_ref(&copy), "copy in memory:state: "),
            (&runs, &[], "memory:state: "),
        ] {
            let refused = verify(before, found).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
            assert!(refused.message().starts_with(place), "{refused}");
        }
    });
}
