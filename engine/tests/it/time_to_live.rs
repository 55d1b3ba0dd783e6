//! State with a time to live in a whole job: what a timer sees depends on its own time alone, however far the watermark jumped,
//! through kills and at any parallelism; and tables and runs give up what has expired.

use std::time::Duration;

use checkpoint::{history, manifest};
use env::Env;
use statebackend::{RunSet, summarize};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, run, simulate, start, with_settings},
};

const KEYS: u64 = 2_000;
/// Records are 10 ms apart, in event time.
const TTL: Duration = Duration::from_millis(40);
const BEFORE: Duration = Duration::from_millis(39);
const AT: Duration = Duration::from_millis(40);

fn numbers() -> Numbers {
    // One split, so that no record is late.
    Numbers::new(1, KEYS).paced(5, Duration::from_millis(10))
}

/// Writes each number under a key of its own, in all kinds of state, and looks for it twice: at the last moment of its life and
/// at the first one after.
#[derive(Clone)]
struct Remember;

struct Kept {
    value: Expiring<ValueState<u64>>,
    list: Expiring<ListState<u64>>,
    map: Expiring<MapState<u64, u64>>,
    sum: Expiring<ReducingState<u64>>,
}

impl ProcessFunction for Remember {
    type Key = u64;
    type In = u64;
    type Out = Row;
    type State = Kept;

    fn declare(states: &mut Declarations) -> Kept {
        let mut states = states.expiring(Ttl::event_time(TTL));
        Kept {
            value: states.value("value"),
            list: states.list("list"),
            map: states.map("map"),
            sum: states.reducing("sum", |a, b| a + b),
        }
    }

    fn process(&mut self, number: u64, kept: &Kept, ctx: &mut Context<'_, Self>) -> Result<()> {
        kept.value.set(ctx, number)?;
        kept.list.append(ctx, number)?;
        kept.map.put(ctx, &number, 1)?;
        kept.sum.add(ctx, number)?;
        let at = ctx.timestamp();
        ctx.timers().register(at + BEFORE)?;
        ctx.timers().register(at + AT)
    }

    fn on_timer(&mut self, at: Timestamp, kept: &Kept, ctx: &mut Context<'_, Self>) -> Result<()> {
        let key = *ctx.key();
        let written = Timestamp(10 * key as i64);
        let found = u64::from(kept.value.get(ctx)? == Some(key))
            + 10 * kept.list.get(ctx)?.len() as u64
            + 100 * kept.map.len(ctx)? as u64
            + 1000 * u64::from(kept.sum.get(ctx)?.is_some());
        let kind = if at == written + BEFORE { Kind::Held } else { Kind::Windowed };
        ctx.emit(Row(kind, key, found));
        Ok(())
    }
}

fn job(parallelism: &str, backend: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("parallelism", parallelism),
        ("restart", "none"),
        ("state.backend", backend),
        ("snapshot.merge-fan-in", "2"),
        ("snapshot.replace-from", "1B"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let numbers = job.source("numbers", numbers()).watermarks(WatermarkStrategy::monotonous());
    numbers.key_by(|number| *number).process("remember", Remember).sink("out", ledger.clone());
    job
}

#[test]
fn a_timer_sees_what_lives_at_its_time() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        for (parallelism, backend) in
            [("2", "filesystem"), ("3", "sorted-map"), ("1", "filesystem"), ("2", "sorted-map")]
        {
            let (process, handle) = start(sim, job(parallelism, backend, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(650)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(120)).await;
            process.kill();
        }
        run(sim, job("4", "filesystem", &ledger)).await.unwrap();
        let seen = (0..KEYS).flat_map(|key| [Row(Kind::Held, key, 1111), Row(Kind::Windowed, key, 0)]);
        assert_eq!(ledger.committed(), counted(seen));
        // The last watermark lets nothing expire: what the last timers saw is still there.
        let store = env.open_store("/checkpoints").unwrap();
        let newest = history::open(&env, store.clone()).await.unwrap().unwrap();
        let completed = newest.standing.completed.last().unwrap().manifest.clone();
        let manifest = manifest::read(&env, &*store, &completed).await.unwrap();
        let operator = manifest.operators.iter().find(|it| it.uid.as_str() == "remember").unwrap();
        let (mut live, mut stored) = (0, 0);
        for subtask in &operator.subtasks {
            let clocks = subtask.expiry_clocks().unwrap();
            let summary = summarize(&env, &*store, RunSet::new(&subtask.runs, &clocks)).await.unwrap();
            live += summary.states.get("value").map_or(0, |count| count.entries);
            stored += subtask.runs.iter().map(|run| run.entries).sum::<u64>();
        }
        assert_eq!(live, 0, "the timers at the end have come by all of it");
        assert!(stored < 4 * KEYS, "{stored} entries are left of four states that had {KEYS} keys each");
    });
}
