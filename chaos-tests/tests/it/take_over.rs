//! Two processes of the same job: the second is refused while the first lives, and with `--take-over` exactly one goes
//! on.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tidegate_chaos_tests::{Life, Scene, Seeded, await_answer, rest};

const TEXT_BYTES: u64 = 16 << 20;
/// The text lasts twenty seconds: the job outlives what is done to it.
const WORDS_PER_SECOND: u64 = 200_000;
/// By then exactly one process runs and completes checkpoints.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(10);
/// The exit codes of the errors `conflict` and `fenced`.
const CONFLICT: i32 = 10;
const FENCED: i32 = 13;
/// How often processes are let loose on each other.
const ROUNDS: u64 = 8;

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

#[test]
fn of_those_that_take_over_together_one_goes_on() {
    let mut seeded = Seeded::announced("of_those_that_take_over_together_one_goes_on", 8);
    let mut scene = Scene::new(super::word_count(), 2, TEXT_BYTES, &mut seeded);
    for round in 0..ROUNDS {
        // All of them on one REST address, as people start them who change nothing.
        let address = rest::free_address().unwrap().to_string();
        let rival = |scene: &mut Scene, parallelism, take_over| {
            let mut command = scene.command_at(parallelism, &address);
            paced(&mut command, take_over);
            scene.start(&mut command)
        };
        // Two, or two beside one that runs already, or three.
        let mut lives = match round % 3 {
            1 => {
                let running = rival(&mut scene, 1, false);
                await_checkpoint(&mut scene);
                vec![running]
            }
            2 => vec![rival(&mut scene, 1, true)],
            _ => Vec::new(),
        };
        lives.extend([1, 2].map(|parallelism| rival(&mut scene, parallelism, true)));
        let (began, rivals) = (Instant::now(), lives.len());
        let winner = only_one(&mut scene, lives);
        println!(
            "of_those_that_take_over_together_one_goes_on: one of {rivals} within {:?}",
            began.elapsed()
        );
        assert!(began.elapsed() < TAKE_OVER_LIMIT);
        scene.look();
        assert!(winner.kill().unwrap());
    }
    scene.finish(2);
}

/// The one process that goes on and completes a checkpoint when all others have ended.
fn only_one(scene: &mut Scene, mut lives: Vec<Life>) -> Life {
    let alone = await_answer(TAKE_OVER_LIMIT, || {
        let mut running = 0;
        for life in &mut lives {
            running += usize::from(life.is_running()?);
        }
        Ok::<_, std::io::Error>((running <= 1).then_some(()))
    });
    if alone.unwrap().is_none() {
        scene.fail("several go on beside one another");
    }
    await_checkpoint(scene);
    let mut winner = None;
    for mut life in lives {
        if life.is_running().unwrap() {
            assert!(winner.replace(life).is_none(), "one of them came back");
            continue;
        }
        let ended = life.wait(TAKE_OVER_LIMIT).unwrap().expect("it has ended");
        assert_eq!(ended.status.code(), Some(FENCED), "{}", ended.errors);
        let last = ended.errors.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(" was taken over by attempt "), "{last}");
    }
    winner.unwrap_or_else(|| scene.fail("none goes on"))
}

/// Waits for one more checkpoint of any process.
fn await_checkpoint(scene: &mut Scene) {
    let before = scene.history().checkpoint;
    let more = || Ok::<_, std::io::Error>((scene.history().checkpoint > before).then_some(()));
    if await_answer(TAKE_OVER_LIMIT, more).unwrap().is_none() {
        scene.fail(&format!("no checkpoint within {TAKE_OVER_LIMIT:?}"));
    }
}

fn paced(command: &mut Command, take_over: bool) {
    command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
    if take_over {
        command.arg("--take-over");
    }
}

/// A process that has completed a checkpoint of its own.
fn running_life(scene: &mut Scene, parallelism: u64, take_over: bool) -> Life {
    let before = scene.history().attempt;
    let mut command = scene.command(parallelism);
    paced(&mut command, take_over);
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
