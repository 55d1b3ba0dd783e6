//! Declarations: mistakes are found before anything runs, and snapshots that do not fit are refused by name.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use statebackend::{
    Action, Data, Declared, Expected, KeyedState, StateDeclarations, StateSpec, Ttl, check_compatible,
    restore,
};
use types::{CheckpointId, ErrorKind, Result, Run, Uid};

use crate::fixture::{Context, MAX, Subtask, declare, key, simulated, with_and_without_store};

fn declared<H>(fill: impl Fn(&mut StateDeclarations) -> H) -> Result<Declared> {
    let mut states = StateDeclarations::new();
    fill(&mut states);
    states.finish()
}

#[test]
fn mistakes_are_reported_by_name() {
    let long = "a".repeat(65);
    let bad_names = ["", "Upper", "with space", "ü", "timers-event", long.as_str()];
    for name in bad_names {
        let error = declared(|states| states.value::<u64>(name)).err().unwrap();
        assert!(error.kind() == ErrorKind::InvalidJob && error.message().contains(name), "{error}");
    }
    let twice = declared(|states| {
        states.value::<u64>("count");
        states.list::<u64>("count")
    });
    assert!(twice.err().unwrap().message().contains("\"count\" is declared twice"));
    let map_key = declared(|states| states.map::<BTreeMap<u8, u8>, u64>("by-map"));
    assert!(map_key.err().unwrap().message().contains("\"by-map\": its map key"));
    let stream_key = declared(StateDeclarations::key::<BTreeMap<u8, u8>>);
    assert!(stream_key.err().unwrap().message().contains("the key of the stream"));
    declared(|states| states.value::<u64>("a-good_name-1")).unwrap();
}

/// Reads nothing that tracing could think of, so that what comes behind it stays unknown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "(u64, String)", into = "(u64, String)")]
struct Known(u64, String);

impl TryFrom<(u64, String)> for Known {
    type Error = String;
    fn try_from((number, name): (u64, String)) -> Result<Self, String> {
        (name == "known").then_some(Self(number, name)).ok_or_else(|| "not known".to_owned())
    }
}

impl From<Known> for (u64, String) {
    fn from(Known(number, name): Known) -> Self {
        (number, name)
    }
}

#[test]
fn a_sample_shows_what_tracing_cannot() {
    let sample = &(Known(1, "known".to_owned()), 2);
    let ttl = Ttl::processing_time(Duration::from_secs(1));
    let shapes = |fill: &dyn Fn(&mut StateDeclarations)| -> Vec<String> {
        let declared = declared(fill).unwrap();
        declared.descriptions().iter().map(|spec| spec.shape.to_string()).collect()
    };
    let traced = shapes(&|states| {
        states.value::<(Known, u64)>("a");
    });
    let sampled = shapes(&|states| {
        states.value_with_sample("a", sample);
        states.list_with_sample("b", sample);
        states.map_with_sample::<u64, (Known, u64)>("c", sample);
        let mut expiring = states.expiring(ttl);
        expiring.value_with_sample("d", sample);
        expiring.list_with_sample("e", sample);
        expiring.map_with_sample::<u64, (Known, u64)>("f", sample);
    });
    assert_eq!(sampled, ["((u64, str), u64)"; 6]);
    assert_eq!(traced, ["((u64, str), unknown)"]);
}

#[derive(Clone, Serialize, Deserialize)]
struct Total {
    count: u64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "Total")]
struct ChangedTotal {
    count: i32,
}

fn one<T: Data>() -> Declared {
    declared(|states| states.value::<T>("total")).unwrap()
}

#[test]
fn changed_states_are_refused_by_name() {
    let operator = Uid::new("sum").unwrap();
    let found = one::<Total>().descriptions();
    let restored = Action::Restore("total".to_owned());
    let check = |declared: &Declared, may_drop, found: &[StateSpec]| {
        let (states, migrations) = (declared.descriptions(), declared.migrations());
        let expected = Expected { states: &states, migrations: &migrations, may_drop };
        check_compatible(&operator, expected, found)
    };
    assert_eq!(check(&one::<Total>(), false, &found).unwrap(), [restored]);
    let changed = check(&one::<ChangedTotal>(), false, &found).unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::IncompatibleState);
    for part in ["sum", "total", "count", "i32", "u64"] {
        assert!(changed.message().contains(part), "{changed}");
    }
    let list = declared(|states| states.list::<Total>("total")).unwrap();
    assert!(check(&list, false, &found).unwrap_err().message().contains("kind"));
    let gone = check(&Declared::nothing(), false, &found).unwrap_err();
    assert!(gone.message().contains("--allow-dropped-state sum"), "{gone}");
    let dropped = Action::Drop("total".to_owned());
    assert_eq!(check(&Declared::nothing(), true, &found).unwrap(), [dropped]);
    assert_eq!(check(&list, false, &[]).unwrap(), [Action::Begin("total".to_owned())]);
}

