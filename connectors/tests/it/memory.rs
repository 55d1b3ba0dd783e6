//! Collection, generator, collect, print and discard: what needs no outside system.

use std::{collections::BTreeSet, time::Duration};

use engine::{
    api::{
        sink::{PlainWriter, Sink, SinkContext},
        source::{ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
    },
    prelude::Job,
    record::{Batch, BatchBuilder},
};
use env::{Env, sim::Simulation};
use tidegate_connectors::{
    CollectSink, Collected, CollectionSource, DiscardSink, GeneratorSource, PlainCollectSink, PrintSink,
    conformance::{SinkSubject, sink, source},
    generator,
};
use types::{AttemptId, ErrorKind, JobId, Lineage, Result, SubtaskIndex, Timestamp, Uid};

async fn take<R: SplitReader>(reader: &mut R, room: usize) -> Vec<(R::Out, Option<Timestamp>)> {
    let mut batch = BatchBuilder::default();
    reader.read(&mut SourceOutput::new(&mut batch, room, usize::MAX)).await.unwrap();
    let mut batch = batch.take();
    let mut records = Vec::new();
    while let Some(record) = batch.next() {
        records.push((record.value, record.time));
    }
    records
}

#[test]
fn collections_keep_the_source_contract() {
    Simulation::new(1).run(async |env| {
        for len in [0, 1, 3, 100] {
            source::contract(&env, &CollectionSource::new(0..len), usize::MAX).await;
            let timed = CollectionSource::timed((0..len).map(|n| (n, Timestamp(n))));
            source::contract(&env, &timed, usize::MAX).await;
        }
    });
}

#[test]
fn another_collection_is_refused() {
    Simulation::new(2).run(async |env| {
        let context = source::context(&env);
        let split = CollectionSource::new(0..10).discover(&context).await.unwrap().remove(0);
        let error = CollectionSource::new(0..11).open(split, &context).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.message().contains("has 11 records, but had 10"), "{error}");
    });
}

#[test]
fn another_count_of_a_generator_is_refused_where_it_cannot_be_kept() {
    Simulation::new(2).run(async |env| {
        let context = source::context(&env);
        let opened = async |first: GeneratorSource<u64, fn(u64) -> u64>, second: GeneratorSource<u64, _>| {
            let split = first.discover(&context).await.unwrap().pop().unwrap();
            second.open(split, &context).await.err()
        };
        let numbers = || GeneratorSource::new((|number| number) as fn(u64) -> u64);
        for (first, second, text) in [
            (numbers().count(1000), numbers().count(500), "ends after 500 and had its end at 1000"),
            (numbers().count(1000), numbers(), "has no end and had its end at 1000"),
            (numbers(), numbers().count(1000), "ends after 1000 and had no end"),
        ] {
            let error = opened(first, second).await.unwrap();
            assert_eq!(error.kind(), ErrorKind::BadInput);
            assert!(error.message().contains(text), "{error}");
        }
        assert!(opened(numbers().count(10), numbers().count(20)).await.is_none());
        assert!(opened(numbers(), numbers()).await.is_none());
        assert!(opened(numbers().count(u64::MAX), numbers().count(u64::MAX)).await.is_none());
    });
}

#[test]
fn generators_keep_the_source_contract() {
    Simulation::new(3).run(async |env| {
        source::contract(&env, &GeneratorSource::new(|n| n * n).count(100), usize::MAX).await;
        source::contract(&env, &GeneratorSource::new(|n| n * n), 50).await;
        source::contract(&env, &GeneratorSource::new(|n| n).count(3).splits(8), usize::MAX).await;
        source::contract(&env, &GeneratorSource::new(|n| n).count(60).rate(1000_u32), usize::MAX).await;
        let random = generator::random(7, |n, random| (n, random.below(100)));
        source::contract(&env, &random.count(100), usize::MAX).await;
    });
}

