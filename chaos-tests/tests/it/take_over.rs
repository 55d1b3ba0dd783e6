//! Two processes of the same job: the second is refused while the first lives, and with `--take-over` exactly one goes
//! on.

use std::time::{Duration, Instant};

use tidegate_chaos_tests::{Life, Scene, Seeded, await_answer};

const TEXT_BYTES: u64 = 16 << 20;
/// The text lasts twenty seconds: the job outlives what is done to it.
const WORDS_PER_SECOND: u64 = 200_000;
/// By then exactly one process runs and completes checkpoints.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(10);
/// The exit codes of the errors `conflict` and `fenced`.
const CONFLICT: i32 = 10;
const FENCED: i32 = 13;

#[test]
fn a_second_process_is_refused() {
    let mut seeded = Seeded::announced("a_second_process_is_refused", 2);
    let mut scene = Scene::new(super::word_count(), 2, TEXT_BYTES, &mut seeded);
    let mut first = running_life(&mut scene, 1, false);
    let mut command = scene.command(1);
    let second = scene.start(&mut command).wait(TAKE_OVER_LIMIT).unwrap();
    let second = second.unwrap_or_else(|| scene.fail("the second process was not refused"));
    assert_eq!(second.status.code(), Some(CONFLICT), "{}", second.errors);
    assert!(second.errors.contains("--take-over"), "the refusal does not say what to do: {}", second.errors);
    assert!(first.is_running().unwrap(), "the first process was disturbed");
    assert!(first.kill().unwrap());
    scene.finish(2);
}

#[test]
fn one_of_two_goes_on() {
    let mut seeded = Seeded::announced("one_of_two_goes_on", 3);
    let mut scene = Scene::new(super::word_count(), 2, TEXT_BYTES, &mut seeded);
    let first = running_life(&mut scene, 2, false);
    let began = Instant::now();
    let mut second = running_life(&mut scene, 1, true);
    let first = first.wait(TAKE_OVER_LIMIT.saturating_sub(began.elapsed())).unwrap();
    let first = first.unwrap_or_else(|| scene.fail("the first process goes on beside the second"));
    assert_eq!(first.status.code(), Some(FENCED), "{}", first.errors);
    assert!(second.is_running().unwrap(), "neither goes on: {}", second.errors().unwrap());
    println!("one_of_two_goes_on: taken over within {:?}", began.elapsed());
    scene.look();
    assert!(second.kill().unwrap());
    scene.finish(2);
}

/// A process that has completed a checkpoint of its own.
fn running_life(scene: &mut Scene, parallelism: u64, take_over: bool) -> Life {
    let before = scene.history().attempt;
    let mut command = scene.paced_command(parallelism, WORDS_PER_SECOND);
    if take_over {
        command.arg("--take-over");
    }
    let life = scene.start(&mut command);
    let completed = await_answer(TAKE_OVER_LIMIT, || {
        let newest = scene.history();
        let own = newest.attempt > before && newest.of_last_attempt.is_some();
        Ok::<_, std::io::Error>(own.then_some(()))
    });
    if completed.unwrap().is_none() {
        scene.fail(&format!("no checkpoint within {TAKE_OVER_LIMIT:?}"));
    }
    life
}