/// Looks like a number and stores another one.
#[derive(Clone, Deserialize)]
struct Shifting(u64);

impl Serialize for Shifting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct("Shifting", &(self.0 + 1))
    }
}

/// Refuses some of its values.
#[derive(Clone, Deserialize)]
struct Fussy(u64);

impl Serialize for Fussy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            13 => Err(serde::ser::Error::custom("thirteen is not allowed")),
            other => serializer.serialize_newtype_struct("Fussy", &other),
        }
    }
}

#[test]
fn a_type_that_does_not_give_back_what_it_read_is_refused() {
    simulated(1, async |env, store| {
        let mut states = StateDeclarations::new();
        let total = states.value::<Shifting>("total");
        let declared = states.finish().unwrap();
        let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
        subtask.state = KeyedState::new(declared.clone(), MAX.all(), CheckpointId(1));
        let key = key("a");
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        total.set(&mut ctx, Shifting(5)).unwrap();
        subtask.state.flip(CheckpointId(1));
        subtask.seal(&*store, 10).await;
        for (name, behind) in with_and_without_store(4) {
            let mut into = behind.state(declared.clone(), MAX.all(), CheckpointId(2));
            let error = restore(&env, &*store, &subtask.runs, &mut into).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IncompatibleState, "{name}");
            assert!(
                error.message().contains("\"total\"") && error.message().contains("count"),
                "{name}: {error}"
            );
        }
    });
}

/// Whether it is drained in its turn or because it changes again.
#[test]
fn a_value_that_cannot_be_encoded_fails_the_checkpoint_by_name() {
    for changes_again in [false, true] {
        let mut states = StateDeclarations::new();
        let fussy = states.value::<Fussy>("fussy");
        let mut state = KeyedState::new(states.finish().unwrap(), MAX.all(), CheckpointId(1));
        let key = key("a");
        fussy.set(&mut Context { state: &mut state, key: &key }, Fussy(13)).unwrap();
        state.flip(CheckpointId(1));
        if changes_again {
            fussy.set(&mut Context { state: &mut state, key: &key }, Fussy(1)).unwrap();
        }
        let error = state.drain(10).unwrap_err();
        assert!(error.to_string().contains("\"fussy\""), "{error}");
        assert!(error.to_string().contains("thirteen"), "{error}");
    }
}

/// Where such a value stands in the way of another key, whose operation fails first and may be passed over.
#[test]
fn a_value_that_cannot_leave_fails_the_checkpoint_too() {
    for (name, behind) in with_and_without_store(1).skip(1) {
        let mut states = StateDeclarations::new();
        let fussy = states.value::<Fussy>("fussy");
        let mut state = behind.state(states.finish().unwrap(), MAX.all(), CheckpointId(1));
        let keys: Vec<_> = (0..40).map(|number| key(&format!("key-{number}"))).collect();
        fussy.set(&mut Context { state: &mut state, key: &keys[0] }, Fussy(13)).unwrap();
        let set = |bytes: &Vec<u8>| fussy.set(&mut Context { state: &mut state, key: bytes }, Fussy(1));
        assert!(keys[1..].iter().map(set).filter(Result::is_err).count() > 0, "{name}");
        state.flip(CheckpointId(1));
        let error = state.drain(10).unwrap_err().to_string();
        assert!(error.contains("\"fussy\"") && error.contains("thirteen"), "{name}: {error}");
    }
}

#[test]
fn undeclared_states_are_left_out_only_if_that_is_allowed() {
    simulated(2, async |env, store| {
        let (_, handles) = declare();
        let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
        let key = key("a");
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        handles.value.set(&mut ctx, 7).unwrap();
        handles.list.append(&mut ctx, "line".to_owned()).unwrap();
        subtask.state.flip(CheckpointId(1));
        subtask.seal(&*store, 10).await;

        let mut states = StateDeclarations::new();
        let total = states.value::<u64>("total");
        let fewer = states.finish().unwrap();
        for (name, behind) in with_and_without_store(4) {
            let mut into = behind.state(fewer.clone(), MAX.all(), CheckpointId(2));
            let error = restore(&env, &*store, &subtask.runs, &mut into).await.unwrap_err();
            assert!(error.message().contains("\"lines\""), "{name}: {error}");
        }
        let dropped = |run: &Run| Run { without: vec!["lines".to_owned()], ..run.clone() };
        let runs: Vec<_> = subtask.runs.iter().map(dropped).collect();
        for (name, behind) in with_and_without_store(4) {
            let mut into = behind.state(fewer.clone(), MAX.all(), CheckpointId(2));
            let stats = restore(&env, &*store, &runs, &mut into).await.unwrap();
            assert_eq!(stats.entries, 1, "{name}");
            assert_eq!(total.get(&mut Context { state: &mut into, key: &key }).unwrap(), Some(7), "{name}");
        }
    });
}