#[test]
fn a_generator_makes_every_number_once() {
    Simulation::new(4).run(async |env| {
        let context = source::context(&env);
        let source = GeneratorSource::new(|n| n);
        let mut seen = Vec::new();
        for split in source.discover(&context).await.unwrap() {
            let mut reader = source.open(split, &context).await.unwrap();
            seen.extend(take(&mut reader, 10).await.into_iter().map(|(n, _)| n));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..80).collect::<Vec<_>>(), "8 splits of 10 records each");
    });
}

/// How many records a source emits within a span of virtual time, read as the runtime does it.
async fn emitted_within<S: Source>(env: &Env, source: &S, parallelism: u32, span: Duration) -> u64 {
    let context = SourceContext { parallelism, ..source::context(env) };
    let end = env.now() + span;
    let mut readers = Vec::new();
    for split in source.discover(&context).await.unwrap() {
        readers.push(source.open(split, &context).await.unwrap());
    }
    if source.boundedness() == engine::api::source::Boundedness::Bounded {
        readers.truncate(usize::try_from(parallelism).unwrap());
    }
    let mut records = 0;
    while env.now() < end {
        for reader in &mut readers {
            let mut batch = BatchBuilder::default();
            let mut out = SourceOutput::new(&mut batch, 1024, usize::MAX);
            let read = reader.read(&mut out);
            if let Some(status) = env.timeout(Duration::from_micros(100), read).await {
                assert_eq!(status.unwrap(), ReadStatus::More);
            }
            records += batch.len() as u64;
        }
    }
    records
}

#[test]
fn the_rate_is_that_of_the_whole_source() {
    for (rate, expected) in [(1_u32, 10), (7, 70), (1000, 10_000), (250_000, 2_500_000)] {
        for parallelism in [1, 3, 8] {
            let run = |bounded: bool| {
                Simulation::new(5).run(async |env| {
                    let source = GeneratorSource::new(|n| n).rate(rate);
                    let source = if bounded { source.count(u64::MAX) } else { source };
                    emitted_within(&env, &source, parallelism, Duration::from_secs(10)).await
                })
            };
            for bounded in [false, true] {
                let emitted = run(bounded);
                // The first record of each split comes a little late, and never early.
                let least = expected - expected / 100 - 8;
                assert!(
                    (least..=expected).contains(&emitted),
                    "{emitted} records, not {expected}, at parallelism {parallelism}, bounded: {bounded}"
                );
            }
        }
    }
}

#[test]
fn a_generator_that_was_held_back_catches_up_a_second_and_no_more() {
    Simulation::new(6).run(async |env| {
        let context = source::context(&env);
        let source = GeneratorSource::new(|n| n).rate(800_u32);
        let split = source.discover(&context).await.unwrap().remove(0);
        let mut reader = source.open(split, &context).await.unwrap();
        take(&mut reader, 1000).await;
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!(take(&mut reader, 1000).await.len(), 100, "a second's worth of one split of eight");
        let before = env.now();
        assert_eq!(take(&mut reader, 1000).await.len(), 1);
        let pause = env.now().since(before);
        assert!(pause <= Duration::from_millis(11), "{pause:?} until the next record");
    });
}

#[test]
fn wrong_settings_are_refused() {
    let refused = |source: Result<()>, part: &str| {
        let error = source.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        assert!(error.message().contains(part), "{error}");
    };
    let generator = || GeneratorSource::new(|n| n);
    refused(generator().rate(0_u32).validate(), "rate of 0");
    refused(generator().rate(-1.0).validate(), "rate of -1");
    refused(generator().rate(f64::NAN).validate(), "rate of NaN");
    refused(generator().rate(f64::INFINITY).validate(), "rate of inf");
    refused(generator().splits(0).validate(), "splits");
}

/// The memory outlives the processes of the simulation, as the kit wants it to be.
struct Memory {
    sink: CollectSink<u64>,
    collected: Collected<u64>,
}

impl SinkSubject for Memory {
    type Sink = CollectSink<u64>;

    fn at(_dir: &std::path::Path) -> Self {
        let (sink, collected) = CollectSink::new();
        Self { sink, collected }
    }

    fn sink(&self) -> CollectSink<u64> {
        self.sink.clone()
    }

