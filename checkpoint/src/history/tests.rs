#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use types::{
    AttemptId, CheckpointId, Digest, ErrorKind, JobId, Lineage, MaxParallelism, RecordNumber, SnapshotFile,
    Timestamp,
};

use super::{fallback::Fallback, record::HIGHEST, *};

fn file(path: &str) -> SnapshotFile {
    SnapshotFile { path: path.into(), len: 5, digest: Digest(6) }
}

fn start(lineage: u128, restores: Restores) -> Kind {
    Kind::AttemptStarted(Box::new(AttemptStart {
        job_name: "job".into(),
        job: JobId(1),
        max_parallelism: MaxParallelism::DEFAULT,
        lineage: Lineage(lineage),
        origin: Origin { restored: restores.clone(), named: Some("s".into()), ..Origin::default() },
        instance: Instance(3),
        process: "pid 4 on host".into(),
        parallelism: 2,
        restores,
        abandons: Vec::new(),
    }))
}

fn completed(checkpoint: u64) -> Kind {
    let manifest = file(&format!("attempt-0/manifest-{checkpoint}"));
    let checkpoint = CheckpointId(checkpoint);
    Kind::CheckpointCompleted(Completion { checkpoint, manifest, kind: CheckpointKind::Ordinary })
}

fn confirmed(checkpoint: u64) -> Kind {
    Kind::SinksConfirmed(CheckpointId(checkpoint))
}

fn marked(checkpoints: &[u64], files: &[&str]) -> Kind {
    Kind::GarbageMarked(GarbageMark {
        checkpoints: checkpoints.iter().copied().map(CheckpointId).collect(),
        files: files.iter().map(|&path| path.to_owned()).collect(),
    })
}

/// The records of a history of these kinds.
fn history(kinds: impl IntoIterator<Item = Kind>) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for kind in kinds {
        let record = Record::after(records.last(), Timestamp(records.len() as i64), kind).unwrap();
        records.push(record);
    }
    records
}

fn long_history() -> Vec<Record> {
    let savepoint =
        Savepoint { checkpoint: CheckpointId(2), url: "/savepoints/s".into(), manifest: file("manifest") };
    history([
        start(2, Restores::Empty),
        completed(1),
        confirmed(1),
        completed(2),
        confirmed(2),
        Kind::SavepointCompleted(savepoint),
        completed(3),
        marked(&[1], &["attempt-0/manifest-1"]),
        Kind::Revoked(CheckpointId(3)),
        Kind::Ended(EndKind::Failed("three failures".into())),
    ])
}

#[test]
fn records_come_back_as_they_were_and_every_changed_byte_is_noticed() {
    for record in long_history() {
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(record.number, &bytes).unwrap(), record);
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            let error = Record::decode(record.number, &changed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "record {} byte {at}", record.number);
            assert!(error.message().contains("history/0000000000000000000"), "{error}");
            assert!(Record::decode(record.number, &bytes[..at]).is_err(), "cut at {at}");
        }
        let elsewhere = RecordNumber(record.number.0 + 1);
        let error = Record::decode(elsewhere, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "a swapped record");
    }
}

/// The bytes are a promise: a change of them needs a new version and a reader for the old one.
#[test]
fn the_bytes_of_a_record_are_these() {
    let mut gave_up =
        history([start(2, Restores::Empty), completed(1), confirmed(1), Kind::Ended(EndKind::Cancelled)]);
    gave_up
        .push(Record::after(gave_up.last(), Timestamp(4), marked(&[1], &["attempt-0/manifest-1"])).unwrap());
    for (record, golden) in
        [(long_history().swap_remove(7), GOLDEN), (gave_up.swap_remove(4), GOLDEN_GAVE_UP)]
    {
        let hex: String = record.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }
}

const GOLDEN: &str = "\
    544748495354000002000000ac000000000000005ab2b1f6070e0501010114617474656d70742d302f6d616e69666573\
    742d31036a6f6201800002030d7069642034206f6e20686f7374020000000101730000030202000214617474656d7074\
    2d302f6d616e69666573742d320506000603000214617474656d70742d302f6d616e69666573742d330506000c010300\
    01020d2f73617665706f696e74732f73086d616e6966657374050601070114617474656d70742d302f6d616e69666573\
    742d3100eb635c016ddfadf68c8c1572fe221fa3";

