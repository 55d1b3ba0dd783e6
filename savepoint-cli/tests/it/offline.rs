//! `snapshots`, `inspect` and `verify` on a directory that is whole, and on one that is not.

#![allow(clippy::disallowed_methods, reason = "damages real files")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    command::{Ran, command, normal, tidegate},
    directory::Directory,
};

fn run(directory: &Directory, args: &[&str]) -> Ran {
    tidegate(directory.folder.path(), args)
}

#[test]
fn snapshots_lists_checkpoints_and_savepoints() {
    let directory = Directory::new();
    let shown = run(&directory, &["snapshots", "ck"]);
    let shown = normal(shown.good()).replace(&directory.folder.path().display().to_string(), "FOLDER");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "job word-count, id ID");
    assert_eq!(lines[1], "last attempt 0 of lineage ID, started TIME, stopped at TIME");
    assert_eq!(lines[3], "CHECKPOINT KIND ATTEMPT LINEAGE COMPLETED FILES SIZE ADDED SHARED STATE");
    assert!(lines[4].starts_with("1 checkpoint 0 ID TIME 3 "), "{shown}");
    assert!(lines[4].ends_with(" 0 B committed"), "nothing is shared by the first: {shown}");
    assert!(lines[5].starts_with("2 for a savepoint 0 ID TIME 5 "), "{shown}");
    assert_eq!(lines[7..], ["OF CHECKPOINT IS SAVEPOINT", "2 there FOLDER/sp"]);

    let json: serde_json::Value =
        serde_json::from_str(run(&directory, &["--json", "snapshots", "ck"]).good()).unwrap();
    let newest = &json["checkpoints"][1];
    let (added, shared) = (newest["added_bytes"].as_u64().unwrap(), newest["shared_bytes"].as_u64().unwrap());
    assert_eq!(newest["bytes"].as_u64().unwrap(), added + shared);
    assert!(shared > 0 && json["attempt"]["ended"] == "stopped", "{json}");

    let savepoint = run(&directory, &["snapshots", "sp"]);
    assert!(normal(savepoint.good()).contains("\n2 savepoint 0 ID TIME 3 "), "{}", savepoint.out);
    assert!(normal(&savepoint.out).contains("LINEAGE TRIGGERED FILES"), "{}", savepoint.out);
}

