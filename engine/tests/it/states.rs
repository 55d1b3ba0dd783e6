//! What a job shows while it lasts: each state from the moment when it begins until the next one does. A clock looks every
//! millisecond, and whatever ends a task makes its operator look once more when it is dropped.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use env::{
    Env,
    sim::{Control, StoreFaults},
};
use tidegate_engine::{
    api::function::Collector,
    cluster::{
        attempt::Ask,
        local::JobControl,
        status::{
            JobStatus::{
                self, Cancelled, Cancelling, Created, Failed, Failing, Finished, Finishing, Restarting,
                Running, Suspended,
            },
            TaskStatus,
        },
    },
    prelude::*,
};

use crate::{
    ledger::{Ledger, Moods},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

/// What was seen of a job.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    control: Option<JobControl>,
    /// Each state once for each time that it began.
    states: Vec<JobStatus>,
    /// The job's state and those of its tasks when a task's operator was dropped.
    drops: BTreeSet<String>,
}

impl Seen {
    fn look(&self) {
        let mut log = self.0.lock().unwrap();
        let Some(status) = log.control.as_ref().map(|control| control.view().status) else { return };
        if log.states.last() != Some(&status) {
            log.states.push(status);
        }
    }

    fn dropped(&self) {
        self.look();
        let mut log = self.0.lock().unwrap();
        let Some(view) = log.control.as_ref().map(JobControl::view) else { return };
        let tasks: BTreeSet<_> = view.tasks.values().map(|task| format!("{:?}", task.status)).collect();
        let tasks: Vec<_> = tasks.into_iter().collect();
        log.drops.insert(format!("{:?}: {}", view.status, tasks.join(", ")));
    }

    fn states(&self) -> Vec<JobStatus> {
        self.0.lock().unwrap().states.clone()
    }

    fn drops(&self) -> Vec<String> {
        self.0.lock().unwrap().drops.iter().cloned().collect()
    }

    /// Starts `job`, and looks at it from now on.
    async fn start(&self, sim: &Control, job: Job) -> JobHandle {
        let (_process, handle) = start(sim, job).await.unwrap();
        self.0.lock().unwrap().control = Some(handle.control().clone());
        let (seen, (_clock, clock)) = (self.clone(), sim.process("clock"));
        let own = clock.clone();
        drop(clock.spawn_task("clock", async move {
            loop {
                seen.look();
                own.sleep(Duration::from_millis(1)).await;
            }
        }));
        handle
    }

    /// Waits for the end, and looks once more.
    async fn join(&self, handle: JobHandle) -> Result<String> {
        let ended = handle.join().await;
        self.look();
        ended.map(|result| result.how)
    }
}

/// Passes numbers on, and looks at the job when it is dropped.
#[derive(Clone)]
struct Witness {
    seen: Seen,
    opened: bool,
}

impl RichFunction for Witness {
    type In = u64;
    type Out = u64;

    fn open(&mut self, _context: &RuntimeContext) -> Result<()> {
        self.opened = true;
        Ok(())
    }

    fn call(&mut self, number: u64, out: &mut Collector<'_, u64>) -> Result<()> {
        out.emit(number);
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if self.opened {
            self.seen.dropped();
        }
    }
}

const SETTINGS: [(&str, &str); 4] = [
    ("parallelism", "2"),
    ("checkpoints.url", "sim:checkpoints"),
    ("checkpoints.interval", "off"),
    ("restart", "fixed-delay:1:1s"),
];

fn job(source: Numbers, seen: &Seen, more: &[(&str, &str)]) -> Job {
    job_into(&Ledger::default(), source, seen, more)
}

fn job_into(ledger: &Ledger<Row>, source: Numbers, seen: &Seen, more: &[(&str, &str)]) -> Job {
    let job = with_settings(Job::new("subject"), &[&SETTINGS[..], more].concat()).unwrap();
    ledger.set_moods(Moods { latency: Duration::from_millis(50), ..Moods::default() });
    job.source("numbers", source)
        .rich(Witness { seen: seen.clone(), opened: false })
        .disable_chaining()
        .map(|number| Row(Kind::Count, 0, number))
        .sink("out", ledger.clone());
    job
}

/// A world whose stores are slow: whatever is written takes its time.
fn slow(body: impl AsyncFnOnce(&Control, Env)) {
    simulate(async |sim, env| {
        sim.set_store_faults(StoreFaults { latency: Duration::from_millis(50), ..StoreFaults::default() });
        body(sim, env).await;
    });
}

fn numbers() -> Numbers {
    Numbers::new(2, 100).paced(1, Duration::from_millis(10))
}

fn endless() -> Numbers {
    Numbers::endless(2).paced(1, Duration::from_millis(10))
}

/// The same numbers, of which the 100th cannot be read the first time.
fn failing_once() -> Numbers {
    let failed = AtomicBool::new(false);
    numbers().failing(move |number| {
        (number == 100 && !failed.swap(true, Ordering::Relaxed)).then(|| Error::retryable("it is away"))
    })
}

#[test]
fn a_job_that_finishes_is_finishing_from_the_end_of_input_on() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(numbers(), &seen, &[])).await;
        let control = handle.control().clone();
        while control.view().status != Finishing {
            env.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(control.view().checkpoints.completed, 0, "the last checkpoint is still to come");
        assert!(control.view().tasks.values().all(|task| task.status == TaskStatus::Running));
        assert_eq!(seen.join(handle).await.unwrap(), "finished");
        assert_eq!(seen.states(), [Created, Running, Finishing, Finished]);
        assert!(seen.drops().iter().all(|drop| drop.starts_with("Finishing: ")), "{:?}", seen.drops());
        assert!(control.view().tasks.values().all(|task| task.status == TaskStatus::Finished));
    });
}

