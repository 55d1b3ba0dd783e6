//! `diff` of snapshots that are the same, and of such that are not, at different parallelisms and against a model.

#![allow(clippy::disallowed_methods, reason = "damages real files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use checkpoint::history::CheckpointKind;
use serde_json::{Value as Json, json};
use statebackend::StateDeclarations;

use crate::{
    command::{Ran, normal, tidegate},
    job::{Job, Keyed, Place, really},
    shop::{Model, Shop, Visit},
};

fn run(shop: &Shop, args: &[&str]) -> Ran {
    tidegate(shop.folder.path(), args)
}

/// The counts of each state: added, removed, changed, unchanged.
type Counts = BTreeMap<String, [u64; 4]>;

fn counts(shop: &Shop, args: &[&str]) -> Counts {
    let ran = run(shop, &[&["diff", "--json"], args].concat());
    let json: Json = serde_json::from_str(ran.good()).unwrap();
    let states = json["states"].as_array().unwrap().iter();
    states
        .map(|state| {
            let count = |of: &str| state[of].as_u64().unwrap();
            let counts = ["added", "removed", "changed", "unchanged"].map(count);
            (state["state"].as_str().unwrap().to_owned(), counts)
        })
        .collect()
}

/// What the model says.
fn expected(before: &Model, after: &Model) -> Counts {
    fn compared<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> [u64; 4] {
        let mut counts = [0; 4];
        for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let what = match (before.get(key), after.get(key)) {
                (None, _) => 0,
                (_, None) => 1,
                (old, new) if old != new => 2,
                _ => 3,
            };
            counts[what] += 1;
        }
        counts
    }
    fn below<K: Ord + Clone, S: Ord + Clone, V: Copy>(
        all: &BTreeMap<K, BTreeMap<S, V>>,
    ) -> BTreeMap<(K, S), V> {
        let below = all
            .iter()
            .flat_map(|(key, map)| map.iter().map(|(sub, value)| ((key.clone(), sub.clone()), *value)));
        below.collect()
    }
    let times = |model: &Model| -> BTreeMap<(String, i64), ()> {
        let times = model.timers.iter();
        times.flat_map(|(key, times)| times.iter().map(|at| ((key.clone(), *at), ()))).collect()
    };
    let numbered = |model: &Model| -> BTreeMap<(u64, usize), ()> {
        let offsets = model.offsets.iter().enumerate();
        let nth = |(at, offset): (usize, &u64)| {
            ((*offset, model.offsets[..at].iter().filter(|other| *other == offset).count()), ())
        };
        offsets.map(nth).collect()
    };
    let totals = compared(&before.totals, &after.totals);
    let all = [
        ("by-hour", compared(&below(&before.by_hour), &below(&after.by_hour))),
        ("lines", compared(&before.lines, &after.lines)),
        ("longest", totals),
        ("offsets", compared(&numbered(before), &numbered(after))),
        ("rules", [0, 0, 0, 1]),
        ("sum", totals),
        ("timers-event", compared(&times(before), &times(after))),
        ("total", totals),
        ("visits", compared(&before.visits, &after.visits)),
    ];
    let is_shown = |(state, counts): &(&str, [u64; 4])| *state != "timers-event" || *counts != [0; 4];
    all.into_iter().filter(is_shown).map(|(state, counts)| (state.to_owned(), counts)).collect()
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = types::key_hash(&self.0.to_le_bytes());
        self.0 % bound
    }

    fn model(&mut self) -> Model {
        let mut model =
            Model { offsets: (0..self.below(6)).map(|_| self.below(4)).collect(), ..Model::default() };
        for _ in 0..self.below(60) {
            let key = format!("user {}", self.below(40));
            let number = self.below(3);
            match self.below(5) {
                0 => drop(model.totals.insert(key, number as i64)),
                1 => {
                    // Beyond one chunk.
                    let lines = (0..=number * 200).map(|line| format!("line {line}"));
                    model.lines.insert(key, lines.collect());
                }
                2 => drop(model.by_hour.entry(key).or_default().insert(self.below(5) as u32, number as f64)),
                3 => drop(model.timers.entry(key).or_default().insert(self.below(5) as i64)),
                _ => drop(
                    model
                        .visits
                        .insert(Visit { user: key, day: number as u32 }, (number > 0).then_some(number)),
                ),
            }
        }
        model
    }
}

#[test]
fn differences_are_those_of_the_model() {
    for seed in 0..12 {
        let (shop, mut random) = (Shop::new(), Random(seed));
        let histories: Vec<Vec<Model>> =
            [3, 2].map(|len| (0..len).map(|_| random.model()).collect()).into_iter().collect();
        shop.make("a", 2, &histories[0]);
        shop.make("b", 3, &histories[1]);
        let (a, b) = (&histories[0], &histories[1]);
        for (before, after, old, new) in [
            ("a@1", "a@2", &a[0], &a[1]),
            ("a@2", "a@3", &a[1], &a[2]),
            ("a", "b", &a[2], &b[1]),
            ("b-sp", "a@1", &b[1], &a[0]),
        ] {
            assert_eq!(counts(&shop, &[before, after]), expected(old, new), "seed {seed}: {before} {after}");
        }
    }
}

