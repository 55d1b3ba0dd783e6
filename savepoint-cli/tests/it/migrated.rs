//! Snapshots from before and after a migration: whoever reads one sees one type, whatever the runs below it were written with,
//! and whoever compares the two is told what has changed.

use std::collections::BTreeMap;

use checkpoint::history::CheckpointKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use statebackend::{StateDeclarations, Ttl};
use tempfile::TempDir;

use crate::{
    command::{Ran, normal, tidegate},
    job::{Job, Keyed, Place, really},
};

const KEYS: u32 = 30;
const CHECKPOINTS: u32 = 6;

#[derive(Clone, Serialize, Deserialize)]
struct V1 {
    euros: u32,
}

#[derive(Clone, Serialize, Deserialize)]
struct V2 {
    cents: u64,
    note: String,
}

fn migrated(old: V1) -> types::Result<V2> {
    Ok(V2 { cents: u64::from(old.euros) * 100, note: "was in euros".to_owned() })
}

fn run(folder: &TempDir, args: &[&str]) -> Ran {
    tidegate(folder.path(), args)
}

fn json(folder: &TempDir, args: &[&str]) -> Json {
    serde_json::from_str(run(folder, args).good()).unwrap()
}

/// The values of a state by key, as JSON.
fn rows(folder: &TempDir, snapshot: &str, state: &str) -> BTreeMap<String, Json> {
    let rows = json(folder, &["query", snapshot, "--uid", "bank", "--state", state, "--format", "json"]);
    let rows = rows.as_array().unwrap().iter();
    let sub = |row: &Json| row.get("map_key").or(row.get("index")).map_or(String::new(), Json::to_string);
    rows.map(|row| (format!("{}{}", row["key"].as_str().unwrap(), sub(row)), row["value"].clone())).collect()
}

/// A checkpoint directory `ck`: six checkpoints with deletes in them, a migration of three of four states, of which one gets a time
/// to live, and one more checkpoint. Savepoints `before` and `after`. What account, day and number of each key live.
fn make(folder: &TempDir) -> [BTreeMap<String, u32>; 2] {
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    really(async |env| {
        let mut states = StateDeclarations::new();
        states.key::<String>();
        let (account, days) = (states.value::<V1>("account"), states.map::<u8, V1>("days"));
        let (plain, seen) = (states.value::<u32>("plain"), states.value::<u32>("seen"));
        let place = Place { url: &path("ck"), max: 16, parallelism: 2 };
        let operators = vec![Keyed { uid: "bank", declared: states.finish().unwrap() }];
        let mut job = Job::start(&env, &place, operators).await.unwrap();
        let (mut money, mut numbers, mut newest) = (BTreeMap::new(), BTreeMap::new(), None);
        for turn in 0..CHECKPOINTS {
            for number in 0..KEYS {
                let key = format!("key {number:02}");
                let euros = number * 10 + turn;
                job.with("bank", &key, |ctx| {
                    plain.set(ctx, euros).unwrap();
                    seen.set(ctx, turn).unwrap();
                    if (number + turn) % 4 == 0 {
                        account.clear(ctx).unwrap();
                        days.clear(ctx).unwrap();
                    } else {
                        account.set(ctx, V1 { euros }).unwrap();
                        days.put(ctx, &1, V1 { euros }).unwrap();
                    }
                });
                match (number + turn) % 4 {
                    0 => money.remove(&key),
                    _ => money.insert(key.clone(), euros),
                };
                numbers.insert(key, euros);
            }
            newest = Some(job.checkpoint(CheckpointKind::Ordinary).await.unwrap());
        }
        job.savepoint(&newest.unwrap(), &path("before")).await.unwrap();

        let mut states = StateDeclarations::new();
        states.key::<String>();
        let account = states.migrating(migrated).value("account");
        states.migrating(migrated).map::<u8>("days");
        states.value::<u32>("plain");
        states.expiring(Ttl::event_time(std::time::Duration::from_secs(1))).value::<u32>("seen");
        job.migrate("bank", states.finish().unwrap()).await.unwrap();
        let changed = V2 { cents: 7, note: "new".to_owned() };
        job.with("bank", &"key 00", |ctx| account.set(ctx, changed).unwrap());
        let newest = job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
        job.savepoint(&newest, &path("after")).await.unwrap();
        job.stop().await.unwrap();
        [money, numbers]
    })
}