#[test]
fn a_cancelled_job_is_cancelling_until_nothing_is_left_of_it() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(endless(), &seen, &[])).await;
        env.sleep(Duration::from_secs(2)).await;
        handle.control().ask(Ask::Cancel).await.unwrap();
        assert_eq!(seen.join(handle).await.unwrap(), "cancelled");
        assert_eq!(seen.states(), [Created, Running, Cancelling, Cancelled]);
        assert_eq!(seen.drops(), ["Cancelling: Cancelling"]);
    });
}

/// The end is not the first thing that such a job is asked for.
#[test]
fn a_cancellation_is_shown_while_the_last_checkpoint_is_taken() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(numbers(), &seen, &[])).await;
        while handle.control().view().status != Finishing {
            env.sleep(Duration::from_millis(1)).await;
        }
        handle.control().ask(Ask::Cancel).await.unwrap();
        assert_eq!(seen.join(handle).await.unwrap(), "cancelled");
        assert_eq!(seen.states(), [Created, Running, Finishing, Cancelling, Cancelled]);
    });
}

#[test]
fn a_job_that_fails_and_is_restarted_shows_both() {
    slow(async |sim, _| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(failing_once(), &seen, &[])).await;
        assert_eq!(seen.join(handle).await.unwrap(), "finished");
        assert_eq!(seen.states(), [Created, Running, Failing, Restarting, Running, Finishing, Finished]);
        assert_eq!(seen.drops().first().map(String::as_str), Some("Failing: Cancelling, Failed"));
    });
}

#[test]
fn a_job_that_fails_for_good_is_failing_until_its_tasks_have_ended() {
    slow(async |sim, _| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(failing_once(), &seen, &[("restart", "none")])).await;
        let control = handle.control().clone();
        seen.join(handle).await.unwrap_err();
        assert_eq!(seen.states(), [Created, Running, Failing, Failed]);
        assert_eq!(seen.drops(), ["Failing: Cancelling, Failed"]);
        let ends = control.view().tasks.into_values().map(|task| task.status);
        assert!(ends.into_iter().all(|end| matches!(end, TaskStatus::Failed | TaskStatus::Cancelled)));
    });
}

#[test]
fn a_job_that_cannot_be_started_has_failed() {
    slow(async |sim, _| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(Numbers::missing(), &seen, &[])).await;
        assert_says(&seen.join(handle).await.unwrap_err(), ErrorKind::BadInput, &["there are no numbers"]);
        assert_eq!(seen.states(), [Created, Failed]);
    });
}

#[test]
fn a_process_that_loses_the_job_is_suspended_and_never_failing() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let ledger = Ledger::default();
        let own = [("checkpoints.interval", "300ms"), ("checkpoints.url", "/checkpoints")];
        let handle = seen.start(sim, job_into(&ledger, endless(), &seen, &own)).await;
        env.sleep(Duration::from_secs(1)).await;
        let (other, more) = (Seen::default(), [own[0], own[1], ("take-over", "true")]);
        let next = other.start(sim, job_into(&ledger, endless(), &other, &more)).await;
        assert_says(&seen.join(handle).await.unwrap_err(), ErrorKind::Fenced, &[]);
        assert_eq!(seen.states(), [Created, Running, Suspended]);
        assert_eq!(seen.drops(), ["Suspended: Cancelling"]);
        env.sleep(Duration::from_secs(2)).await;
        next.control().ask(Ask::Cancel).await.unwrap();
        other.join(next).await.unwrap();
        assert_eq!(other.states(), [Created, Running, Cancelling, Cancelled]);
    });
}

#[test]
fn a_stopped_job_is_finishing_once_its_checkpoint_is_in_the_history() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(endless(), &seen, &[])).await;
        env.sleep(Duration::from_secs(2)).await;
        let control = handle.control().clone();
        let look = async {
            while control.view().status == Running {
                env.sleep(Duration::from_millis(1)).await;
            }
            control.view()
        };
        let stop = Ask::Stop { drain: false, savepoint: Some("/savepoint".to_owned()) };
        let (answer, view) = futures::join!(control.ask(stop), look);
        answer.unwrap();
        assert_eq!((view.status, view.checkpoints.completed), (Finishing, 1));
        assert_eq!(seen.join(handle).await.unwrap(), "stopped");
        assert_eq!(seen.states(), [Created, Running, Finishing, Cancelling, Cancelled]);
        assert!(seen.drops().iter().all(|drop| drop.starts_with("Cancelling: ")), "{:?}", seen.drops());
    });
}

/// Until its checkpoint is in the history a stop may fail, and the job runs on.
#[test]
fn a_stop_that_fails_never_showed_an_end() {
    slow(async |sim, env| {
        let seen = Seen::default();
        let handle = seen.start(sim, job(endless(), &seen, &[("checkpoints.tolerable-failures", "9")])).await;
        while seen.states() != [Created, Running] {
            env.sleep(Duration::from_millis(1)).await;
        }
        sim.set_store_faults(StoreFaults { refuse: 1.0, ..StoreFaults::default() });
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap_err();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.states(), [Created, Running]);
    });
}

/// A job that has finished says so when it is started again, and shows nothing else.
#[test]
fn a_job_that_had_finished_goes_from_created_to_finished() {
    slow(async |sim, _| {
        let seen = Seen::default();
        let ledger = Ledger::default();
        run(sim, job_into(&ledger, numbers(), &Seen::default(), &[])).await.unwrap();
        let handle = seen.start(sim, job_into(&ledger, numbers(), &seen, &[])).await;
        assert!(seen.join(handle).await.unwrap().contains("nothing to do"));
        assert_eq!(seen.states(), [Created, Finished]);
    });
}
