//! A user's program depends on `tidegate` alone, and can name, set and ask for everything.

use std::time::Duration;

use tidegate::{
    connectors::{Collected, PlainCollectSink},
    env::sim::Simulation,
    prelude::*,
};

/// Numbers up to 500, 100 each second; a function that panics at `bad`, if it comes.
fn job(bad: u64) -> (Job, Collected<(u64, u64)>) {
    let (sink, collected) = PlainCollectSink::new();
    let restarts = FixedDelay { attempts: 2, delay: Duration::from_secs(3) };
    let job = Job::new("subject")
        .checkpoints(Checkpoints::every(Duration::from_secs(60)).to("/checkpoints").at_least_once())
        .restarts(RestartStrategy::FixedDelay(restarts))
        .state_backend(Backend::Filesystem)
        .rest(RestAddress::Off);
    job.source("numbers", GeneratorSource::new(|number| number).rate(100).count(500))
        .map(move |number| if number == bad { panic!("{number} is bad") } else { number })
        .key_by(|number| number % 5)
        .count("count")
        .sink("out", sink);
    (job, collected)
}

#[test]
fn a_job_is_described_started_and_asked_with_this_crate_alone() {
    let (job, collected) = job(u64::MAX);
    Simulation::new(1).run(async |env: Env| {
        let handle: JobHandle = job.start(&env).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let control: JobControl = handle.control().clone();
        control.ask(Ask::Checkpoint).await.unwrap();
        assert_eq!(control.view().status, JobStatus::Running);
        assert_eq!(control.view().checkpoints.completed, 1);
        let result: JobResult = handle.join().await.unwrap();
        assert_eq!((result.status, result.checkpoints), (JobStatus::Finished, 2));
    });
    assert_eq!(collected.len(), 500);
}

#[test]
fn a_restart_strategy_said_in_code_is_the_one_that_decides() {
    let (job, _) = job(200);
    Simulation::new(1).run(async |env: Env| {
        let begun = env.now();
        let handle = job.start(&env).await.unwrap();
        let control = handle.control().clone();
        let error: Error = handle.join().await.unwrap_err();
        assert!(error.kind() == ErrorKind::User && error.to_string().contains("200 is bad"), "{error}");
        assert_eq!(control.view().restarts, 2);
        // Three times two seconds of numbers, two delays.
        assert!((11..14).contains(&env.now().since(begun).as_secs()));
    });
}