#[test]
fn inspect_shows_operators_states_and_subtasks() {
    let directory = Directory::new();
    let shown = normal(run(&directory, &["inspect", "ck", "--exact"]).good());
    for line in [
        "checkpoint 2 in ck",
        "job word-count, id ID, attempt 0 of lineage ID",
        "digest of all keyed state ID",
        "OPERATOR KIND PARALLELISM KEY STATES RUNS ENTRIES BYTES ADDED SHARED",
        "OPERATOR STATE KIND SHAPE KEYS ENTRIES BYTES DIGEST",
        "SUBTASK KEY GROUPS RUNS ENTRIES TOMBSTONES BYTES ELEMENTS PREPARED",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is missing in:\n{shown}");
    }
    // Ten words were counted twice: 110 entries in the runs, 100 words that live.
    assert!(shown.contains("count count 2 str 1 4 110 "), "{shown}");
    assert!(shown.contains("count count value u64 100 100 "), "{shown}");
    assert!(shown.contains("\ncount 0 0..4 2 ") && shown.contains("\ncount 1 4..8 2 "), "{shown}");
    // The savepoint holds the same state in other files.
    let digest = |place| {
        let json = run(&directory, &["inspect", place, "--exact", "--json"]);
        let json: serde_json::Value = serde_json::from_str(json.good()).unwrap();
        json["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(digest("ck@2"), digest("sp"));
    assert_ne!(digest("ck@1"), digest("ck@2"));
    // Without --exact nothing is read but the manifest.
    fs::remove_file(directory.file("attempt-0/runs/count/0-1.run")).unwrap();
    assert!(!run(&directory, &["inspect", "ck"]).good().contains("DIGEST"));
    run(&directory, &["inspect", "ck", "--exact"]).refused(9, &["attempt-0/runs/count/0-1.run"]);
}

#[test]
fn inspect_says_what_was_added_and_what_is_shared() {
    let directory = Directory::new();
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(run(&directory, &[args, &["--json"]].concat()).good()).unwrap()
    };
    let size = |of: &serde_json::Value| {
        let number = |name: &str| of[name].as_u64();
        (number("bytes").unwrap(), number("added_bytes"), number("shared_bytes"))
    };
    let run_len = |path: &str| fs::metadata(directory.file(path)).unwrap().len();
    let of_count = |number| {
        run_len(&format!("attempt-0/runs/count/0-{number}.run"))
            + run_len(&format!("attempt-0/runs/count/1-{number}.run"))
    };
    let (first, second) = (of_count(1), of_count(2));
    // The first one shares with nothing; the second has the runs of the first and two more.
    let shown = json(&["inspect", "ck@1"]);
    assert_eq!(size(&shown["operators"][0]["size"]), (first, Some(first), Some(0)));
    let manifest = run_len("attempt-0/manifest-1");
    assert_eq!(size(&shown), (first + manifest, Some(first + manifest), Some(0)));
    let shown = json(&["inspect", "ck"]);
    assert_eq!(size(&shown["operators"][0]["size"]), (first + second, Some(second), Some(first)));
    let manifest = run_len("attempt-0/manifest-2");
    assert_eq!(size(&shown), (first + second + manifest, Some(second + manifest), Some(first)));
    // As `snapshots` says, and in words.
    let listed = &json(&["snapshots", "ck"])["checkpoints"][1];
    assert_eq!(size(&shown), size(listed));
    let human = |bytes: u64| match bytes {
        0..1_024 => format!("{bytes} B"),
        _ => format!("{:.2} KiB", bytes as f64 / 1_024.0),
    };
    let text = run(&directory, &["inspect", "ck"]);
    let said = format!("added {}, shared with the one before {}\n", human(second + manifest), human(first));
    assert!(text.good().contains(&said), "{said}: {}", text.out);
    let row = format!(" {} {} {}\n", human(first + second), human(second), human(first));
    assert!(normal(&text.out).contains(&row), "{row:?}: {}", text.out);
    // A savepoint stands for itself. Where the one before cannot be read, nobody knows.
    let savepoint = json(&["inspect", "sp"]);
    assert_eq!(
        (savepoint["added_bytes"].as_u64(), savepoint["shared_bytes"].as_u64()),
        (savepoint["bytes"].as_u64(), Some(0))
    );
    fs::write(directory.file("attempt-0/manifest-1"), "x").unwrap();
    let (_, added, shared) = size(&json(&["inspect", "ck"]));
    assert_eq!((added, shared), (None, None));
    let text = run(&directory, &["inspect", "ck"]);
    assert!(normal(text.good()).contains(" - -\n"), "{}", text.out);
}

#[test]
fn verify_is_content_with_what_is_whole() {
    let directory = Directory::new();
    for (args, said) in [
        (&["verify", "ck"][..], "7 history records, 2 manifests, 4 files of "),
        (&["verify", "sp"], "1 manifest, 2 files of "),
        (&["verify", "ck@1"], "1 manifest, 2 files of "),
        (&["verify", "ck", "--deep"], ", decoded 110 entries: every needed byte is right"),
    ] {
        let ran = run(&directory, args);
        assert!(ran.good().contains(said), "{args:?}: {}", ran.out);
    }
    // What may be missing, or need not be there, is a note.
    fs::remove_file(directory.file("latest")).unwrap();
    fs::write(directory.file("stranger"), "x").unwrap();
    let ran = run(&directory, &["verify", "ck"]);
    assert!(ran.good().contains("note: latest: "), "{}", ran.out);
    assert!(ran.out.contains("note: stranger: is not a file of Tidegate's"), "{}", ran.out);
}

#[test]
fn verify_names_every_damaged_file() {
    type Damage = fn(&Path);
    let flip: Damage = |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let cut: Damage = |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    for path in [
        "attempt-0/runs/count/1-1.run",
        "attempt-0/manifest-1",
        "attempt-0/manifest-2",
        "history/00000000000000000006",
    ] {
        for (what, damage) in [("flip", flip), ("cut", cut), ("remove", remove)] {
            if what == "remove" && path.starts_with("history/") {
                // Whether the newest record is missed depends on how far the hint has come.
                continue;
            }
            let directory = Directory::new();
            damage(&directory.file(path));
            let ran = run(&directory, &["verify", "ck", "--deep"]);
            ran.refused(9, &["ck: 1 needed file missing or damaged"]);
            assert!(
                ran.out.lines().any(|line| line.starts_with(&format!("{path}: "))),
                "{what}: {}",
                ran.out
            );
        }
    }
    // What an older record says is not needed; that it is there is.
    let directory = Directory::new();
    let old = "history/00000000000000000001";
    flip(&directory.file(old));
    let ran = run(&directory, &["verify", "ck"]);
    assert!(ran.good().contains(&format!("note: {old}: ")), "{}", ran.out);
    remove(&directory.file(old));
    let ran = run(&directory, &["verify", "ck"]);
    ran.refused(9, &["ck: 1 needed file missing or damaged"]);
    assert!(ran.out.contains("a process that was taken over could write it anew"), "{}", ran.out);
    // A snapshot is judged by its own files.
    let directory = Directory::new();
    flip(&directory.file("attempt-0/runs/count/0-2.run"));
    run(&directory, &["verify", "ck@1"]).good();
    run(&directory, &["verify", "ck@2"]).refused(9, &["ck@2"]);
    // Swapped siblings.
    let directory = Directory::new();
    let (one, two) = ("attempt-0/runs/count/0-1.run", "attempt-0/runs/count/1-1.run");
    fs::rename(directory.file(one), directory.file("aside")).unwrap();
    fs::rename(directory.file(two), directory.file(one)).unwrap();
    fs::rename(directory.file("aside"), directory.file(two)).unwrap();
    let ran = run(&directory, &["verify", "ck"]);
    ran.refused(9, &["2 needed files"]);
    assert!(ran.out.contains(one) && ran.out.contains(two), "{}", ran.out);
}

/// It ends well only if every byte of every needed file was read: one that is changed anywhere is noticed, with and without
/// `--deep`.
#[test]
fn verify_looks_at_every_byte() {
    let directory = Directory::new();
    for place in ["ck", "sp"] {
        let root = directory.folder.path().join(place);
        let needed = |path: &Path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let newest_record = name == "history/00000000000000000006";
            name.starts_with("attempt-") || newest_record || place == "sp"
        };
        let files: Vec<_> = files_in(&root).into_iter().filter(|path| needed(path)).collect();
        assert!(files.len() >= 3, "{files:?}");
        for path in files {
            let good = fs::read(&path).unwrap();
            // Both ends and places between them, another bit each.
            for part in 0..=12 {
                let at = (good.len() - 1) * part / 12;
                let mut bad = good.clone();
                bad[at] ^= 1 << (part % 8);
                fs::write(&path, &bad).unwrap();
                let deep = if part % 2 == 0 { &[][..] } else { &["--deep"][..] };
                let ran = run(&directory, &[&["verify", place][..], deep].concat());
                assert_eq!(ran.code, 9, "{} byte {at}: {}", path.display(), ran.out);
            }
            fs::write(&path, good).unwrap();
        }
        run(&directory, &["verify", place]).good();
    }
}

