//! Damage to the checkpoint directory of a killed job, in one process: `verify` names the file each time, and a start
//! either refuses or goes on from exactly the state and the positions of the undamaged directory.

use std::{collections::BTreeMap, num::NonZero, ops::Range, thread, time::Duration};

use tidegate_chaos_tests::{
    Laboratory, Restored, Scene, Seeded, await_answer,
    damage::{self, Damage, Image},
};

/// Little text: each byte of metadata is changed once, and each time all files are read.
const TEXT_BYTES: u64 = 4 << 20;
const PARALLELISM: u64 = 2;
/// The text lasts ten seconds: many times what the checkpoints take.
const WORDS_PER_SECOND: u64 = 100_000;
/// The job dies after each of these checkpoints.
const DEATHS: [u64; 2] = [2, 4];
const LIFE_LIMIT: Duration = Duration::from_secs(30);
/// How many bits of data blocks are changed.
const BLOCK_BITS: usize = 1_000;

/// The header of a run file, before its first block.
const RUN_HEADER: usize = 16;
/// The footer of a run file: its last bytes.
const RUN_FOOTER: usize = 256;
/// Where in the footer it stands how far the blocks reach; see `FORMAT.md`.
const RUN_BLOCKS_END_AT: usize = 80;

/// The files of a directory that are damaged, by what they are.
pub(crate) struct Targets {
    records: Vec<String>,
    manifests: Vec<String>,
    runs: Vec<String>,
}

#[test]
fn damage_is_never_used() {
    let mut seeded = Seeded::announced("damage_is_never_used", 11);
    let scene = killed_job(&mut seeded);
    let (image, words) = (scene.image("checkpoints"), scene.words());
    let laboratory = Laboratory::new(image.clone(), words.clone()).unwrap();
    let whole = laboratory.examine(Vec::new()).unwrap();
    let (targets, whole) = (targets(laboratory.image(), &whole.needed), whole.restored.unwrap());
    assert!(whole.counts.values().sum::<u64>() > 0, "the job died before it had counted anything");

    let damages = damages(laboratory.image(), &targets, &mut seeded);
    let share = damages.len().div_ceil(thread::available_parallelism().map_or(1, NonZero::get));
    let examined = |share: &[Damage]| {
        let laboratory = Laboratory::new(image.clone(), words.clone()).unwrap();
        share
            .iter()
            .map(|damage| (kind(damage, &image), is_refused(&laboratory, damage, &whole)))
            .collect::<Vec<_>>()
    };
    let verdicts: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = damages.chunks(share).map(|share| scope.spawn(|| examined(share))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    print_table("damage_is_never_used", verdicts);
}

/// Prints how often each kind of damage was done, and how often it was refused.
pub(crate) fn print_table(test: &str, verdicts: Vec<(&str, bool)>) {
    let mut tally = BTreeMap::<&str, (u64, u64)>::new();
    for (kind, refusal) in verdicts {
        let (done, refused) = tally.entry(kind).or_default();
        *done += 1;
        *refused += u64::from(refusal);
    }
    for (kind, (done, refused)) in tally {
        println!("{test}: {kind}: {done} times, refused {refused} times, else without effect");
    }
}

/// A job that was shot after some checkpoints.
pub(crate) fn killed_job(seeded: &mut Seeded) -> Scene {
    let mut scene = Scene::new(super::word_count(), 2, TEXT_BYTES, seeded);
    for checkpoint in DEATHS {
        live_until(&mut scene, checkpoint);
    }
    // The hint must name the newest record: else nothing in the directory could tell that this record is gone.
    while !scene.history().is_hinted {
        let next = scene.history().checkpoint + 1;
        live_until(&mut scene, next);
    }
    scene
}

/// One life that is shot once a checkpoint has completed and the hint has followed.
fn live_until(scene: &mut Scene, checkpoint: u64) {
    let mut command = scene.paced_command(PARALLELISM, WORDS_PER_SECOND);
    let life = scene.start(&mut command);
    let completed = await_answer(LIFE_LIMIT, || {
        let newest = scene.history();
        Ok::<_, std::io::Error>((newest.checkpoint >= checkpoint && newest.is_hinted).then_some(()))
    });
    assert!(completed.unwrap().is_some(), "no checkpoint {checkpoint} within {LIFE_LIMIT:?}");
    assert!(life.kill().unwrap(), "the job ended before it could be shot");
}

/// Does the damage, holds `verify` and a start to their promises, and tells whether the start refused.
fn is_refused(laboratory: &Laboratory, damage: &Damage, whole: &Restored) -> bool {
    let found = laboratory.examine(damage.outcome(laboratory.image())).unwrap();
    let named = found.problems.iter().any(|problem| damage.files().contains(&&*problem.file));
    assert!(named, "{damage}: verify does not name the file, but says {:?}", found.problems);
    match found.restored {
        Ok(restored) => {
            assert!(restored == *whole, "{damage}: a start goes on from another state or other positions");
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() > 20, "{damage}: the refusal is no line: {text:?}");
            true
        }
    }
}

pub(crate) fn targets(image: &Image, needed: &[String]) -> Targets {
    let among = |part: &str| needed.iter().filter(|path| path.contains(part)).cloned().collect();
    let records = image.keys().filter(|path| path.starts_with("history/")).cloned().collect();
    Targets { records, manifests: among("/manifest-"), runs: among("/runs/") }
}

pub(crate) fn damages(image: &Image, targets: &Targets, seeded: &mut Seeded) -> Vec<Damage> {
    let mut damages = Vec::new();
    for file in targets.records.iter().chain(&targets.manifests) {
        damages.extend(damage::every_byte(file, 0..image[file].len(), seeded));
    }
    for file in &targets.runs {
        let len = image[file].len();
        damages.extend(damage::every_byte(file, 0..RUN_HEADER, seeded));
        damages.extend(damage::every_byte(file, blocks(&image[file]).end..len, seeded));
    }
    let with_blocks: Vec<_> = targets.runs.iter().filter(|file| !blocks(&image[*file]).is_empty()).collect();
    for _ in 0..BLOCK_BITS {
        let file = seeded.one_of(&with_blocks);
        damages.push(damage::one_bit(file, blocks(&image[file]), seeded));
    }
    for kind in [&targets.records, &targets.manifests, &targets.runs] {
        let siblings: Vec<_> = kind.iter().map(String::as_str).collect();
        for file in kind {
            damages.extend(damage::whole_file(file, &siblings, image, seeded));
        }
    }
    damages
}

/// Where the data blocks of a run file are.
fn blocks(run: &[u8]) -> Range<usize> {
    let at = run.len() - RUN_FOOTER + RUN_BLOCKS_END_AT;
    let end = u64::from_le_bytes(run[at..at + 8].try_into().unwrap()) as usize;
    assert!((RUN_HEADER..run.len() - RUN_FOOTER).contains(&end), "the footer is not read where it stands");
    RUN_HEADER..end
}

/// What was done to what, for the table.
pub(crate) fn kind(damage: &Damage, image: &Image) -> &'static str {
    match damage {
        Damage::Changed { file, offset, .. } if file.contains("/runs/") => {
            if blocks(&image[file]).contains(offset) {
                "bit of a data block"
            } else {
                "byte of a footer or index"
            }
        }
        Damage::Changed { file, .. } if file.starts_with("history/") => "byte of a history record",
        Damage::Changed { .. } => "byte of a manifest",
        Damage::Cut { .. } => "file cut",
        Damage::Removed { .. } => "file removed",
        Damage::Swapped { .. } => "files swapped",
    }
}