/// A user with something of each kind.
fn user(number: i64) -> Model {
    let key = format!("user {number}");
    Model {
        totals: [(key.clone(), number)].into(),
        lines: [(key.clone(), vec!["a".into(); 300])].into(),
        by_hour: [(key.clone(), [(1, 1.5), (2, 2.5)].into())].into(),
        timers: [(key.clone(), [7].into())].into(),
        visits: [(Visit { user: key, day: 1 }, None)].into(),
        offsets: vec![1, 2],
    }
}

#[test]
fn what_is_the_same_is_the_same_however_it_came_about() {
    let shop = Shop::new();
    shop.make("one", 1, &[user(1)]);
    let appended = Model { lines: [("user 1".to_owned(), vec!["a".into(); 100])].into(), ..user(1) };
    shop.make("four", 4, &[user(2), appended, user(1)]);
    for (before, after) in
        [("one", "four"), ("four", "one"), ("four", "four-sp"), ("one-sp", "four-sp"), ("one", "one")]
    {
        let same = run(&shop, &["diff", before, after, "--exit-code"]);
        assert!(same.good().ends_with("\nthe state is the same\n"), "{before} {after}: {}", same.out);
        let json = run(&shop, &["diff", before, after, "--json"]);
        let json: Json = serde_json::from_str(json.good()).unwrap();
        assert_eq!(json["differ"], false);
    }
}

