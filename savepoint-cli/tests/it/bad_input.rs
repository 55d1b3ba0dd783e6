//! What people give to the commands that no job has written, or that somebody has changed since: one line, an exit code that
//! says what kind of trouble it is, and nothing is changed.

#![allow(clippy::disallowed_methods, reason = "plants damage in real files")]

use std::{fs, path::PathBuf};

use types::Digest;

use crate::{
    change::image,
    command::{Ran, tidegate},
    directory::Directory,
    shop::{Model, Shop},
};

const RUN: &str = "runs/count/0-0.run";
const FOOTER_LEN: usize = 256;

struct Scene {
    directory: Directory,
}

impl Scene {
    fn new() -> Self {
        Self { directory: Directory::new() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.folder.path().join(path)
    }

    fn newest_record(&self) -> String {
        let records = fs::read_dir(self.path("ck/history")).unwrap();
        let newest = records.map(|entry| entry.unwrap().file_name()).max().unwrap();
        format!("ck/history/{}", newest.to_str().unwrap())
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(path)).unwrap();
        change(&mut bytes);
        fs::write(self.path(path), bytes).unwrap();
    }

    /// Puts other bytes of the same length into an envelope, whose digest then agrees with them.
    fn replace_in_envelope(&self, path: &str, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        self.edit(path, |bytes| {
            let at = find(bytes, from).expect("it is there");
            bytes[at..at + to.len()].copy_from_slice(to);
            let body = bytes.len() - 16;
            let digest = Digest::of(&bytes[..body]).0.to_le_bytes();
            bytes[body..].copy_from_slice(&digest);
        });
    }

    fn run(&self, args: &[&str]) -> Ran {
        tidegate(self.directory.folder.path(), args)
    }

    /// Each of these commands fails so, and all of them together change nothing.
    #[track_caller]
    fn refuse(&self, code: i32, says: &[&str], commands: &[&[&str]]) {
        let before = image(self.directory.folder.path());
        for args in commands {
            let ran = self.run(args);
            let said = format!("{args:?}: {}{}", ran.out, ran.err);
            assert_eq!(ran.code, code, "{said}");
            // What `verify` finds is its result.
            let told = if args[0] == "verify" { format!("{}{}", ran.out, ran.err) } else { ran.err.clone() };
            if args[0] != "verify" {
                ran.refused(code, &[]);
            }
            // Where only the digest of a whole file is compared, that is what is said.
            let says = if args[0] == "verify" { &says[..1] } else { says };
            for text in says {
                assert!(told.contains(text), "{text:?} is missing in {said}");
            }
            assert!(!told.contains("panicked"), "{said}");
            self.run(&[args, &["--json"][..]].concat());
        }
        assert!(image(self.directory.folder.path()) == before, "something has changed");
        assert!(!self.path("new").join("manifest").exists());
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// Reads of a savepoint's state, each in another way.
const READS: [&[&str]; 5] = [
    &["inspect", "sp", "--exact"],
    &["query", "sp", "--uid", "count", "--state", "count"],
    &["diff", "ck@1", "sp"],
    &["rename-uid", "sp", "count", "tally", "new"],
    &["verify", "sp"],
];

#[test]
fn files_of_another_job() {
    let (scene, other) = (Scene::new(), Scene::new());
    // A run that another job has written, as long and as well-formed.
    fs::copy(other.path("sp").join(RUN), scene.path("sp").join(RUN)).unwrap();
    for read in READS {
        let refused = scene.run(read);
        assert_eq!(refused.code, 9, "{read:?}: {}{}", refused.out, refused.err);
        fs::remove_dir_all(scene.path("new")).ok();
    }
    scene.refuse(9, &[RUN, "job"], &[READS[0], READS[1], READS[2], READS[4]]);
    // The whole savepoint of another job, where this one's is to go.
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("sp")).unwrap();
    fs::create_dir_all(scene.path("sp/runs/count")).unwrap();
    for file in ["manifest", RUN, "runs/count/1-0.run"] {
        fs::copy(other.path("sp").join(file), scene.path("sp").join(file)).unwrap();
    }
    scene.refuse(10, &["sp holds another savepoint"], &[&["convert", "ck", "sp"]]);
    // The newest record of another job's history: it names manifests that are not here.
    let newest = scene.newest_record();
    fs::copy(other.path(&newest), scene.path(&newest)).unwrap();
    scene.refuse(9, &["attempt-0/manifest-2"], &[&["inspect", "ck"], &["convert", "ck", "new"]]);
}

#[test]
fn newer_formats() {
    let scene = Scene::new();
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8] += 1;
        let sum = crc(&bytes[..20]);
        bytes[20..24].copy_from_slice(&sum);
    };
    scene.edit("sp/manifest", newer);
    let says =
        ["manifest", "written by a newer version (format 2, this program reads up to 1): use that program"];
    scene.refuse(9, &says, &READS);
    let newest = scene.newest_record();
    scene.edit(&newest, newer);
    let commands: [&[&str]; 4] =
        [&["snapshots", "ck"], &["inspect", "ck"], &["convert", "ck", "new"], &["gc", "ck"]];
    scene.refuse(9, &["written by a newer version (format 3, this program reads up to 2)"], &commands);

    let scene = Scene::new();
    scene.edit(&format!("sp/{RUN}"), |bytes| {
        bytes[8] += 1;
        let sum = crc(&bytes[..12]);
        bytes[12..16].copy_from_slice(&sum);
        let at = bytes.len() - FOOTER_LEN;
        bytes[at + 8] += 1;
        let sum = crc(&bytes[at..at + 252]);
        bytes[at + 252..].copy_from_slice(&sum);
    });
    scene.refuse(9, &[RUN, "version"], &[READS[0], READS[1], READS[2], READS[4]]);
}

