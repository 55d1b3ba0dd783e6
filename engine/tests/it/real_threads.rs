//! What only real threads show: functions that take their time, and the world that goes on meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
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