const GOLDEN_GAVE_UP: &str = "\
    5447484953540000020000005a0000000000000097afb5cf04080501010114617474656d70742d302f6d616e69666573\
    742d31036a6f6201800002030d7069642034206f6e20686f737402000000000000010000000001040114617474656d70\
    742d302f6d616e69666573742d31010206016993567b32a3b2eb6bad94ea216dbc07";

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let changes: &[fn(&mut Record)] = &[
        |record| record.number = RecordNumber(HIGHEST.0 + 1),
        |record| record.standing.attempt.id = AttemptId(record.number.0),
        |record| record.standing.attempt.id = AttemptId(record.number.0 + 1),
        |record| record.standing.completed.reverse(),
        |record| record.standing.highest_checkpoint = CheckpointId(1),
        |record| record.standing.unconfirmed.push(CheckpointId(2)),
        |record| record.standing.unconfirmed = vec![CheckpointId(1)],
        |record| record.standing.completed[0].manifest.path = "../m".into(),
        |record| record.standing.garbage[0].files = vec!["history/00000000000000000000".into()],
        |record| record.standing.garbage[0].files = vec!["attempt-0/../history/x".into()],
        |record| {
            let kind = EndKind::Cancelled;
            record.standing.end = Some(End { kind, at: Timestamp(0), gave_up: true });
        },
    ];
    let record = long_history().swap_remove(7);
    for (index, change) in changes.iter().enumerate() {
        let mut changed = record.clone();
        change(&mut changed);
        let error = Record::decode(changed.number, &changed.encode().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "change {index}");
    }
}

#[test]
fn hints_come_back_and_damage_is_noticed() {
    let bytes = record::encode_hint(RecordNumber(70_000)).unwrap();
    assert_eq!(record::decode_hint(&bytes).unwrap(), RecordNumber(70_000));
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x20;
        assert!(record::decode_hint(&changed).is_err(), "byte {at}");
    }
    let beyond = record::encode_hint(RecordNumber(u64::MAX)).unwrap();
    assert_eq!(record::decode_hint(&beyond).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn every_record_restates_what_still_holds() {
    let records = long_history();
    let standing = &records[7].standing;
    let numbers = |standing: &Standing| -> Vec<u64> {
        standing.completed.iter().map(|completed| completed.checkpoint.0).collect()
    };
    assert_eq!(numbers(standing), [2, 3]);
    assert_eq!(standing.unconfirmed, [CheckpointId(3)]);
    assert_eq!(standing.garbage.len(), 1);
    let last = &records[9].standing;
    assert_eq!(numbers(last), [2]);
    assert_eq!((last.revoked.as_slice(), last.unconfirmed.len()), (&[CheckpointId(3)][..], 0));
    assert_eq!(last.end.as_ref().unwrap().kind.name(), "failed");
    assert_eq!(last.highest_checkpoint, CheckpointId(3));
    let own = last.restore_point();
    assert_eq!(own.checkpoint(), Some(CheckpointId(2)));

    let mut more = records;
    for kind in [start(2, own), Kind::GarbageDone(RecordNumber(7)), completed(4), confirmed(4)] {
        let next = Record::after(more.last(), Timestamp(0), kind).unwrap();
        more.push(next);
    }
    let [.., started, done, completed, confirmed] = more.as_slice() else { panic!() };
    assert_eq!(started.standing.attempt.id, AttemptId(10));
    assert!(started.standing.end.is_none());
    assert_eq!(started.standing.pinned().unwrap().checkpoint, CheckpointId(2));
    assert!(done.standing.garbage.is_empty());
    assert!(completed.standing.pinned().is_none(), "it has a checkpoint of its own");
    assert_eq!(completed.standing.revoked, [CheckpointId(3)]);
    assert!(confirmed.standing.revoked.is_empty(), "a later checkpoint is committed");
}

#[test]
fn records_that_contradict_what_holds_are_refused() {
    let records = long_history();
    let refused = |before: usize, kind: Kind| {
        let name = kind.name();
        let result = Record::after(Some(&records[before]), Timestamp(0), kind);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal, "{name} after record {before}");
    };
    refused(1, completed(1));
    refused(0, confirmed(1));
    refused(2, confirmed(1));
    refused(4, Kind::Revoked(CheckpointId(1)));
    refused(6, marked(&[3], &[]));
    refused(6, marked(&[9], &[]));
    refused(6, marked(&[], &["latest"]));
    refused(7, Kind::GarbageDone(RecordNumber(6)));
    refused(9, completed(4));
    let Kind::AttemptStarted(other) = start(2, Restores::Empty) else { panic!() };
    refused(9, Kind::AttemptStarted(Box::new(AttemptStart { job: JobId(2), ..*other })));
    assert!(Record::after(None, Timestamp(0), completed(1)).is_err());
}