#[test]
fn half_copied_directories() {
    let scene = Scene::new();
    let bytes = fs::read(scene.path("sp").join(RUN)).unwrap();
    scene.edit(&format!("sp/{RUN}"), |bytes| bytes.truncate(bytes.len() / 2));
    let run_says = [RUN, "it ends at"];
    scene.refuse(9, &run_says, &[READS[0], READS[1], READS[2], READS[4]]);
    fs::remove_file(scene.path("sp").join(RUN)).unwrap();
    scene.refuse(9, &[RUN, "missing"], &[READS[0], READS[1], READS[2], READS[4]]);
    fs::write(scene.path("sp").join(RUN), &bytes).unwrap();
    scene.edit("sp/manifest", |bytes| bytes.truncate(bytes.len() - 1));
    scene.refuse(9, &["manifest"], &READS);
    fs::remove_file(scene.path("sp/manifest")).unwrap();
    scene.refuse(2, &["sp"], &READS);
    // Of a checkpoint directory without what its history names.
    fs::remove_file(scene.directory.file("attempt-0/manifest-2")).unwrap();
    scene.refuse(
        9,
        &["attempt-0/manifest-2"],
        &[&["inspect", "ck"], &["convert", "ck", "new"], &["verify", "ck"]],
    );
    fs::remove_dir_all(scene.path("ck/history")).unwrap();
    let says = ["history record", "is missing"];
    scene.refuse(9, &says, &[&["inspect", "ck"], &["gc", "ck"]]);
}

#[test]
fn a_path_outside_of_the_directory() {
    for path in [
        "../../ount/0-0.run",
        "runs/count/../.run",
        "/uns/count/0-0.run",
        "runs/count//-0.run",
        "runs/count/\0-0.run",
    ] {
        let scene = Scene::new();
        let path = path.as_bytes();
        scene.replace_in_envelope("sp/manifest", RUN.as_bytes(), &path[..RUN.len()]);
        scene.refuse(9, &["manifest"], &READS);
        scene.refuse(9, &["sp"], &[&["delete", "sp"]]);
        assert!(scene.path("sp").join(RUN).exists());
    }
}

#[test]
fn a_block_that_says_it_is_huge() {
    let scene = Scene::new();
    let path = format!("sp/{RUN}");
    scene.edit(&path, |bytes| {
        let footer = bytes.len() - FOOTER_LEN;
        let (index, len) = (u64_at(bytes, footer + 96), u32_at(bytes, footer + 104));
        // The plain length of the first block, and whether it is compressed: a gibibyte of zeros, say.
        bytes[index + 12..index + 16].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        bytes[index + 24] = 1;
        let sum = crc(&bytes[index..index + len]);
        bytes[footer + 108..footer + 112].copy_from_slice(&sum);
        let sum = crc(&bytes[footer..footer + 252]);
        bytes[footer + 252..].copy_from_slice(&sum);
    });
    scene.refuse(9, &[RUN], &[READS[0], READS[1], READS[2], READS[4]]);
}

#[test]
fn a_directory_for_a_savepoint_that_is_not_empty() {
    let scene = Scene::new();
    fs::create_dir(scene.path("full")).unwrap();
    fs::write(scene.path("full/notes"), "mine").unwrap();
    let commands: [&[&str]; 3] = [
        &["convert", "ck", "full"],
        &["rename-uid", "sp", "count", "tally", "full"],
        &["drop-state", "sp", "--uid", "count", "full"],
    ];
    scene.refuse(10, &["full holds other files: choose an empty or a new one"], &commands);
}

#[test]
fn a_key_of_the_wrong_type() {
    // Keys that are texts take whatever is given; these are structs.
    let shop = Shop::new();
    shop.make("ck", 1, &[Model::default()]);
    for key in
        ["7", "[1]", "{}", "not json", r#"{"user": "x", "day": "monday"}"#, r#"{"user": "x", "day": -1}"#]
    {
        let ran = tidegate(
            shop.folder.path(),
            &["query", "ck", "--uid", "visit", "--state", "visits", "--key", key],
        );
        ran.refused(2, &["keys are struct Visit { user: str, day: u32 }"]);
    }
}

#[test]
fn the_same_copy_made_twice_at_once() {
    let scene = Scene::new();
    // Another command, or a job, that copies the same checkpoint now.
    let (dir, place) = (scene.path("new"), scene.path("new/copy.lock"));
    fs::create_dir(&dir).unwrap();
    let lock = scene.directory.files.lock(&place, "pid 7").unwrap().ok().unwrap();
    let commands: [&[&str]; 3] = [
        &["convert", "ck", "new"],
        &["rename-uid", "sp", "count", "tally", "new"],
        &["drop-state", "sp", "--uid", "count", "new"],
    ];
    scene.refuse(4, &["new is being written by pid 7: wait for it, or choose another"], &commands);
    // It dies; what it has left means nothing.
    drop(lock);
    assert!(place.exists());
    scene.run(commands[0]).good();
    assert!(!place.exists());
    scene.run(&["verify", "new", "--deep"]).good();
    // Once it is whole, the same copy is there already.
    scene.run(commands[0]).good();
}
