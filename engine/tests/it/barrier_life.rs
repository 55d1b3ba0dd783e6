//! One checkpoint of a job with two sources, event by event, as a text that people can read. It cannot rot: the text is
//! compared with what happens.

use std::time::Duration;

use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

#[test]
fn one_checkpoint_from_the_request_to_the_confirmation() {
    let events = simulate(async |sim, env| {
        let settings = [("checkpoints.url", "sim:checkpoints"), ("checkpoints.interval", "off")];
        let job = with_settings(Job::new("life"), &settings).unwrap();
        let pace = Duration::from_millis(20);
        let left = job.source("left", Numbers::endless(1).paced(1, pace).traced("left", sim));
        let right = job.source("right", Numbers::endless(1).paced(1, pace).traced("right", sim));
        let ledger = Ledger::default();
        ledger.trace("out", sim);
        left.union(right)
            .key_by(|number| *number)
            .count("count")
            .map(|(key, count)| Row(Kind::Count, key, count))
            .sink("out", ledger);
        let (_process, handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        sim.trace("a checkpoint is asked for");
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        sim.trace("the answer is there");
        env.sleep(Duration::from_millis(500)).await;
        sim.last_events()
    });
    let from = events.iter().position(|event| event.contains("is asked for")).unwrap();
    let told = |line: &String| {
        let (_, event) = line.split_once(": ")?;
        // Records are read all the time.
        let passes = event.starts_with("passes") && !event.starts_with("passes read.");
        let kept = line.contains(" test: ")
            || passes
            || event.starts_with("store create")
            || event.starts_with("store put");
        kept.then(|| format!("{event}\n"))
    };
    let life: String = events[from..].iter().filter_map(told).collect();
    assert_eq!(life, include_str!("barrier_life.txt"), "a checkpoint's life is now:\n{life}");
}