#[test]
fn a_checkpoint_that_a_fresh_lineage_has_not_replaced_stays_its_restore_point_and_is_needed() {
    let mut records =
        history([start(2, Restores::Empty), completed(1), confirmed(1), completed(2), confirmed(2)]);
    let first = Restores::Own(records[4].standing.completed[0].clone());
    records.push(Record::after(records.last(), Timestamp(0), start(7, first.clone())).unwrap());
    let standing = &records[5].standing;
    assert_eq!(standing.restore_point(), first);
    assert!(standing.needs(CheckpointId(1)));
    assert!(Record::after(records.last(), Timestamp(0), marked(&[1], &[])).is_err());
}

/// What the sinks committed between the beginning of a line and its damaged checkpoint would be written again.
#[test]
fn nothing_falls_back_to_the_beginning_over_checkpoints_that_are_gone() {
    let alone = |checkpoint: u64| {
        let mut records = history([start(2, Restores::Empty), completed(checkpoint)]);
        let standing = records.remove(1).standing;
        fallback::instead(&standing, CheckpointId(checkpoint))
    };
    assert_eq!(alone(1), Some(Restores::Empty));
    assert_eq!(alone(5), None);
    // A line that began with a snapshot: one of its own job, or a foreign one.
    let mut records = history([start(2, Restores::Empty), completed(3), confirmed(3)]);
    let own = Restores::Own(records.remove(2).standing.completed[0].clone());
    let (url, manifest, max_parallelism) =
        ("/savepoints/s".into(), file("manifest"), MaxParallelism::DEFAULT);
    let checkpoint = CheckpointId(3);
    let foreign = Restores::Foreign(ForeignSnapshot { url, manifest, checkpoint, max_parallelism });
    for first in [own, foreign] {
        let begun_with = |checkpoint: u64| {
            let line = [completed(3), confirmed(3), start(7, first.clone()), completed(checkpoint)];
            let mut records = history([start(2, Restores::Empty)].into_iter().chain(line));
            fallback::instead(&records.remove(4).standing, CheckpointId(checkpoint))
        };
        assert_eq!(begun_with(4), Some(first.clone()));
        assert_eq!(begun_with(6), None, "{first:?}");
    }
}

/// Its files may be deleted at any moment, by the very attempt that would restore it.
#[test]
fn nothing_falls_back_to_a_checkpoint_that_is_marked_as_garbage() {
    let line = || history([start(2, Restores::Empty), completed(5), confirmed(5)]);
    let own = Restores::Own(line().remove(2).standing.completed[0].clone());
    let all = [start(2, Restores::Empty), completed(5), confirmed(5), start(2, own.clone()), completed(6)];
    let marks = || marked(&[5], &["attempt-0/manifest-5"]);
    let damaged = CheckpointId(6);
    let retained = history(all.clone().into_iter().chain([confirmed(6)])).pop().unwrap();
    assert_eq!(fallback::instead(&retained.standing, damaged), Some(own.clone()));
    let mut records = history(all.into_iter().chain([confirmed(6), marks()]));
    let standing = &records[6].standing;
    assert_eq!(fallback::instead(standing, damaged), None);
    let Fallback::Refuse(why) = fallback::fallback(standing, damaged, &BTreeMap::new()) else { panic!() };
    assert_eq!(why, "checkpoint 5, which it went on from, is not retained any more");
    // Nor does any other start restore it, whether its files are gone or not.
    records.push(Record::after(records.last(), Timestamp(0), Kind::GarbageDone(RecordNumber(6))).unwrap());
    for before in [&records[6], &records[7]] {
        let refused = Record::after(Some(before), Timestamp(0), start(2, own.clone())).unwrap_err();
        assert!(refused.message().contains("checkpoint 5 is not retained"), "{refused}");
    }
}

