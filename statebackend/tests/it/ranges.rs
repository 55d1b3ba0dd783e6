//! Any range of key groups out of a run of several blocks: a new owner gets all that is its own, wherever the blocks begin
//! and end, and nothing else.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use statebackend::{
    Declared, KeyRef, KeyedState, RunCompression, StateDeclarations, ValueState, restore, run_of, write_run,
};
use types::{CheckpointId, KeyGroupRange, Timestamp};

use crate::fixture::{Context, MAX, identity, key, simulated, with_and_without_store};

const STATES: usize = 5;
const KEYS: usize = 24;

/// The length of what a state holds of a key: little, or about as much as a block.
type Lengths = BTreeMap<(usize, usize), usize>;

fn lengths() -> impl Strategy<Value = Lengths> {
    let length = prop_oneof![3 => 1..100_usize, 1 => 30_000..70_000_usize];
    vec(((0..STATES, 0..KEYS), length), 1..60).prop_map(|all| all.into_iter().collect())
}

fn declare() -> (Declared, [ValueState<String>; STATES]) {
    let mut states = StateDeclarations::new();
    let handles = std::array::from_fn(|number| states.value(&format!("state-{number}")));
    (states.finish().unwrap(), handles)
}

fn keys() -> Vec<Vec<u8>> {
    (0..KEYS).map(|number| key(&format!("key-{number}"))).collect()
}

fn text((state, key): (usize, usize), length: usize) -> String {
    format!("{state} {key} ").repeat(length / 4 + 1)
}

/// Every range of key groups.
fn ranges() -> impl Iterator<Item = KeyGroupRange> {
    (0..MAX.0).flat_map(|start| (start + 1..=MAX.0).map(move |end| KeyGroupRange { start, end }))
}

fn check(lengths: &Lengths) {
    let (keys, (declared, handles)) = (keys(), declare());
    let group = |key: usize| KeyRef::new(&keys[key], MAX).group;
    simulated(1, async |env, store| {
        let mut state = KeyedState::new(declared.clone(), MAX.all(), CheckpointId(1));
        for (&(number, key), &length) in lengths {
            let mut ctx = Context { state: &mut state, key: &keys[key] };
            handles[number].set(&mut ctx, text((number, key), length)).unwrap();
            state.register_event_timer(KeyRef::new(&keys[key], MAX), Timestamp(0));
        }
        state.flip(CheckpointId(1));
        while state.drain(1000).unwrap() > 0 {}
        let (_, delta) = state.take_sealed().unwrap();
        let written = write_run(delta, identity(0, 1), MAX.all(), RunCompression::None).unwrap();
        let run = run_of(&written, "run");
        store.put("run", written.payload).await.unwrap();
        for (store_name, behind) in with_and_without_store(4) {
            for groups in ranges() {
                let mut state = behind.state(declared.clone(), groups, CheckpointId(2));
                let stats = restore(&env, &*store, std::slice::from_ref(&run), &mut state).await.unwrap();
                let mine: Lengths = lengths
                    .iter()
                    .filter(|((_, key), _)| groups.contains(group(*key)))
                    .map(|(place, length)| (*place, *length))
                    .collect();
                for (&(number, key), &length) in &mine {
                    let found = handles[number].get(&mut Context { state: &mut state, key: &keys[key] });
                    assert_eq!(found.unwrap(), Some(text((number, key), length)), "{groups}, {store_name}");
                }
                let mut timers: Vec<_> = mine.keys().map(|(_, key)| (group(*key), &keys[*key])).collect();
                timers.sort_unstable();
                timers.dedup();
                assert_eq!(stats.entries as usize, mine.len() + timers.len(), "{groups}, {store_name}");
                for (group, key) in timers {
                    let (_, fired) = state.pop_event_timer(Timestamp(0)).expect("a timer for each key");
                    assert_eq!((fired.group, &*fired.bytes), (group, &**key), "{groups}, {store_name}");
                }
                assert_eq!(state.next_event_timer(), None, "{groups}, {store_name}");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_range_of_key_groups_gets_what_is_its_own(lengths in lengths()) {
        check(&lengths);
    }
}
