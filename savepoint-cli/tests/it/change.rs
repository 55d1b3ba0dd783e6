//! `convert`, `rename-uid`, `drop-state` and `delete`: what they make holds the same state, what they refuse stays as it is.

#![allow(clippy::disallowed_methods, reason = "looks at real files")]

use std::{collections::BTreeMap, fs, path::Path};

use checkpoint::{
    history::{self, From, JobLock, StartRequest},
    savepoint::SnapshotLocation,
};
use serde_json::Value;
use types::MaxParallelism;

use crate::{
    command::{Ran, normal, tidegate},
    directory::Directory,
    job::really,
};

fn run(directory: &Directory, args: &[&str]) -> Ran {
    tidegate(directory.folder.path(), args)
}

fn json(directory: &Directory, args: &[&str]) -> Value {
    serde_json::from_str(run(directory, &[args, &["--json"]].concat()).good()).unwrap()
}

/// The digest of each state, by operator and name.
fn digests(directory: &Directory, snapshot: &str) -> BTreeMap<String, String> {
    let shown = json(directory, &["inspect", snapshot, "--exact"]);
    let mut digests = BTreeMap::new();
    for operator in shown["operators"].as_array().unwrap() {
        for state in operator["states"].as_array().unwrap() {
            let name = format!("{}/{}", operator["uid"].as_str().unwrap(), state["name"].as_str().unwrap());
            digests.insert(name, state["live"]["digest"].as_str().unwrap().to_owned());
        }
    }
    digests
}