#[test]
fn differences_are_shown_in_a_table_and_one_by_one() {
    let shop = Shop::new();
    let mut later = user(1);
    later.totals.insert("user 1".into(), 2);
    later.lines.get_mut("user 1").unwrap().push("b".into());
    later.by_hour.insert("user 1".into(), [(1, 1.5), (2, 9.0), (3, 3.0)].into());
    later.timers.insert("user 1".into(), [8].into());
    later.visits.clear();
    later.offsets = vec![2, 3];
    shop.make("ck", 2, &[user(1), later]);
    let shown = run(&shop, &["diff", "ck@1", "ck@2"]);
    let lines: Vec<String> = normal(shown.good()).lines().map(str::to_owned).collect();
    assert_eq!(
        lines[..2],
        ["before ck@1: checkpoint 1 of job word-count", "after ck@2: checkpoint 2 of job word-count"]
    );
    assert_eq!(lines[3], "OPERATOR STATE KIND ADDED REMOVED CHANGED UNCHANGED NOTE");
    for line in [
        "shop by-hour map 1 0 1 1",
        "shop lines list 0 0 1 0",
        "shop offsets operator list 1 1 0 1",
        "shop rules operator broadcast list 0 0 0 1",
        "shop timers-event timers 1 1 0 0",
        "shop total value 0 0 1 0",
        "visit visits value 0 1 0 0",
        "8 of 9 states differ",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line:?} is missing in {lines:#?}");
    }
    let ran = run(&shop, &["diff", "ck@1", "ck@2", "--exit-code"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (14, shown.out.as_str(), ""));

    let rows = |uid: &str, state: &str, args: &[&str]| {
        let args = [&["diff", "ck@1", "ck@2", "--json", "--uid", uid, "--state", state], args].concat();
        serde_json::from_str::<Vec<Json>>(run(&shop, &args).good()).unwrap()
    };
    assert_eq!(
        rows("shop", "total", &[]),
        [json!({"change": "changed", "key": "user 1", "before": 1, "after": 2})]
    );
    let map = [
        json!({"change": "changed", "key": "user 1", "map_key": 2, "before": 2.5, "after": 9.0}),
        json!({"change": "added", "key": "user 1", "map_key": 3, "before": null, "after": 3.0}),
    ];
    assert_eq!(rows("shop", "by-hour", &[]), map);
    assert_eq!(rows("shop", "by-hour", &["--limit", "1"]), map[..1]);
    assert_eq!(
        rows("shop", "lines", &[]),
        [json!({"change": "changed", "key": "user 1", "before": "300 elements", "after": "301 elements"})]
    );
    let timers = [
        json!({"change": "removed", "key": "user 1", "time": 7}),
        json!({"change": "added", "key": "user 1", "time": 8}),
    ];
    assert_eq!(rows("shop", "timers-event", &[]), timers);
    assert_eq!(
        rows("visit", "visits", &[]),
        [json!({"change": "removed", "key": {"user": "user 1", "day": 1}, "before": null, "after": null})]
    );
    let offsets = [json!({"change": "removed", "value": 1}), json!({"change": "added", "value": 3})];
    assert_eq!(rows("shop", "offsets", &[]), offsets);
    let table = run(&shop, &["diff", "ck@1", "ck@2", "--uid", "shop", "--state", "total", "--exit-code"]);
    assert_eq!(table.out, "CHANGE   KEY       BEFORE  AFTER\nchanged  \"user 1\"  1       2\n");
    assert_eq!(table.code, 14);
    // Of one operator.
    assert_eq!(
        counts(&shop, &["ck@1", "ck@2", "--uid", "visit"]),
        [("visits".to_owned(), [0, 1, 0, 0])].into()
    );
}

#[test]
fn states_of_one_side_and_changed_states_are_called_that() {
    let shop = Shop::new();
    let make = |name: &str, max: u16, operators: Vec<Keyed>, write: &dyn Fn(&mut Job)| {
        let url = shop.folder.path().join(name);
        really(async |env| {
            let place = Place { url: url.to_str().unwrap(), max, parallelism: 2 };
            let mut job = Job::start(&env, &place, operators).await.unwrap();
            write(&mut job);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            job.stop().await.unwrap();
        });
    };
    let keyed =
        |uid: &'static str, states: StateDeclarations| Keyed { uid, declared: states.finish().unwrap() };
    let (mut states, mut number_keys) = (StateDeclarations::new(), StateDeclarations::new());
    states.key::<String>();
    number_keys.key::<u64>();
    let (gone, shape) = (states.value::<u64>("gone"), states.value::<u32>("shape"));
    states.value::<u64>("kind");
    let by_number = number_keys.value::<u64>("n");
    let operators = vec![keyed("a", states), keyed("keys", number_keys)];
    make("old", 8, operators, &|job| {
        job.with("a", &"x", |context| gone.set(context, 1).unwrap());
        job.with("a", &"x", |context| shape.set(context, 1).unwrap());
        job.with("keys", &7_u64, |context| by_number.set(context, 1).unwrap());
    });
    let (mut states, mut text_keys, mut more) =
        (StateDeclarations::new(), StateDeclarations::new(), StateDeclarations::new());
    states.key::<String>();
    text_keys.key::<String>();
    more.key::<String>();
    let (shape, fresh) = (states.value::<i64>("shape"), states.list::<u64>("fresh"));
    states.list::<u64>("kind");
    text_keys.value::<u64>("n");
    let other = more.value::<u64>("n");
    let operators = vec![keyed("a", states), keyed("keys", text_keys), keyed("more", more)];
    make("new", 8, operators, &|job| {
        job.with("a", &"x", |context| shape.set(context, 1).unwrap());
        job.with("a", &"x", |context| fresh.extend(context, [1, 2]).unwrap());
        job.with("more", &"x", |context| other.set(context, 1).unwrap());
    });
    let shown = run(&shop, &["diff", "old", "new"]);
    let shown = normal(shown.good());
    for line in [
        "a fresh list 1 0 0 0 only in new",
        "a gone value 0 1 0 0 only in old",
        "a kind list - - - - the kind was value and is list",
        "a shape value - - - - the shape has changed: expected u32, found i64",
        "keys n value - - - - the keys have changed: expected u64, found str",
        "more n value 1 0 0 0 only in new",
        "6 of 6 states differ",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is missing in:\n{shown}");
    }
    for (args, code, said) in [
        (
            &["old", "new", "--uid", "a", "--state", "shape"][..],
            8,
            "state \"shape\" of operator a cannot be compared",
        ),
        (&["old", "new", "--uid", "b"], 2, "new: the snapshot has no operator \"b\"; it has a, keys, more"),
        (
            &["old", "new", "--uid", "a", "--state", "b"],
            2,
            "old: operator a has no state \"b\"; there are gone, kind, ",
        ),
        (
            &["old", "new", "--uid", "more", "--state", "b"],
            2,
            "new: operator more has no state \"b\"; there are n, ",
        ),
        (&["old", "new", "--state", "b"], 2, "--uid"),
        (&["old", "new", "--uid", "a", "--limit", "1"], 2, "--state"),
        (&["old", "nowhere"], 2, "nowhere: there is no such directory"),
    ] {
        run(&shop, &[&["diff"], args].concat()).refused(code, &[said]);
    }
    let only = run(&shop, &["diff", "old", "new", "--uid", "a", "--state", "fresh"]);
    assert_eq!(only.good(), "CHANGE  KEY  BEFORE  AFTER\nadded   \"x\"  -       2 elements\n");

    let mut states = StateDeclarations::new();
    states.value::<u64>("gone");
    make("wide", 16, vec![keyed("a", states)], &|_| {});
    run(&shop, &["diff", "old", "wide"]).refused(
        8,
        &["old has max parallelism 8, wide has 16: their keys lie in other key groups and cannot be"],
    );
}

#[test]
fn damage_on_either_side_is_named() {
    let shop = Shop::new();
    shop.make("a", 1, &[user(1)]);
    shop.make("b", 1, &[user(1)]);
    let path = "attempt-0/runs/shop/0-1.run";
    let file = shop.folder.path().join("b").join(path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    for sides in [["a", "b"], ["b", "a"]] {
        let ran = run(&shop, &[&["diff"], &sides[..]].concat());
        ran.refused(9, &[path, "offset 16", "checksum"]);
        assert_eq!(ran.out, "");
    }
}
