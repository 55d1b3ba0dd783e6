//! What only real threads show: functions that take their time, and the world that goes on meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use checkpoint::coordinator::{Answer, End};
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    cluster::{attempt::Ask, status::JobStatus},
    prelude::*,
    record::Batch,
};

use crate::{
    numbers::Numbers,
    world::{assert_says, with_settings},
};

/// Takes everything at once.
#[derive(Clone)]
struct Nowhere;

impl Sink for Nowhere {
    type In = u64;
    type Writer = Self;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(Self)
    }
}

impl PlainWriter for Nowhere {
    type In = u64;

    async fn write(&mut self, _batch: Batch<u64>) -> Result<()> {
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_function_keeps_its_thread_for_one_batch() {
    const BATCH: u64 = 16;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let (clock, calls) = (env.clone(), Arc::<AtomicU64>::default());
        let done = Arc::clone(&calls);
        let slow = move |number: u64| {
            let begin = clock.now();
            while clock.now().since(begin) < Duration::from_micros(100) {}
            done.fetch_add(1, Ordering::Relaxed);
            number
        };
        let job = with_settings(Job::new("subject"), &[("batch.records", "16")]).unwrap();
        job.source("numbers", Numbers::endless(1)).map(slow).sink("out", Nowhere);
        let handle = job.start(&env).await.unwrap();
        let (mut seen, mut longest) = (0, 0);
        while seen < 100 * BATCH {
            env.yield_now().await;
            let now = calls.load(Ordering::Relaxed);
            longest = longest.max(now - seen);
            seen = now;
        }
        handle.control().ask(Ask::Cancel).await.unwrap();
        handle.join().await.unwrap();
        assert!(longest <= 2 * BATCH, "{longest} records without a break");
    });
}

/// Says that it is being closed, and waits until it may be.
#[derive(Clone)]
struct SlowClose {
    closing: mpsc::SyncSender<()>,
    may: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl RichFunction for SlowClose {
    type In = u64;
    type Out = u64;

    fn call(&mut self, record: u64, out: &mut Collector<'_, u64>) -> Result<()> {
        out.emit(record);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.closing.send(()).unwrap();
        let _released = self.may.lock().unwrap().recv();
        Ok(())
    }
}

#[test]
fn a_job_that_closes_says_how_it_ended_and_can_be_cut_short() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let (closing, closes) = mpsc::sync_channel(1);
        let (release, may) = mpsc::sync_channel(1);
        let close = SlowClose { closing, may: Arc::new(Mutex::new(may)) };
        let job = with_settings(Job::new("subject"), &[]).unwrap();
        job.source("numbers", Numbers::new(1, 10)).rich(close).name("slow").sink("out", Nowhere);
        let handle = job.start(&env).await.unwrap();
        let control = handle.control().clone();
        env.blocking("wait", move || closes.recv()).await.unwrap().unwrap();
        for ask in [Ask::Checkpoint, Ask::Stop { drain: false, savepoint: None }] {
            let refused = control.ask(ask).await.unwrap_err();
            assert_says(&refused, ErrorKind::Cancelled, &["the job has finished"]);
        }
        let answer = control.ask(Ask::Cancel).await.unwrap();
        assert!(matches!(answer, Answer::Ended { end: End::Finished, .. }), "{answer:?}");
        drop(release);
        assert_eq!(handle.join().await.unwrap().status, JobStatus::Finished);
    });
}

