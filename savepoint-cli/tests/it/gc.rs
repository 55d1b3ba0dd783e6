//! `gc` on the checkpoint directory of a job that has died, and of one that may not have.

#![allow(clippy::disallowed_methods, reason = "looks at real files")]

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    command::{Ran, normal, tidegate},
    directory::Directory,
};

const ORPHAN: &str = "attempt-0/runs/count/0-3.run";

fn run(directory: &Directory, args: &[&str]) -> Ran {
    tidegate(directory.folder.path(), args)
}

fn records(directory: &Directory) -> BTreeSet<String> {
    let names = fs::read_dir(directory.file("history")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn gc_lists_what_a_dead_job_has_left_and_deletes_it_when_told_that_it_is_dead() {
    let directory = Directory::died();
    let before = records(&directory);
    let dry = run(&directory, &["gc", "ck", "--dry-run"]);
    let said = normal(dry.good());
    assert!(said.starts_with(&format!("FILE SIZE WHY\n{ORPHAN} ")), "{said}");
    assert!(
        said.contains("may be deleted: 1 file of ")
            && said.contains("(1 orphan if the job is dead); retained checkpoints stay: 1, 2\n")
            && said.contains("the end of attempt 0 is not recorded: if it runs, it may need what"),
        "{said}"
    );
    let json: Value =
        serde_json::from_str(run(&directory, &["gc", "ck", "--dry-run", "--json"]).good()).unwrap();
    assert_eq!(
        (&json["ended"], &json["run_by"], &json["files"][0]["why"]),
        (&false.into(), &Value::Null, &"orphan if the job is dead".into())
    );

    run(&directory, &["gc", "ck"])
        .refused(10, &["the end of attempt 0 of job \"word-count\" (pid ", "--job-is-dead"]);
    let lock = directory.files.lock(&directory.file("job.lock"), "pid 7 on here").unwrap().ok().unwrap();
    let lives = run(&directory, &["gc", "ck", "--job-is-dead"]);
    lives.refused(10, &["ck is in use by pid 7 on here: a job that runs collects by itself"]);
    // Looking does no harm, and what it has written is no garbage.
    assert_eq!(
        run(&directory, &["gc", "ck", "--dry-run"]).good(),
        "nothing to delete; retained checkpoints stay: 1, 2\nleft out is what attempt 0 has written, which pid 7 on here \
         runs\n"
    );
    drop(lock);
    assert!(directory.file(ORPHAN).exists());
    assert_eq!(records(&directory), before);

    let ran = run(&directory, &["gc", "ck", "--job-is-dead", "--json"]);
    let json: Value = serde_json::from_str(ran.good()).unwrap();
    assert_eq!((&json["deleted"], &json["retained"]), (&true.into(), &serde_json::json!([1, 2])));
    assert_eq!((&json["files"][0]["path"], &json["files"][0]["why"]), (&ORPHAN.into(), &"orphan".into()));
    assert!(!directory.file(ORPHAN).exists());
    run(&directory, &["verify", "ck", "--deep"]).good();
    // A start, a mark, and that it is done.
    assert_eq!(records(&directory).len(), before.len() + 3);
    let listed = run(&directory, &["snapshots", "ck"]);
    assert!(listed.good().contains("(tidegate gc, pid "), "{}", listed.out);
    assert!(listed.out.contains("not known to be committed"), "checkpoint 2 waits still: {}", listed.out);
    let again = run(&directory, &["gc", "ck", "--job-is-dead"]);
    assert_eq!(again.good(), "nothing to delete; retained checkpoints stay: 1, 2\n");
    assert_eq!(records(&directory).len(), before.len() + 3, "and nothing is written");
}

#[test]
fn gc_of_a_job_that_has_ended_needs_nobodys_word() {
    let directory = Directory::new();
    assert_eq!(run(&directory, &["gc", "ck"]).good(), "nothing to delete; retained checkpoints stay: 1, 2\n");
    for place in ["sp", "nowhere"] {
        run(&directory, &["gc", place]).refused(2, &[place]);
    }
    run(&directory, &["gc", "--job", "nobody"]).refused(2, &["--job nobody is not HOST:PORT"]);
    run(&directory, &["gc", "--job", "127.0.0.1:1"]).refused(5, &["say with --job where its REST listens"]);
}
