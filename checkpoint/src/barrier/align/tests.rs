//! The aligner by example, and against every order in which channels can be read.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn id(checkpoint: u64) -> CheckpointId {
    CheckpointId(checkpoint)
}

fn aligner(inputs: usize, mode: CheckpointMode) -> Aligner {
    Aligner::new(inputs, mode, id(0))
}

fn exactly_once(inputs: usize) -> Aligner {
    aligner(inputs, CheckpointMode::ExactlyOnce)
}

fn step(then: Align, aborted: &[u64]) -> AlignStep {
    AlignStep { then, aborted: aborted.iter().copied().map(CheckpointId).collect() }
}

#[test]
fn an_input_that_delivered_waits_for_the_others() -> Result<()> {
    let mut aligner = exactly_once(3);
    assert_eq!(aligner.on_barrier(1, id(1))?, step(Align::Wait, &[]));
    assert_eq!([0, 1, 2].map(|input| aligner.is_blocked(input)), [false, true, false]);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(2, id(1))?, step(Align::Cut, &[]));
    assert!(!aligner.is_aligning());
    Ok(())
}

#[test]
fn at_least_once_blocks_nothing_and_cuts_at_the_last() -> Result<()> {
    let mut aligner = aligner(2, CheckpointMode::AtLeastOnce);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    assert!(!aligner.is_blocked(0));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(1))?, step(Align::Cut, &[]));
    assert_eq!(aligner.on_barrier(1, id(2))?, step(Align::Cut, &[]));
    Ok(())
}

#[test]
fn at_least_once_aborts_the_older_ones_that_a_newer_cut_passes() -> Result<()> {
    let mut aligner = aligner(2, CheckpointMode::AtLeastOnce);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(2))?, step(Align::Cut, &[1]));
    Ok(())
}

#[test]
fn a_single_input_cuts_at_once() -> Result<()> {
    let mut aligner = exactly_once(1);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Cut, &[]));
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Ignore, &[]));
    aligner.on_cancel(id(2));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Ignore, &[]));
    assert_eq!(aligner.on_barrier(0, id(4))?, step(Align::Cut, &[]));
    assert!(aligner.on_barrier(0, id(3)).is_err());
    Ok(())
}

#[test]
fn a_newer_barrier_aborts_the_older_and_frees_its_inputs() -> Result<()> {
    let mut aligner = exactly_once(3);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(2))?, step(Align::Wait, &[1]));
    assert_eq!([0, 1, 2].map(|input| aligner.is_blocked(input)), [false, true, false]);
    // The slowest input still has the old one.
    assert_eq!(aligner.on_barrier(2, id(1))?, step(Align::Ignore, &[]));
    assert_eq!(aligner.on_barrier(2, id(2))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Cut, &[]));
    Ok(())
}

#[test]
fn an_older_barrier_never_seen_before_is_declined() -> Result<()> {
    let mut aligner = exactly_once(2);
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(1))?, step(Align::Ignore, &[1]));
    assert!(!aligner.is_blocked(1));
    assert_eq!(aligner.on_barrier(1, id(2))?, step(Align::Cut, &[]));
    Ok(())
}

#[test]
fn cancelling_frees_the_inputs_and_late_barriers_are_ignored() -> Result<()> {
    let mut aligner = exactly_once(2);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    aligner.on_cancel(id(1));
    assert!(!aligner.is_blocked(0));
    assert_eq!(aligner.on_barrier(1, id(1))?, step(Align::Ignore, &[]));
    aligner.on_cancel(id(2));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Ignore, &[]));
    assert_eq!(aligner.on_barrier(0, id(3))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(3))?, step(Align::Cut, &[]));
    Ok(())
}

#[test]
fn what_cannot_be_is_an_error() -> Result<()> {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce, id(7));
    assert!(aligner.on_barrier(0, id(6)).is_err());
    assert!(aligner.on_barrier(2, id(8)).is_err());
    assert_eq!(aligner.on_barrier(0, id(8))?, step(Align::Wait, &[]));
    assert!(aligner.on_barrier(0, id(9)).is_err(), "a blocked input was read");
    assert!(aligner.on_end(0).is_err(), "a blocked input was read");
    assert!(!aligner.on_end(1)?);
    assert!(aligner.on_end(1).is_err());
    Ok(())
}