/// All files below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[test]
fn verify_says_what_a_start_comes_to() {
    let (both, first, second) =
        (["attempt-0/manifest-1", "attempt-0/manifest-2"], "attempt-0/manifest-1", "attempt-0/manifest-2");
    let record = "history/00000000000000000006";
    for (damaged, place, said) in [
        (&[first][..], "ck", "damaged: a start goes on from checkpoint 2, the newest, which is whole"),
        (&[second], "ck", "the newest checkpoint that is whole is 1: a start goes back to it by itself if"),
        (&both, "ck", "no checkpoint here is whole: a start says what can be done"),
        (&[record], "ck", "put the history record back: until then a start may be refused"),
        (&["attempt-0/runs/count/1-1.run"], "ck@1", "it cannot be started from; choose another snapshot"),
    ] {
        let directory = Directory::new();
        for file in damaged {
            fs::write(directory.file(file), "x").unwrap();
        }
        run(&directory, &["verify", place]).refused(9, &[said]);
    }
    let directory = Directory::new();
    fs::write(directory.file(second), "x").unwrap();
    let ran = run(&directory, &["--json", "verify", "ck"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["newest_whole"], 1);
}

#[test]
fn an_attempt_that_runs_is_told_from_one_that_died() {
    let directory = Directory::new();
    // Before the end, which is the last record.
    fs::remove_file(directory.file("history/00000000000000000006")).unwrap();
    fs::remove_file(directory.file("latest")).unwrap();
    let dead = run(&directory, &["snapshots", "ck"]);
    assert!(
        dead.good().contains(", not running, and its end is not recorded: it has failed or died (pid "),
        "{}",
        dead.out
    );
    let lock = directory.files.lock(&directory.file("job.lock"), "somebody").unwrap().ok().unwrap();
    let live = run(&directory, &["snapshots", "ck"]);
    assert!(live.good().contains(", running (pid "), "{}", live.out);
    drop(lock);
    assert!(
        run(&directory, &["snapshots", "ck"])
            .good()
            .contains(", not running, and its end is not recorded: it has failed or died (pid ")
    );
}

#[test]
fn a_damaged_manifest_is_listed_and_stops_nothing() {
    let directory = Directory::new();
    fs::write(directory.file("attempt-0/manifest-1"), "x").unwrap();
    let shown = run(&directory, &["snapshots", "ck"]);
    assert!(shown.good().contains("damaged"), "{}", shown.out);
    assert!(
        shown.out.contains("checkpoint 1: ") && shown.out.contains("attempt-0/manifest-1"),
        "{}",
        shown.out
    );
}

#[test]
fn what_is_not_there_gets_one_line_and_is_not_made() {
    let directory = Directory::new();
    fs::create_dir(directory.folder.path().join("empty")).unwrap();
    fs::write(directory.folder.path().join("file"), "x").unwrap();
    for (args, code, said) in [
        (&["snapshots", "nowhere"][..], 2, "nowhere: there is no such directory"),
        (&["verify", "nowhere"], 2, "nowhere: there is no such directory"),
        (&["inspect", "nowhere"], 2, "nowhere: there is no such directory"),
        (&["snapshots", "empty"], 2, "holds neither checkpoints nor a savepoint"),
        (&["verify", "empty"], 2, "holds neither checkpoints nor a savepoint"),
        (&["inspect", "ck@9"], 2, "retained are 1, 2"),
        (&["inspect", "ck@x"], 2, "\"x\" is no number: a snapshot is written ck@N"),
        (&["verify", "ck/history/x"], 2, "is written ck/history/N"),
        (&["inspect", "ck/history/7"], 2, "there is no history record 7; the newest is 6"),
        (&["verify", "ck@9"], 2, "retained are 1, 2"),
        (&["snapshots", "file"], 2, "file is not a directory"),
        (&["snapshots", "hdfs://x/y"], 2, "unknown scheme hdfs"),
        (&["frob"], 2, "frob"),
        (&["verfiy", "ck"], 2, "'verfiy'; some similar subcommands exist: 'query', 'verify'; see"),
        (&["list", "--adress", "x:1"], 2, "found; a similar argument exists: '--address'; see"),
        (&["verify"], 2, "<DIR|SNAPSHOT>"),
        (&["verify", "ck", "--deeper"], 2, "--deeper"),
        (&[], 2, "give a command"),
        (&["run", "./no-such-program"], 2, "cannot run ./no-such-program"),
    ] {
        run(&directory, args).refused(code, &[said]);
    }
    assert!(!directory.folder.path().join("nowhere").exists());
    assert_eq!(fs::read_dir(directory.folder.path().join("empty")).unwrap().count(), 0);
    let json = run(&directory, &["--json", "snapshots", "nowhere"]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!((json.code, error["error"]["kind"].as_str()), (2, Some("invalid-job")));
}

#[test]
fn help_documents_every_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let ran = tidegate(directory.path(), &["--help"]);
    for kind in types::ErrorKind::ALL {
        let code = format!("\n{:>4}  ", kind.exit_code());
        assert!(ran.good().contains(&code), "{} is missing: {}", kind.name(), ran.out);
    }
    assert!(ran.out.contains("\n  14  diff --exit-code: "), "{}", ran.out);
}

#[test]
fn run_becomes_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let ran =
        tidegate(folder.path(), &["run", "-s", "there@3", "sh", "-c", "echo \"$@\"; exit 7", "sh", "-x"]);
    assert_eq!((ran.code, ran.out.as_str()), (7, "-x --from there@3\n"));
    for flag in ["--from", "--snapshot"] {
        assert_eq!(tidegate(folder.path(), &["run", flag, "there", "--", "echo"]).good(), "--from there\n");
    }
    assert_eq!(tidegate(folder.path(), &["run", "echo", "--json", "-s"]).good(), "--json -s\n");
}

#[test]
fn a_reader_that_leaves_changes_nothing() {
    let directory = Directory::new();
    fs::remove_file(directory.file("attempt-0/runs/count/0-1.run")).unwrap();
    for (args, code) in [(&["snapshots", "ck"][..], 0), (&["verify", "ck"], 9)] {
        let mut child = command(directory.folder.path(), args);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert!(said.lines().count() <= 1 && !said.contains("panic"), "{said}");
    }
}
