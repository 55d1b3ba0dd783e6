//! State with a time to live: `query` and `diff` say until when, and a copy is what it was made of.

use std::time::Duration;

use checkpoint::history::CheckpointKind;
use serde_json::{Value as Json, json};
use statebackend::{Expiring, ListState, MapState, StateDeclarations, Ttl, ValueState};
use tempfile::TempDir;

use crate::{
    command::{Ran, normal, tidegate},
    job::{Job, Keyed, Place, really},
};

/// 2001-09-09T01:46:40Z, in milliseconds.
const NOON: i64 = 1_000_000_000_000;

#[derive(Clone, Copy)]
struct Handles {
    kept: Expiring<ValueState<u64>>,
    lines: Expiring<ListState<u64>>,
    by_hour: Expiring<MapState<u32, u64>>,
}

/// `ck` with two checkpoints, five seconds apart, and `sp`, a copy of the second. What is written lives for ten seconds; of
/// key "again" all is written twice, the same; of key "once" nothing. Key "gone" has expired at the second. The list of key
/// "more" has an element then that it did not have before.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    really(async |env| {
        let mut states = StateDeclarations::new();
        states.key::<String>();
        let mut expiring = states.expiring(Ttl::processing_time(Duration::from_secs(10)));
        let (kept, lines, by_hour) =
            (expiring.value("kept"), expiring.list("lines"), expiring.map("by-hour"));
        let handles = Handles { kept, lines, by_hour };
        let operators = vec![Keyed { uid: "count", declared: states.finish().unwrap() }];
        let (url, savepoint) = (folder.path().join("ck"), folder.path().join("sp"));
        let place = Place { url: url.to_str().unwrap(), max: 8, parallelism: 2 };
        let mut job = Job::start(&env, &place, operators).await.unwrap();
        write(&mut job, handles, "gone", NOON - 6_000);
        for key in ["again", "once"] {
            write(&mut job, handles, key, NOON);
        }
        job.with("count", &"more", |context| {
            context.at(NOON);
            lines.append(context, 7).unwrap();
        });
        job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
        write(&mut job, handles, "again", NOON + 5_000);
        job.with("count", &"more", |context| {
            context.at(NOON + 5_000);
            lines.append(context, 8).unwrap();
        });
        for key in ["gone", "once"] {
            job.with("count", &key, |context| context.at(NOON + 5_000));
        }
        let manifest = job.checkpoint(CheckpointKind::Savepoint).await.unwrap();
        job.savepoint(&manifest, savepoint.to_str().unwrap()).await.unwrap();
        job.stop().await.unwrap();
    });
    folder
}

fn write(job: &mut Job, Handles { kept, lines, by_hour }: Handles, key: &str, now: i64) {
    job.with("count", &key, |context| {
        context.at(now);
        kept.set(context, 1).unwrap();
        lines.clear(context).unwrap();
        lines.append(context, 7).unwrap();
        by_hour.put(context, &3, 9).unwrap();
    });
}

fn run(folder: &TempDir, args: &[&str]) -> Ran {
    tidegate(folder.path(), args)
}

fn rows(folder: &TempDir, args: &[&str]) -> Vec<Json> {
    let mut rows: Vec<Json> =
        serde_json::from_str(run(folder, &[args, &["--json"]].concat()).good()).unwrap();
    rows.sort_by_key(|row| row["key"].to_string());
    rows
}

