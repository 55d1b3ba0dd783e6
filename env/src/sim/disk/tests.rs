//! What a crash, a failed sync and damage leave on a simulated disk.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, io, path::Path};

use crate::{Files, sim::Simulation};

fn write(files: &dyn Files, path: &str, text: &str, sync: bool) {
    let mut file = files.create_new(Path::new(path)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    if sync {
        file.sync_all().unwrap();
    }
}

fn read(files: &dyn Files, path: &str) -> Option<String> {
    let file = files.open(Path::new(path)).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(String::from_utf8(bytes).unwrap())
}

/// What is left of `/d/f` after `write` and a crash, over many seeds.
fn left(write: impl Fn(&dyn Files)) -> BTreeSet<Option<String>> {
    (0..64)
        .map(|seed| {
            let sim = Simulation::new(seed);
            let (process, own) = sim.process("writer");
            let files = own.files();
            files.create_dir_all(Path::new("/d")).unwrap();
            files.sync_dir(Path::new("/")).unwrap();
            write(&*files);
            process.crash();
            read(&*sim.env().files(), "/d/f")
        })
        .collect()
}

fn texts(all: &[Option<&str>]) -> BTreeSet<Option<String>> {
    all.iter().map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn a_crash_keeps_what_was_synced() {
    let found = left(|files| {
        write(files, "/d/f", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
    });
    assert_eq!(found, texts(&[Some("abc")]));
}

#[test]
fn a_crash_may_lose_or_tear_what_was_not() {
    let found = left(|files| {
        write(files, "/d/f", "abc", false);
        files.sync_dir(Path::new("/d")).unwrap();
    });
    assert_eq!(found, texts(&[Some(""), Some("a"), Some("ab"), Some("abc")]), "bytes without a sync");
    let found = left(|files| write(files, "/d/f", "abc", true));
    assert_eq!(found, texts(&[None, Some("abc")]), "a name without a sync of its directory");
    let found = left(|files| {
        write(files, "/d/f", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
        let mut file = files.append(Path::new("/d/f"), 1).unwrap();
        file.write_all(b"x").unwrap();
    });
    assert!(found.contains(&Some("abc".into())), "a cut without a sync: {found:?}");
}

#[test]
fn a_rename_is_lost_or_kept_but_never_loses_the_file() {
    let found = left(|files| {
        write(files, "/d/old", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
        files.rename_new(Path::new("/d/old"), Path::new("/d/f")).unwrap();
    });
    assert_eq!(found, texts(&[None, Some("abc")]));
    for seed in 0..64 {
        let sim = Simulation::new(seed);
        let files = sim.env().files();
        write(&*files, "/old", "abc", true);
        files.sync_dir(Path::new("/")).unwrap();
        files.create_dir_all(Path::new("/d")).unwrap();
        files.rename_new(Path::new("/old"), Path::new("/d/new")).unwrap();
        sim.crash();
        let names = [read(&*files, "/old"), read(&*files, "/d/new")];
        let lost_with_directory = files.metadata(Path::new("/d")).unwrap().is_none();
        assert!(names.iter().flatten().count() >= 1 || lost_with_directory, "seed {seed}: the file is gone");
    }
}

#[test]
fn a_killed_process_leaves_the_page_cache_and_no_lock() {
    let sim = Simulation::new(3);
    let (process, own) = sim.process("writer");
    let (files, path) = (own.files(), Path::new("/lock"));
    write(&*files, "/f", "abc", false);
    let held = files.lock(path, "writer").unwrap().unwrap();
    let observer = sim.env().files();
    assert_eq!(observer.lock(path, "observer").unwrap().err().unwrap(), "writer");
    process.kill();
    assert!(observer.lock(path, "observer").unwrap().is_ok());
    drop(held);
    assert_eq!(read(&*observer, "/f").as_deref(), Some("abc"));
    assert!(files.create_new(Path::new("/g")).is_err(), "a dead process writes");
    assert!(files.open(Path::new("/f")).is_err(), "a dead process reads");
}

#[test]
fn a_sync_after_a_failed_one_promises_nothing() {
    for seed in 0..32 {
        let sim = Simulation::new(seed);
        let files = sim.env().files();
        let mut file = files.create_new(Path::new("/f")).unwrap();
        files.sync_dir(Path::new("/")).unwrap();
        file.write_all(b"lost").unwrap();
        sim.disk().fail_sync(1);
        file.sync_all().unwrap_err();
        file.sync_all().unwrap();
        sim.crash();
        assert_eq!(read(&*files, "/f").as_deref(), Some(""), "seed {seed}");
    }
}

#[test]
fn damage_is_seen_by_readers() {
    let sim = Simulation::new(11);
    let files = sim.env().files();
    write(&*files, "/f", "abc", true);
    sim.disk().damage(Path::new("/f"), |bytes| bytes[1] ^= 1).unwrap();
    assert_eq!(read(&*files, "/f").as_deref(), Some("acc"));
    let missing = sim.disk().damage(Path::new("/g"), Vec::clear).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_long_run_forgets_what_is_gone() {
    let sim = Simulation::new(12);
    let files = sim.env().files();
    for number in 0..10_000 {
        let staged = format!("/staged-{number}");
        write(&*files, &staged, "abc", true);
        files.create_dir_all(Path::new("/d")).unwrap();
        files.rename(Path::new(&staged), Path::new("/d/kept")).unwrap();
        files.sync_dir(Path::new("/d")).unwrap();
    }
    assert!(sim.disk().remembered() < 2_000, "{} files and changes", sim.disk().remembered());
    sim.crash();
}