/// One task waits in a function for ever, another one fails.
#[test]
fn a_task_that_stays_in_a_function_ends_its_process_and_not_the_patience_of_everybody() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stays, stayed) = mpsc::sync_channel(1);
    let (release, may) = mpsc::sync_channel::<()>(1);
    let may = Mutex::new(may);
    let stayed = Mutex::new(stayed);
    let settings = [
        ("restart", "fixed-delay:5:0ms"),
        ("task.cancellation-timeout", "200ms"),
        ("batch.records", "1"),
        ("batch.flush", "1ms"),
    ];
    runtime.block_on(async {
        let env = Env::real();
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        let numbers = job.source("numbers", Numbers::endless(1));
        let side = numbers.clone().disable_chaining().map(move |number| {
            stays.send(()).unwrap();
            let _released = may.lock().unwrap().recv();
            number
        });
        side.name("stays").sink("side", Nowhere);
        let failing = numbers.disable_chaining().map(move |number: u64| -> u64 {
            stayed.lock().unwrap().recv().unwrap();
            panic!("it fails at {number}")
        });
        failing.name("fails").sink("out", Nowhere);
        let handle = job.start(&env).await.unwrap();
        let control = handle.control().clone();
        let error = handle.join().await.unwrap_err();
        assert_says(
            &error,
            ErrorKind::User,
            &["it fails at", "did not end", "does not return", "start it again"],
        );
        let view = control.view();
        assert_eq!(view.restarts, 0, "another attempt ran beside it");
        assert_eq!(view.status, JobStatus::Failed);
        drop(release);
    });
}

/// What was read is told all the same, and nothing else is begun beside the task.
#[test]
fn a_job_is_cancelled_though_a_task_stays_in_a_function() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stays, stayed) = mpsc::sync_channel(1);
    let (release, may) = mpsc::sync_channel::<()>(1);
    let may = Mutex::new(may);
    let settings = [("task.cancellation-timeout", "200ms"), ("batch.records", "1"), ("batch.flush", "1ms")];
    runtime.block_on(async {
        let env = Env::real();
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        let numbers = job.source("numbers", Numbers::endless(1)).disable_chaining();
        let staying = numbers.map(move |number| {
            stays.send(()).unwrap();
            let _released = may.lock().unwrap().recv();
            number
        });
        staying.name("stays").sink("out", Nowhere);
        let handle = job.start(&env).await.unwrap();
        env.blocking("wait", move || stayed.recv()).await.unwrap().unwrap();
        let answer = handle.control().ask(Ask::Cancel).await.unwrap();
        assert!(matches!(answer, Answer::Ended { end: End::Cancelled, .. }), "{answer:?}");
        let result = handle.join().await.unwrap();
        assert_eq!(result.status, JobStatus::Cancelled);
        assert!(result.records > 0, "{} records", result.records);
        drop(release);
    });
}

/// A runtime with so many threads for functions of the user's, and one with one for everything else.
fn runtimes(users: usize) -> (tokio::runtime::Runtime, tokio::runtime::Runtime) {
    let runtime = |threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().unwrap()
    };
    (runtime(users), runtime(1))
}

/// Cancels a job once a function of it keeps the only thread that there is for such functions; the job lets go of it.
fn cancelled_meanwhile(make: impl FnOnce(&Job, Box<dyn Fn() + Send + Sync>)) -> JobResult {
    let (users, control) = runtimes(1);
    let (stays, stayed) = mpsc::sync_channel(16);
    let (release, may) = mpsc::sync_channel::<()>(1);
    let may = Mutex::new(may);
    let settings = [("task.cancellation-timeout", "200ms"), ("batch.records", "1"), ("batch.flush", "1ms")];
    let result = control.block_on(async {
        let env = Env::real_with(users.handle().clone());
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        make(
            &job,
            Box::new(move || {
                let _told = stays.try_send(());
                let _released = may.lock().unwrap().recv();
            }),
        );
        let handle = job.start(&env).await.unwrap();
        env.blocking("wait", move || stayed.recv()).await.unwrap().unwrap();
        let answer = handle.control().ask(Ask::Cancel).await.unwrap();
        assert!(matches!(answer, Answer::Ended { end: End::Cancelled, .. }), "{answer:?}");
        handle.join().await.unwrap()
    });
    drop(release);
    assert_eq!(result.status, JobStatus::Cancelled);
    result
}

