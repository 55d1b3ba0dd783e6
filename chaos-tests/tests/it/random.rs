//! Kills at random moments, while checkpoints complete and records flow, at parallelisms that change in between.

use std::{collections::BTreeMap, thread, time::Duration};

use tidegate_chaos_tests::{Scene, Seeded, await_answer};

/// How many kills must count.
const KILLS: u64 = 25;
/// A job that survived as many is let go to its end.
const KILLS_PER_JOB: u64 = 7;
/// More jobs than this are never needed; if they are, the kills come too late.
const JOBS_MAX: u64 = 30;
const PARALLELISMS: [u64; 3] = [1, 2, 4];
const TEXT_BYTES: u64 = 12 << 20;
/// Three million words last for several checkpoints, however fast the machine is.
const WORDS_PER_SECOND: u64 = 1_500_000;
/// A kill comes up to this long after a checkpoint was seen: one and a half checkpoint intervals.
const DELAY_MAX_MS: u64 = 75;
/// Records flow if the process has moved as many bytes since that checkpoint: more than its records and manifests.
const FLOW_BYTES: u64 = 64 << 10;
/// Within this time a life completes a checkpoint or ends.
const LIFE_LIMIT: Duration = Duration::from_secs(30);

/// What became of one life.
enum Death {
    /// Shot after a completed checkpoint while records flowed.
    Counted,
    /// Shot, but not while records flowed.
    Idle,
    /// It came to its end before the shot.
    Natural,
}

#[test]
fn random_kills() {
    let mut seeded = Seeded::announced("random_kills", 25);
    let mut counted = BTreeMap::<u64, u64>::new();
    let (mut idle, mut from_copies) = (0_u64, 0);
    for job in 1.. {
        assert!(
            job <= JOBS_MAX,
            "{JOBS_MAX} jobs have ended and only {counted:?} kills counted: mend the delays"
        );
        let mut scene = Scene::new(super::word_count(), 4, TEXT_BYTES, &mut seeded);
        let mut parallelism = seeded.one_of(&PARALLELISMS);
        for _ in 0..KILLS_PER_JOB {
            match live_and_die(&mut scene, parallelism, &mut seeded) {
                Death::Counted => *counted.entry(parallelism).or_default() += 1,
                Death::Idle => idle += 1,
                Death::Natural => break,
            }
            scene.look();
            parallelism = seeded.one_of(&PARALLELISMS);
        }
        scene.finish(parallelism);
        from_copies += scene.lives_from_copies();
        if counted.values().sum::<u64>() >= KILLS {
            break;
        }
    }
    println!(
        "random_kills: counted, by parallelism: {counted:?}; {idle} more while no record flowed; {from_copies} lives read \
         state from copies"
    );
    assert!(from_copies > 0, "no life has read a copy that another one left");
    assert!(
        PARALLELISMS.iter().all(|parallelism| counted.contains_key(parallelism)),
        "a parallelism was never shot"
    );
}

/// Starts the job, awaits a checkpoint of its own, waits a little longer, and shoots.
fn live_and_die(scene: &mut Scene, parallelism: u64, seeded: &mut Seeded) -> Death {
    let before = scene.history().attempt;
    let mut command = scene.paced_command(parallelism, WORDS_PER_SECOND);
    let mut life = scene.start(&mut command);
    let completed = await_answer(LIFE_LIMIT, || {
        let newest = scene.history();
        let own = newest.attempt > before && newest.of_last_attempt.is_some();
        let running = life.is_running()?;
        Ok::<_, std::io::Error>((own || !running).then_some(own && running))
    });
    let Some(completed) = completed.unwrap() else {
        scene.fail(&format!("no checkpoint within {LIFE_LIMIT:?}"));
    };
    let moved_before = life.bytes_moved();
    thread::sleep(Duration::from_millis(seeded.within(0..DELAY_MAX_MS)));
    let flowed = life.bytes_moved().saturating_sub(moved_before) >= FLOW_BYTES;
    if !life.kill().unwrap() {
        return Death::Natural;
    }
    let ended = scene.history().end.is_some();
    if completed && flowed && !ended { Death::Counted } else { Death::Idle }
}