/// What the sinks hold was compared with one line of history: a start on another one may double their output.
#[test]
fn a_start_goes_on_only_with_the_line_for_which_the_sinks_were_asked() {
    let ran = || [start(2, Restores::Empty), completed(1), confirmed(1)];
    let end = || Kind::Ended(EndKind::Cancelled);
    let gave_up = history(ran().into_iter().chain([end(), marked(&[1], &["attempt-0/manifest-1"])]));
    let anew = history(ran().into_iter().chain([end(), start(7, Restores::Empty)]));
    let before = history(ran());
    let line = |records: &[Record], from: &From| Line::of(records.last().map(|last| &last.standing), from);
    assert_eq!(line(&before, &From::Auto), Line::Continued(Lineage(2)));
    assert_eq!(line(&gave_up, &From::Auto), Line::New);
    assert_eq!(line(&[], &From::Auto), Line::New);
    assert_eq!(line(&before, &From::None), Line::New);
    let decide = |records: &[Record], line: Line, from: From| {
        let request = StartRequest { line, from, ..StartRequest::new("job", MaxParallelism::DEFAULT, 1) };
        let candidate = start::Candidate {
            request: &request,
            instance: Instance(9),
            process: "pid 9",
            directory: "/checkpoints",
            new_job: JobId(8),
            new_lineage: Lineage(9),
        };
        start::decide(records.last().map(|last| &last.standing), &candidate)
    };
    let old = Line::Continued(Lineage(2));
    for (records, line, from, starts) in [
        (&before, old, From::Auto, true),
        (&gave_up, old, From::Auto, false),
        (&anew, old, From::Auto, false),
        (&anew, Line::Continued(Lineage(7)), From::Auto, true),
        (&gave_up, Line::New, From::Auto, true),
        (&before, Line::New, From::Auto, false),
        (&before, Line::New, From::None, true),
        (&Vec::new(), old, From::Auto, false),
        (&Vec::new(), Line::New, From::Auto, true),
        (&gave_up, Line::Any, From::Auto, true),
    ] {
        let place = format!("{line:?}, {from:?} after {:?}", records.last().map(|last| last.kind.name()));
        match decide(records, line, from) {
            Ok(_) => assert!(starts, "{place}"),
            Err(error) => {
                assert!(!starts, "{place}: {error}");
                assert_eq!(error.kind(), ErrorKind::Retryable, "{place}");
                assert!(error.message().ends_with("start again"), "{error}");
            }
        }
    }
}

/// Nothing was removed, though no checkpoint is left of a number that was used.
#[test]
fn a_job_without_a_checkpoint_that_gave_none_up_goes_on_in_its_line() {
    let foreign = Restores::Foreign(ForeignSnapshot {
        url: "/savepoints/s".into(),
        manifest: file("manifest"),
        checkpoint: CheckpointId(3),
        max_parallelism: MaxParallelism::DEFAULT,
    });
    let cancelled = || Kind::Ended(EndKind::Cancelled);
    let records = history([start(2, foreign), cancelled(), start(7, Restores::Empty), cancelled()]);
    for record in &records {
        assert!(!record.standing.starts_over(), "{record:?}");
    }
    let line = Line::of(Some(&records[3].standing), &From::Auto);
    assert_eq!(line, Line::Continued(Lineage(7)));
}