/// All files below a directory, but for the lock.
pub(crate) fn image(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("job.lock") {
                found.insert(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn convert_makes_a_savepoint_that_stands_for_itself() {
    let directory = Directory::new();
    let before = image(&directory.folder.path().join("ck"));
    let ran = run(&directory, &["convert", "ck@1", "new/one"]);
    let dir = directory.folder.path().join("new/one").canonicalize().unwrap();
    let said = ran
        .good()
        .replace(dir.to_str().unwrap(), "DIR")
        .replace(directory.folder.path().to_str().unwrap(), "F");
    assert!(said.starts_with("savepoint of checkpoint 1 is complete: "), "{said}");
    assert!(
        said.contains("\n1 operator, 3 files of ") && said.contains("compared with what they were made of\n"),
        "{said}"
    );
    assert_eq!(digests(&directory, "new/one"), digests(&directory, "ck@1"));
    assert_ne!(digests(&directory, "new/one"), digests(&directory, "ck@2"));
    assert_eq!(image(&directory.folder.path().join("ck")), before);
    run(&directory, &["verify", "new/one", "--deep"]).good();
    // It needs nothing of the job's; asked again, it is there; of a savepoint it is a copy.
    fs::rename(directory.folder.path().join("ck"), directory.folder.path().join("elsewhere")).unwrap();
    run(&directory, &["verify", "new/one", "--deep"]).good();
    run(&directory, &["convert", "elsewhere@1", "new/one"]).good();
    run(&directory, &["convert", "new/one", "new/two"]).good();
    assert_eq!(digests(&directory, "new/one"), digests(&directory, "new/two"));
}

#[test]
fn output_that_waits_for_its_sink_is_not_left_behind_without_a_word() {
    let directory = Directory::died();
    let refused = run(&directory, &["convert", "ck", "new"]);
    refused.refused(
        10,
        &[
            "checkpoint 2 in ck has output that its sinks have not committed yet (1 transaction of sink out)",
            "start the job in ck once, which commits it, or leave it behind with --abandon-pending",
        ],
    );
    let lock = directory.files.lock(&directory.file("job.lock"), "pid 7 on here").unwrap().ok().unwrap();
    let refused = run(&directory, &["rename-uid", "ck", "count", "tally", "new"]);
    refused.refused(10, &["wait until pid 7 on here, which runs the job, has committed it"]);
    drop(lock);
    assert!(!directory.folder.path().join("new").exists());
    // What checkpoint 1 had is committed.
    run(&directory, &["convert", "ck@1", "one"]).good();
    let given_up = json(&directory, &["convert", "ck", "new", "--abandon-pending"]);
    assert_eq!(given_up["left_behind"], "1 transaction of sink out");
    let text = run(&directory, &["convert", "ck", "other", "--abandon-pending"]);
    assert!(
        text.good().contains("left behind: 1 transaction of sink out, unless already committed\n"),
        "{}",
        text.out
    );
    let shown = json(&directory, &["inspect", "new"]);
    assert_eq!(shown["operators"][1]["subtasks"][0]["prepared"], 0, "{shown}");
}

#[test]
fn rename_uid_changes_the_name_and_nothing_else() {
    let directory = Directory::new();
    let before = image(&directory.folder.path().join("sp"));
    let made = json(&directory, &["rename-uid", "sp", "count", "tally", "renamed"]);
    assert_eq!(
        (&made["checkpoint"], &made["operators"], &made["left_behind"]),
        (&2.into(), &1.into(), &Value::Null)
    );
    let (old, new) = (digests(&directory, "sp"), digests(&directory, "renamed"));
    assert_eq!(new.keys().collect::<Vec<_>>(), ["tally/count"]);
    assert_eq!(new["tally/count"], old["count/count"]);
    let shown = normal(run(&directory, &["inspect", "renamed"]).good());
    assert!(shown.contains("\ntally count 2 str 1 2 100 "), "{shown}");
    run(&directory, &["verify", "renamed", "--deep"]).good();
    assert!(directory.folder.path().join("renamed/runs/tally/0-0.run").exists());
    assert_eq!(image(&directory.folder.path().join("sp")), before);
}

#[test]
fn drop_state_leaves_out_a_state_or_an_operator() {
    let directory = Directory::new();
    run(&directory, &["drop-state", "sp", "--uid", "count", "--state", "count", "less"]).good();
    let shown = json(&directory, &["inspect", "less", "--exact"]);
    assert_eq!(shown["operators"][0]["uid"], "count");
    assert_eq!(shown["operators"][0]["states"], Value::Array(Vec::new()));
    assert_eq!(shown["files"], 1, "no run is left: {shown}");
    run(&directory, &["drop-state", "ck", "--uid", "count", "none"]).good();
    assert_eq!(json(&directory, &["inspect", "none"])["operators"], Value::Array(Vec::new()));
    for place in ["less", "none"] {
        run(&directory, &["verify", place, "--deep"]).good();
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line_and_makes_nothing() {
    let directory = Directory::new();
    fs::create_dir(directory.folder.path().join("full")).unwrap();
    fs::write(directory.folder.path().join("full/notes"), "mine").unwrap();
    let before = image(directory.folder.path());
    for (args, code, said) in [
        (&["convert", "ck@9", "new"][..], 2, "ck@9: no such checkpoint; retained are 1, 2"),
        (&["convert", "nowhere", "new"], 2, "nowhere: there is no such directory"),
        (&["convert", "ck", "full"], 10, "full holds other files: choose an empty or a new one"),
        (&["convert", "ck@1", "sp"], 10, "sp holds another savepoint"),
        (&["convert", "ck", "ck"], 10, "ck is within ck, which is only read: choose a directory elsewhere"),
        (&["convert", "ck", "ck/attempt-0/new"], 10, "which is only read"),
        (&["rename-uid", "sp", "count", "tally", "sp"], 10, "which is only read"),
        (&["convert", "ck", "memory:x"], 2, "memory:x is gone with this command: give a directory"),
        (&["convert", "ck"], 2, "<DIR>"),
        (
            &["rename-uid", "sp", "cuont", "x", "new"],
            2,
            "sp: the snapshot has no operator \"cuont\"; it has count",
        ),
        (&["rename-uid", "sp", "count", "count", "new"], 2, "sp: the snapshot has an operator count already"),
        (&["rename-uid", "sp", "count", "A B", "new"], 2, "uid \"A B\" is not allowed: use 1 to 64 of"),
        (&["drop-state", "sp", "--uid", "x", "new"], 2, "has no operator \"x\"; it has count"),
        (&["drop-state", "sp", "--uid", "count", "--state", "x", "new"], 2, "no state \"x\"; it has count"),
        (&["drop-state", "sp", "new"], 2, "--uid"),
        (&["delete", "ck"], 10, "ck is the checkpoint directory of job \"word-count\""),
        (
            &["delete", "ck@1"],
            10,
            "ck@1 is checkpoint 1 of job \"word-count\": checkpoints are removed by the job",
        ),
        (&["delete", "full"], 2, "full holds no savepoint: nothing was deleted"),
        (&["delete", "nowhere"], 2, "nowhere: there is no such directory"),
        (
            &["delete", "sp", "--unless-needed-by", "full"],
            2,
            "--unless-needed-by full: it holds no job history",
        ),
    ] {
        run(&directory, args).refused(code, &[said]);
    }
    assert_eq!(image(directory.folder.path()), before);
    assert!(!directory.folder.path().join("new").exists());
}

#[test]
fn damage_is_found_before_anything_counts_as_a_savepoint() {
    let directory = Directory::new();
    let path = directory.file("attempt-0/runs/count/0-1.run");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    run(&directory, &["convert", "ck", "new"]).refused(9, &["attempt-0/runs/count/0-1.run"]);
    run(&directory, &["inspect", "new"]).refused(2, &["new: it holds a savepoint that is not whole"]);
    run(&directory, &["delete", "new"]).refused(10, &["new holds a savepoint that is not whole"]);
}

#[test]
fn a_savepoint_that_is_there_already_is_compared_before_it_counts() {
    let directory = Directory::new();
    assert_eq!(json(&directory, &["convert", "ck", "new"])["was_there"], false);
    let again = run(&directory, &["convert", "ck", "new"]);
    assert!(again.good().starts_with("savepoint of checkpoint 2 was there already: "), "{}", again.out);
    assert!(again.out.contains("compared with what they were made of\n"), "{}", again.out);
    assert_eq!(json(&directory, &["convert", "ck", "new"])["was_there"], true);
    let path = directory.folder.path().join("new/runs/count/1-0.run");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    run(&directory, &["convert", "ck", "new"]).refused(9, &["runs/count/1-0.run"]);
}

#[test]
fn a_savepoint_that_a_job_has_begun_from_is_kept_until_it_has_a_checkpoint() {
    let directory = Directory::new();
    let (sp, other) = (directory.folder.path().join("sp"), directory.folder.path().join("other"));
    really(async |env| {
        let location = SnapshotLocation::resolve(&env, sp.to_str().unwrap()).await.unwrap();
        let store = env.open_store(other.to_str().unwrap()).unwrap();
        let lock = JobLock::acquire(&env, &*store, false).await.unwrap();
        let from = From::Snapshot(location);
        let request = StartRequest { from, ..StartRequest::new("word-count", MaxParallelism(8), 2) };
        history::start(&env, store, &lock, &request).await.unwrap();
    });
    let before = image(&sp);
    run(&directory, &["delete", "sp", "--unless-needed-by", "ck", "--unless-needed-by", "other"])
        .refused(10, &["job \"word-count\" in other has begun from this savepoint and has no checkpoint"]);
    assert_eq!(image(&sp), before);
    run(&directory, &["delete", "sp", "--unless-needed-by", "ck"]).good();
}

#[test]
fn delete_removes_a_savepoint_and_ends_what_was_begun() {
    let directory = Directory::new();
    let sp = directory.folder.path().join("sp");
    fs::write(sp.join("notes"), "mine").unwrap();
    let gone = json(&directory, &["delete", "sp", "--unless-needed-by", "ck"]);
    assert_eq!(
        (&gone["checkpoint"], &gone["files"], &gone["resumed"]),
        (&2.into(), &3.into(), &false.into())
    );
    assert_eq!(gone["left"], serde_json::json!(["notes"]));
    let left: Vec<_> = fs::read_dir(&sp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);

    // One that died with the manifest gone: the tombstone says what is left.
    run(&directory, &["convert", "ck", "new"]).good();
    let new = directory.folder.path().join("new");
    let kept = image(&new);
    let ran = run(&directory, &["delete", "new"]);
    assert!(
        ran.good().starts_with("deleted the savepoint of checkpoint 2 in new: 3 files of "),
        "{}",
        ran.out
    );
    assert!(!new.exists(), "it was empty");
    assert_eq!(kept.len(), 3);
    let listed = run(&directory, &["snapshots", "ck"]);
    assert!(normal(listed.good()).contains("2 gone or changed"), "{}", listed.out);
}
