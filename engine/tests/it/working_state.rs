//! Where stores keep the working state: in a directory of each process, which goes with it, or with the next start.

use std::{path::Path, time::Duration};

use env::Env;
use tidegate_engine::{cluster::attempt::Ask, prelude::*};
use types::ErrorKind;

use crate::{
    counting::{counting, endless},
    ledger::Ledger,
    world::{assert_says, simulate, start, with_settings},
};

const ROOT: &str = "/state";

fn job(name: &str) -> Job {
    let own = [("state.backend", "sorted-map"), ("state.memory", "1"), ("state.directory", ROOT)];
    let checkpoints = format!("/checkpoints/{name}");
    let job = counting(&endless(), &own, &Ledger::default());
    with_settings(job, &[("checkpoints.url", &checkpoints), ("checkpoints.interval", "100ms")]).unwrap()
}

/// What is in the place for all processes.
fn found(env: &Env) -> Vec<String> {
    let found = env.files().read_dir(Path::new(ROOT)).unwrap_or_default();
    found.iter().map(|path| path.display().to_string()).collect()
}

/// The directories of processes, without the locks beside them.
fn directories(env: &Env) -> Vec<String> {
    found(env).into_iter().filter(|path| !path.ends_with(".lock")).collect()
}

#[test]
fn each_process_has_a_directory_and_a_start_removes_those_of_dead_ones() {
    simulate(async |sim, env| {
        let (dead, handle) = start(sim, job("one")).await.unwrap();
        let first = directories(&env);
        assert_eq!(first.len(), 1);
        let (_living, other) = start(sim, job("two")).await.unwrap();
        let both = directories(&env);
        assert_eq!(both.len(), 2, "{both:?}");
        env.sleep(Duration::from_secs(1)).await;
        let tables = [&handle, &other].map(|it| it.control().memory_use().unwrap().tables);
        assert!(tables.iter().all(|bytes| *bytes > 0), "{tables:?}");
        dead.kill();
        drop(handle);
        assert_eq!(directories(&env), both, "a process that is killed removes nothing");
        let (_again, third) = start(sim, job("one")).await.unwrap();
        let now = directories(&env);
        assert_eq!(now.len(), 2, "{now:?}");
        assert!(!now.contains(&first[0]) && both.iter().any(|it| now.contains(it)), "{now:?}");
        for handle in [other, third] {
            handle.control().ask(Ask::Cancel).await.unwrap();
            handle.join().await.unwrap();
        }
        assert_eq!(found(&env), [""; 0], "they go with their processes");
    });
}

#[test]
fn a_place_that_cannot_be_and_a_store_that_is_not_there_are_refused_by_name() {
    simulate(async |sim, env| {
        env.files().create_new(Path::new("/file")).unwrap();
        let job = with_settings(job("one"), &[("state.directory", "/file")]).unwrap();
        let refused = start(sim, job).await.map(drop).unwrap_err();
        assert_says(&refused, ErrorKind::Unavailable, &["/file", "state.directory"]);
        let never = with_settings(self::job("one"), &[("checkpoints.interval", "off")]).unwrap();
        let refused = start(sim, never).await.map(drop).unwrap_err();
        assert_says(&refused, ErrorKind::InvalidJob, &["--state sorted-map", "--interval"]);
        for value in ["=1", "one", "one=1;two"] {
            let error = with_settings(self::job("one"), &[("state.options", value)]).err().unwrap();
            assert_says(&error, ErrorKind::InvalidJob, &["state.options", "NAME=VALUE"]);
        }
    });
}