#[test]
fn barriers_follow_the_end_of_an_input() -> Result<()> {
    let mut aligner = exactly_once(2);
    assert!(!aligner.on_end(0)?);
    assert_eq!(aligner.on_barrier(0, id(1))?, step(Align::Wait, &[]));
    assert_eq!(aligner.on_barrier(1, id(1))?, step(Align::Cut, &[]));
    assert!(aligner.on_end(1)?);
    assert_eq!(aligner.on_barrier(1, id(2))?, step(Align::Wait, &[]));
    // Its next barrier must not overtake this one.
    assert!(aligner.is_blocked(1) && !aligner.is_blocked(0));
    assert_eq!(aligner.on_barrier(0, id(2))?, step(Align::Cut, &[]));
    Ok(())
}

/// What a channel holds: a record, or a barrier.
#[derive(Clone, Copy, Debug)]
enum Item {
    Record,
    Barrier(u64),
}

/// Which of the barriers 1 to 3 an input carries (those it lacks were given up before it), a record between each two.
fn channel(carries: u8) -> VecDeque<Item> {
    let mut items = VecDeque::from([Item::Record]);
    for checkpoint in (1..=3).filter(|bit| carries & (1 << bit) != 0) {
        items.extend([Item::Barrier(checkpoint), Item::Record]);
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the channels are read and wherever cancellations come, a cut of n has read every input exactly up to
    /// its barrier n (never beyond it in exactly-once mode), cuts grow, everything is read in the end, and each
    /// barrier that all inputs carry is cut unless it was cancelled or declined.
    #[test]
    fn every_reading_order_cuts_right(
        carries in prop::collection::vec(0_u8..16, 1..4),
        at_least_once: bool,
        order in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..20), 200),
    ) {
        let mode = if at_least_once { CheckpointMode::AtLeastOnce } else { CheckpointMode::ExactlyOnce };
        let mut aligner = aligner(carries.len(), mode);
        let mut channels: Vec<_> = carries.iter().map(|bits| channel(*bits)).collect();
        let mut last_read = vec![0_u64; carries.len()];
        let mut given_up: BTreeMap<u64, &str> = BTreeMap::new();
        let mut cuts = Vec::new();
        for (choice, cancel) in order {
            let ready: Vec<_> = (0..channels.len())
                .filter(|input| !aligner.is_blocked(*input) && !channels[*input].is_empty())
                .collect();
            if (1..=3).contains(&cancel) {
                let checkpoint = u64::from(cancel);
                aligner.on_cancel(id(checkpoint));
                given_up.entry(checkpoint).or_insert("cancelled");
                continue;
            }
            if ready.is_empty() {
                break;
            }
            let input = ready[choice.index(ready.len())];
            let Some(Item::Barrier(checkpoint)) = channels[input].pop_front() else { continue };
            last_read[input] = checkpoint;
            let step = aligner.on_barrier(input, id(checkpoint)).expect("the channel keeps its order");
            for aborted in step.aborted {
                given_up.entry(aborted.0).or_insert("declined");
            }
            if step.then == Align::Cut {
                prop_assert!(cuts.last().is_none_or(|last| *last < checkpoint), "cuts {cuts:?} then {checkpoint}");
                prop_assert!(last_read.iter().all(|read| *read >= checkpoint));
                if !at_least_once {
                    prop_assert!(last_read.iter().all(|read| *read == checkpoint), "read {last_read:?}");
                }
                cuts.push(checkpoint);
            }
        }
        // Those that some input lacks were given up further up, and the coordinator says so in the end.
        for checkpoint in 1..=3 {
            if carries.iter().any(|bits| bits & (1 << checkpoint) == 0) {
                aligner.on_cancel(id(checkpoint));
            }
        }
        while let Some(input) =
            (0..channels.len()).find(|input| !aligner.is_blocked(*input) && !channels[*input].is_empty())
        {
            let Some(Item::Barrier(checkpoint)) = channels[input].pop_front() else { continue };
            let step = aligner.on_barrier(input, id(checkpoint)).expect("the channel keeps its order");
            if step.then == Align::Cut {
                cuts.push(checkpoint);
            }
        }
        prop_assert!(channels.iter().all(VecDeque::is_empty), "an input stays blocked: {aligner:?}");
        for checkpoint in 1..=3 {
            let everywhere = carries.iter().all(|bits| bits & (1 << checkpoint) != 0);
            if everywhere && !given_up.contains_key(&checkpoint) {
                prop_assert!(cuts.contains(&checkpoint), "checkpoint {checkpoint} was never cut: {cuts:?}");
            }
        }
    }
}