    fn record(&self, number: u64) -> u64 {
        number
    }

    async fn visible(&self, _env: &Env) -> Result<Vec<u64>> {
        Ok(self.collected.records())
    }
}

#[test]
fn the_collecting_sink_keeps_the_contract() {
    Simulation::new(7).run(async |env| sink::contract::<Memory>(&env, std::path::Path::new("/")).await);
}

fn sink_context(env: &Env, subtask: u32, parallelism: u32) -> SinkContext {
    SinkContext {
        uid: Uid::new("sink").unwrap(),
        names: vec![Uid::new("sink").unwrap()],
        env: env.clone(),
        job: JobId(1),
        lineage: Lineage(1),
        attempt: AttemptId(1),
        subtask: SubtaskIndex(subtask),
        parallelism,
        checkpoints: "/checkpoints".to_owned(),
    }
}

async fn write<S: Sink>(env: &Env, sink: &S, subtask: u32, parallelism: u32, records: Vec<S::In>) {
    let mut writer = sink.writer(&sink_context(env, subtask, parallelism)).await.unwrap();
    writer.write(Batch::from(records)).await.unwrap();
    writer.flush().await.unwrap();
}

#[test]
fn plain_sinks_show_every_record() {
    let sim = Simulation::new(8);
    sim.run(async |env| {
        let (sink, collected) = PlainCollectSink::new();
        write(&env, &sink, 0, 1, vec![3, 1]).await;
        write(&env, &sink, 0, 1, vec![2]).await;
        assert_eq!(collected.records(), [3, 1, 2]);
        assert_eq!(collected.sorted(), [1, 2, 3]);

        let sink = DiscardSink::new();
        write(&env, &sink, 0, 1, vec![(); 1000]).await;
        write(&env, &sink.clone(), 1, 2, vec![(); 10]).await;
        assert_eq!(sink.discarded().records(), 1010);

        write(&env, &PrintSink::new(), 0, 1, vec!["alone"]).await;
        write(&env, &PrintSink::new(), 1, 2, vec!["second"]).await;
        write(&env, &PrintSink::labelled("late"), 0, 1, vec!["one", "two"]).await;
        write(&env, &PrintSink::labelled("late"), 1, 2, vec!["three"]).await;
        let lines: Vec<String> = sim.printed().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["alone", "2> second", "late> one", "late> two", "late:2> three"]);
    });
}

#[test]
fn what_could_not_be_printed_is_printed_again() {
    let sim = Simulation::new(8);
    sim.run(async |env| {
        let settings =
            [("rest", "off"), ("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "100ms")];
        let job = Job::new("subject").set("restart", "fixed-delay:100:100ms").unwrap();
        let job = settings.iter().fold(job, |job, (name, value)| job.set(name, value).unwrap());
        let numbers = GeneratorSource::new(|number| number).count(1000).splits(1).rate(500_u32);
        job.source("numbers", numbers).sink("out", PrintSink::labelled("out"));
        let handle = job.start(&env).await.unwrap();
        env.sleep(Duration::from_millis(700)).await;
        sim.fill_output(true);
        env.sleep(Duration::from_millis(500)).await;
        sim.fill_output(false);
        let ended = handle.join().await.unwrap();
        assert!(ended.restarts > 0);
    });
    let printed: BTreeSet<String> = sim.printed().into_iter().map(|(_, line)| line).collect();
    let missing: Vec<_> = (0..1000).filter(|number| !printed.contains(&format!("out> {number}"))).collect();
    assert_eq!(missing, [0; 0]);
}

#[test]
fn splits_of_a_generator_do_not_depend_on_the_parallelism() {
    Simulation::new(9).run(async |env| {
        let ids = async |parallelism| {
            let context = SourceContext { parallelism, ..source::context(&env) };
            let splits = GeneratorSource::new(|n| n).count(10).discover(&context).await.unwrap();
            splits.iter().map(Split::id).collect::<Vec<_>>()
        };
        assert_eq!(ids(1).await, ids(64).await);
    });
}