#[test]
fn whoever_reads_a_snapshot_sees_one_type() {
    let folder = tempfile::tempdir().unwrap();
    let [money, numbers] = make(&folder);
    let of = |numbers: &BTreeMap<String, u32>,
              below: &str,
              value: &dyn Fn(u32) -> Json|
     -> BTreeMap<String, Json> {
        numbers.iter().map(|(key, it)| (format!("{key}{below}"), value(*it))).collect()
    };
    let before = |euros: u32| json!({"euros": euros});
    let after = |euros: u32| json!({"cents": euros * 100, "note": "was in euros"});
    for snapshot in ["before", "ck@6"] {
        assert_eq!(rows(&folder, snapshot, "account"), of(&money, "", &before), "{snapshot}");
        assert_eq!(rows(&folder, snapshot, "days"), of(&money, "1", &before), "{snapshot}");
    }
    let mut account = of(&money, "", &after);
    // What the new program has written stands beside what it has migrated.
    account.insert("key 00".to_owned(), json!({"cents": 7, "note": "new"}));
    for snapshot in ["ck", "ck@7", "after"] {
        assert_eq!(rows(&folder, snapshot, "account"), account, "{snapshot}");
        assert_eq!(rows(&folder, snapshot, "days"), of(&money, "1", &after), "{snapshot}");
        assert_eq!(rows(&folder, snapshot, "plain"), of(&numbers, "", &|number| json!(number)), "{snapshot}");
    }
    for snapshot in ["before", "ck@6", "ck", "after"] {
        run(&folder, &["verify", snapshot, "--deep"]).good();
    }
}

#[test]
fn a_comparison_across_the_migration_says_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder);
    for (old, new) in [("before", "after"), ("ck@6", "ck@7"), ("before", "ck")] {
        let shown = normal(run(&folder, &["diff", old, new]).good());
        for line in [
            "bank account value - - - - the shape has changed: expected struct V1, found struct V2",
            "bank days map - - - - the shape has changed: expected struct V1, found struct V2",
            "bank plain value 0 0 0 30",
            "bank seen value - - - - the kind was value and is value, event-time ttl",
        ] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line:?} is missing in:\n{shown}");
        }
        assert_eq!(run(&folder, &["diff", old, new, "--exit-code"]).code, 14);
        let refused = run(&folder, &["diff", old, new, "--uid", "bank", "--state", "account"]);
        refused.refused(8, &["state \"account\" of operator bank cannot be compared", "V1", "V2"]);
    }
    // What was copied from it is the same.
    assert!(json(&folder, &["diff", "ck", "after", "--json"])["differ"] == json!(false));
}

#[test]
fn what_is_made_of_a_migrated_checkpoint_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder);
    let expected = rows(&folder, "ck", "account");
    run(&folder, &["convert", "ck", "converted"]).good();
    run(&folder, &["rename-uid", "converted", "bank", "vault", "renamed"]).good();
    run(&folder, &["drop-state", "converted", "--uid", "bank", "--state", "plain", "less"]).good();
    for snapshot in ["converted", "renamed", "less"] {
        run(&folder, &["verify", snapshot, "--deep"]).good();
    }
    assert_eq!(rows(&folder, "less", "account"), expected);
    assert_eq!(json(&folder, &["diff", "ck", "converted", "--json"])["differ"], json!(false));
    let renamed = ["query", "renamed", "--uid", "vault", "--state", "account", "--format", "json"];
    assert_eq!(json(&folder, &renamed).as_array().unwrap().len(), expected.len());
    // Runs that hold nothing that counts any more are garbage; what is retained stays whole without them.
    run(&folder, &["gc", "ck"]).good();
    run(&folder, &["verify", "ck", "--deep"]).good();
    assert_eq!(rows(&folder, "ck", "account"), expected);
}