#[test]
fn a_cancelled_or_failed_job_gives_up_all_its_checkpoints_or_none() {
    let ended = |end: EndKind, confirms: bool| {
        let all = [start(2, Restores::Empty), completed(1), confirmed(1), completed(2)];
        let confirmed = confirms.then(|| confirmed(2));
        history(all.into_iter().chain(confirmed).chain([Kind::Ended(end)])).pop().unwrap()
    };
    let marking = |end: EndKind, confirms: bool, checkpoints: &[u64]| {
        let last = ended(end, confirms);
        Record::after(Some(&last), Timestamp(0), marked(checkpoints, &["attempt-0/manifest-1"]))
    };
    for end in [EndKind::Cancelled, EndKind::Failed("three failures".into())] {
        assert!(!ended(end.clone(), true).standing.starts_over());
        let given_up = marking(end.clone(), true, &[1, 2]).unwrap();
        assert!(given_up.standing.starts_over() && given_up.standing.held().is_empty());
        let bytes = given_up.encode().unwrap();
        assert_eq!(Record::decode(given_up.number, &bytes).unwrap(), given_up);
        let done = Kind::GarbageDone(given_up.number);
        let done = Record::after(Some(&given_up), Timestamp(0), done).unwrap();
        assert!(done.standing.starts_over() && done.standing.garbage.is_empty());
        assert!(
            Record::after(Some(&done), Timestamp(0), completed(3)).is_err(),
            "nothing else follows an end"
        );
        // A part of them, or what sinks have yet to commit.
        for (confirms, checkpoints) in [(true, &[1][..]), (true, &[2]), (false, &[1]), (false, &[1, 2])] {
            let refused = marking(end.clone(), confirms, checkpoints).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Internal, "{confirms}, {checkpoints:?}");
        }
    }
    for end in
        [EndKind::Cancelled, EndKind::Failed("three failures".into()), EndKind::Stopped, EndKind::Finished]
    {
        // What nothing refers to may go behind any end, which stays what it was.
        let before = ended(end.clone(), false);
        let marked = marking(end, false, &[]).unwrap();
        assert_eq!(marked.standing.garbage.len(), 1);
        let after = Standing { garbage: Vec::new(), ..marked.standing };
        assert_eq!(after, before.standing);
    }
    for end in [EndKind::Stopped, EndKind::Finished] {
        assert!(marking(end.clone(), true, &[1, 2]).is_err(), "its checkpoints are what a later start needs");
        // What was marked before the end is deleted in the end.
        let all = [start(2, Restores::Empty), completed(1), completed(2), confirmed(2), marked(&[1], &[])];
        let ended = history(all.into_iter().chain([Kind::Ended(end)])).pop().unwrap();
        let done = Record::after(Some(&ended), Timestamp(0), Kind::GarbageDone(RecordNumber(4))).unwrap();
        assert!(done.standing.garbage.is_empty() && done.standing.end == ended.standing.end);
    }
}

#[test]
fn the_newest_confirmed_checkpoint_is_kept_while_later_ones_wait() {
    let mut kinds = vec![start(2, Restores::Empty)];
    kinds.extend([completed(1), confirmed(1), completed(2), confirmed(2)]);
    kinds.extend([completed(3), completed(4), completed(5)]);
    let standing = |kinds: &[Kind]| history(kinds.to_vec()).pop().unwrap().standing;
    let waiting = standing(&kinds);
    let needed =
        |standing: &Standing| (1..=5).filter(|&it| standing.needs(CheckpointId(it))).collect::<Vec<_>>();
    // It tells that what 3 to 5 list of 1 and 2 is committed.
    assert_eq!(needed(&waiting), [2, 3, 4, 5]);
    let committed = |standing: &Standing, lineage| {
        (1..=5).filter(|&it| standing.has_committed(Lineage(lineage), CheckpointId(it))).collect::<Vec<_>>()
    };
    assert_eq!(committed(&waiting, 2), [1, 2]);
    assert_eq!(committed(&waiting, 3), Vec::<u64>::new());
    kinds.push(confirmed(3));
    assert_eq!(needed(&standing(&kinds)), [3, 4, 5]);
    assert_eq!(committed(&standing(&kinds), 2), [1, 2, 3]);
}