#[test]
fn an_entry_is_shown_with_the_time_at_which_it_expires() {
    let folder = folder();
    let (once, again) = ("2001-09-09T01:46:50.000Z", "2001-09-09T01:46:55.000Z");
    for place in ["ck", "sp"] {
        assert_eq!(
            rows(&folder, &["query", place, "--uid", "count", "--state", "kept"]),
            [
                json!({"key": "again", "value": 1, "expires": again}),
                json!({"key": "once", "value": 1, "expires": once}),
            ]
        );
        assert_eq!(
            rows(&folder, &["query", place, "--uid", "count", "--state", "lines"])[1..],
            [
                json!({"key": "more", "index": 0, "value": 7, "expires": once}),
                json!({"key": "more", "index": 1, "value": 8, "expires": again}),
                json!({"key": "once", "index": 0, "value": 7, "expires": once}),
            ]
        );
        assert_eq!(
            rows(&folder, &["query", place, "--uid", "count", "--state", "by-hour"])[1],
            json!({"key": "once", "map_key": 3, "value": 9, "expires": once})
        );
    }
    let gone = rows(&folder, &["query", "ck@1", "--uid", "count", "--state", "kept"]);
    assert_eq!(gone[1], json!({"key": "gone", "value": 1, "expires": "2001-09-09T01:46:44.000Z"}));
    let of_once = ["query", "ck", "--uid", "count", "--state", "kept", "--key", "once"];
    let table = run(&folder, &of_once);
    assert_eq!(normal(table.good()), "KEY VALUE EXPIRES\n\"once\" 1 TIME\n");
    let csv = run(&folder, &[&of_once[..], &["--format", "csv"]].concat());
    assert_eq!(csv.good(), format!("key,value,expires\nonce,1,{once}\n"));
    let timers = run(&folder, &["query", "ck", "--uid", "count", "--state", "timers-event"]);
    assert_eq!(normal(timers.good()), "KEY TIME\n", "timers do not expire");
    let inspected = run(&folder, &["inspect", "sp"]);
    let map = inspected.good().lines().find(|line| line.contains("by-hour")).unwrap();
    let shown: Vec<_> = map.split_whitespace().take(7).collect();
    assert_eq!(shown.join(" "), "count by-hour map, processing-time ttl u32 ->", "{map}");
}

#[test]
fn what_lives_longer_has_changed_and_says_until_when() {
    let folder = folder();
    for (state, value) in [("kept", json!(1)), ("lines", json!("1 element")), ("by-hour", json!(9))] {
        let diff = ["diff", "ck@1", "sp", "--uid", "count", "--state", state];
        let mut expected = vec![
            json!({
                "change": "changed", "key": "again", "before": value, "after": value,
                "expires_before": "2001-09-09T01:46:50.000Z", "expires_after": "2001-09-09T01:46:55.000Z",
            }),
            json!({
                "change": "removed", "key": "gone", "before": value, "after": null,
                "expires_before": "2001-09-09T01:46:44.000Z", "expires_after": null,
            }),
        ];
        match state {
            "by-hour" => expected.iter_mut().for_each(|row| row["map_key"] = json!(3)),
            "lines" => expected.push(json!({
                "change": "changed", "key": "more", "before": "1 element", "after": "2 elements",
                "expires_before": "2001-09-09T01:46:50.000Z", "expires_after": "2001-09-09T01:46:55.000Z",
            })),
            _ => {}
        }
        assert_eq!(rows(&folder, &diff), expected, "{state}");
        let table = run(&folder, &diff);
        assert!(
            normal(table.good()).contains(" BEFORE AFTER EXPIRES BEFORE EXPIRES AFTER\n"),
            "{}",
            table.out
        );
    }
}

#[test]
fn a_copy_without_a_state_that_expires_is_whole() {
    let folder = folder();
    run(&folder, &["convert", "ck", "new"]).good();
    assert_eq!(run(&folder, &["diff", "ck", "new", "--exit-code"]).code, 0);
    for (from, state, to) in [("new", "lines", "two"), ("two", "kept", "one"), ("one", "by-hour", "none")] {
        run(&folder, &["drop-state", from, "--uid", "count", "--state", state, to]).good();
        run(&folder, &["verify", to, "--deep"]).good();
    }
    assert_eq!(rows(&folder, &["query", "one", "--uid", "count", "--state", "by-hour"]).len(), 2);
}