#[test]
fn a_job_is_cancelled_though_functions_keep_all_threads_of_tasks() {
    let result = cancelled_meanwhile(|job, stay| {
        let numbers = job.source("numbers", Numbers::endless(1)).disable_chaining();
        let staying = numbers.map(move |number| {
            stay();
            number
        });
        staying.name("stays").sink("out", Nowhere);
    });
    assert!(result.records > 0, "{} records", result.records);
}

#[test]
fn a_start_is_cancelled_though_a_source_does_not_return() {
    cancelled_meanwhile(|job, stay| {
        let numbers = Numbers::endless(1).found_by(move || {
            stay();
            Ok(())
        });
        job.source("numbers", numbers).sink("out", Nowhere);
    });
}

#[test]
fn a_start_is_cancelled_though_a_source_does_not_say_where_it_is() {
    cancelled_meanwhile(|job, stay| {
        let numbers = Numbers::endless(1).placed_by(move || {
            stay();
            None
        });
        job.source("numbers", numbers).sink("out", Nowhere);
    });
}

/// Waiting for a disk or a network that does not answer keeps no checkpoint waiting.
#[test]
fn what_functions_wait_for_keeps_no_thread_from_checkpoints() {
    let (users, _) = runtimes(1);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let control = builder.worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap();
    let (release, may) = mpsc::sync_channel::<()>(1);
    control.block_on(async {
        let env = Env::real_with(users.handle().clone());
        let (waits, waiting) = tokio::sync::oneshot::channel();
        let inside = env.clone();
        let asking = env.spawn_user("asks", async move {
            let waiting = inside.blocking("waits", move || {
                waits.send(()).unwrap();
                let _released = may.recv();
            });
            waiting.await.unwrap();
        });
        waiting.await.unwrap();
        let own = env.timeout(Duration::from_secs(20), env.blocking("own", || 7)).await;
        drop(release);
        assert_eq!(own.expect("it has a thread").unwrap(), 7);
        asking.join().await.unwrap();
    });
}

/// Does not open.
#[derive(Clone)]
struct Unopened(Arc<dyn Fn() + Send + Sync>);

impl Sink for Unopened {
    type In = u64;
    type Writer = Nowhere;

    async fn writer(&self, _context: &SinkContext) -> Result<Nowhere> {
        (self.0)();
        Ok(Nowhere)
    }
}

#[test]
fn a_start_is_cancelled_though_a_sink_does_not_return() {
    cancelled_meanwhile(|job, stay| {
        job.source("numbers", Numbers::endless(1)).sink("out", Unopened(stay.into()));
    });
}

/// A batch of slow functions may be minutes away from its end (here 20 s): the task leaves it between two records.
#[test]
fn a_slow_task_ends_in_the_middle_of_a_batch_and_its_job_goes_on() {
    let (users, control) = runtimes(2);
    let settings = [
        ("restart", "fixed-delay:1:0ms"),
        ("task.cancellation-timeout", "5s"),
        ("batch.records", "1024"),
        ("batch.flush", "1ms"),
    ];
    control.block_on(async {
        let env = Env::real_with(users.handle().clone());
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        let (clock, begun) = (env.clone(), Arc::<AtomicBool>::default());
        let begins = Arc::clone(&begun);
        let slow = job.source("slow", Numbers::new(1, 1_000_000)).disable_chaining().map(move |number| {
            begins.store(true, Ordering::Relaxed);
            let begin = clock.now();
            while clock.now().since(begin) < Duration::from_millis(20) {}
            number
        });
        slow.name("slow map").sink("out", Nowhere);
        // It waits for the other one, which has hardly begun its first batch then.
        let fails = move |_| begun.load(Ordering::Relaxed).then(|| Error::user("it fails"));
        job.source("fails", Numbers::endless(1).failing(fails)).sink("side", Nowhere);
        let handle = job.start(&env).await.unwrap();
        let control = handle.control().clone();
        let error = handle.join().await.unwrap_err();
        assert_says(&error, ErrorKind::User, &["it fails"]);
        assert_eq!(control.view().restarts, 1, "{error}");
    });
}
