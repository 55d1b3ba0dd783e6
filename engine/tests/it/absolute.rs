//! What a job says about directories, and records of them, means the same to whoever reads it from elsewhere.

use std::time::Duration;

use checkpoint::{coordinator::Answer, history};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{simulate, start, with_settings},
};

#[test]
fn paths_are_told_and_recorded_as_they_are_from_everywhere() {
    simulate(async |sim, env| {
        let settings = [("checkpoints.url", "below/checkpoints"), ("checkpoints.interval", "100ms")];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        job.source("numbers", Numbers::endless(1).paced(1, Duration::from_millis(10)))
            .sink("out", Ledger::<u64>::default());
        let (_process, handle) = start(sim, job).await.unwrap();
        let control = handle.control();
        assert_eq!(control.checkpoint_url(), Some("/below/checkpoints"));
        env.sleep(Duration::from_millis(300)).await;
        let answer = control.ask(Ask::Savepoint("./one".to_owned())).await.unwrap();
        assert!(matches!(&answer, Answer::Savepoint { dir, .. } if dir == "/one"), "{answer:?}");
        let stop = Ask::Stop { drain: false, savepoint: Some("two".to_owned()) };
        let answer = control.ask(stop).await.unwrap();
        assert!(
            matches!(&answer, Answer::Ended { savepoint: Some(Ok(dir)), .. } if dir == "/two"),
            "{answer:?}"
        );
        handle.join().await.unwrap();
        let store = env.open_store("/below/checkpoints").unwrap();
        let newest = history::open(&env, store).await.unwrap().unwrap();
        let urls: Vec<_> = newest.standing.savepoints.iter().map(|it| it.url.as_str()).collect();
        assert_eq!(urls, ["/one", "/two"]);
    });
}
