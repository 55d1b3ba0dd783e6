//! REST of a running job, in the real world and over a real socket: what it shows, what it takes, what it refuses, and
//! that whoever ends a job hears of it before the process is gone.

use std::time::Duration;

use env::Env;
use serde_json::{Value, json};
use tidegate_engine::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

/// Many times what anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

struct Running {
    env: Env,
    handle: JobHandle,
    address: String,
    ledger: Ledger<Row>,
}

/// Runs `body` in the real world.
fn real(body: impl AsyncFnOnce(Env)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        env.timeout(LIMIT, body(env.clone())).await.expect("it took too long");
    });
}

impl Running {
    /// An endless count of numbers by key, with REST at a free port, once its tasks run.
    async fn start(env: &Env, settings: &[(&str, &str)]) -> Self {
        let ledger = Ledger::default();
        let own = [
            ("rest", "127.0.0.1:0"),
            ("checkpoints.interval", "1h"),
            ("parallelism", "2"),
            ("allow-volatile", "true"),
        ];
        let all = [&own[..], settings];
        let job = Job::new("a job");
        let job = all.concat().iter().try_fold(job, |job, (name, value)| job.set(name, value)).unwrap();
        job.source("numbers", Numbers::endless(2).paced(3, Duration::from_millis(1)))
            .key_by(|number| number % 5)
            .count("count")
            .map(|(key, count)| Row(Kind::Count, key, count))
            .sink("out", ledger.clone());
        let handle = job.start(env).await.unwrap();
        let address = handle.rest_address().unwrap().to_owned();
        let running = Self { env: env.clone(), handle, address, ledger };
        while !running.all_tasks_run().await {
            env.sleep(Duration::from_millis(5)).await;
        }
        running
    }

    async fn all_tasks_run(&self) -> bool {
        let job = self.get("/jobs/a%20job").await;
        let tasks = job["tasks"].as_array().unwrap();
        !tasks.is_empty() && tasks.iter().all(|task| task["state"] == "running")
    }

    async fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut connection = self.env.connect(&self.address).await.unwrap();
        let len = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
        );
        connection.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, b"").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body) = self.request("POST", path, body.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn the_job_is_shown_and_takes_checkpoints() {
    real(async |env| {
        let job = Running::start(&env, &[("checkpoints.url", "memory:shown")]).await;
        let taken = job.post("/jobs/a%20job/checkpoint", json!({})).await;
        assert_eq!(taken, json!({"checkpoint": 1}));
        let (status, body) = job.request("POST", "/jobs/a%20job/checkpoint", b"").await;
        assert_eq!((status, body.as_str()), (200, r#"{"checkpoint":2}"#));

        let (_, body) = job.request("POST", "/jobs/a%20job/gc", b"{}").await;
        assert_eq!(body, r#"{"files":0,"more":false}"#);

        let list = job.get("/jobs").await;
        assert_eq!(
            (&list["jobs"][0]["name"], &list["jobs"][0]["state"]),
            (&json!("a job"), &json!("running"))
        );
        assert_eq!(list["jobs"][0]["checkpoints"], 2);
        let details = job.get("/jobs/a%20job").await;
        assert_eq!((&details["attempt"], &details["restarts"]), (&json!(0), &json!(0)));
        assert_eq!(details["checkpoints"]["newest"], 2);
        let states: Vec<_> = details["checkpoints"]["history"].as_array().unwrap().iter().collect();
        assert!(states.len() == 2 && states.iter().all(|one| one["state"] == "completed"), "{details}");
        let operators: Vec<_> =
            details["tasks"].as_array().unwrap().iter().map(|it| &it["operators"]).collect();
        assert!(operators.iter().any(|names| names[0] == "numbers"), "{details}");
        assert_eq!(job.get("/jobs/a%20job/plan").await["job"], "a job");

        let (status, page) = job.request("GET", "/metrics", b"").await;
        assert_eq!(status, 200);
        for line in [
            "tidegate_job_state{job=\"a job\",state=\"running\"} 1",
            "tidegate_job_state{job=\"a job\",state=\"failed\"} 0",
            "tidegate_checkpoints_completed{job=\"a job\"} 2",
            "tidegate_restored_bytes{job=\"a job\",from=\"store\"} 0",
            "tidegate_operator_records_in_total{operator=\"count\",subtask=\"1\"} ",
        ] {
            assert!(page.lines().any(|shown| shown.starts_with(line)), "{line} is missing in {page}");
        }
        // All that a checkpoint holds went through the sources, and was taken by the sinks.
        for counter in
            ["out_total{operator=\"numbers\"", "in_total{operator=\"count\"", "in_total{operator=\"out\""]
        {
            let name = format!("tidegate_operator_records_{counter}");
            let shown = page.lines().filter_map(|line| line.strip_prefix(&name)?.rsplit(' ').next());
            let records: u64 = shown.map(|number| number.parse::<u64>().unwrap()).sum();
            assert!(records > 0, "{counter} in {page}");
        }
        assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1, "{page}");
        job.post("/jobs/a%20job/cancel", json!({})).await;
        job.handle.join().await.unwrap();
    });
}

#[test]
fn garbage_gets_one_clear_line_and_changes_nothing() {
    real(async |env| {
        let job = Running::start(&env, &[("checkpoints.url", "memory:garbage")]).await;
        let large = vec![b' '; (64 << 10) + 1];
        let requests: [(&str, &str, &[u8], u16, &str); 12] = [
            ("GET", "/", b"", 404, "GET /jobs lists"),
            ("GET", "/jobs/other", b"", 404, "this process runs \\\"a job\\\""),
            ("POST", "/jobs/other/cancel", b"", 404, "there is no job \\\"other\\\""),
            ("GET", "/jobs/%ff", b"", 404, "cannot be read"),
            ("GET", "/jobs/a%20job/cancel", b"", 405, "POST makes the job do something"),
            ("DELETE", "/jobs", b"", 405, "DELETE"),
            ("POST", "/jobs/a%20job/stop", b"{", 400, "the body is not"),
            ("POST", "/jobs/a%20job/stop", b"\xff\xfe", 400, "the body is not"),
            ("POST", "/jobs/a%20job/stop", br#"{"drian": true}"#, 400, "drian"),
            ("POST", "/jobs/a%20job/stop", br#"{"drain": "yes"}"#, 400, "drain"),
            ("POST", "/jobs/a%20job/savepoint", br#"{"dir": "hdfs://x"}"#, 400, "hdfs"),
            ("POST", "/jobs/a%20job/cancel", &large, 413, "the body cannot be read"),
        ];
        for (method, path, body, expected, said) in requests {
            let (status, answer) = job.request(method, path, body).await;
            assert_eq!(status, expected, "{method} {path}: {answer}");
            let error: Value = serde_json::from_str(&answer).expect(&answer);
            let message = error["error"]["message"].as_str().unwrap();
            assert!(answer.contains(said) && !message.contains('\n'), "{method} {path}: {answer}");
        }
        // Not HTTP at all.
        let mut connection = env.connect(&job.address).await.unwrap();
        connection.write_all(b"\0\0\0 nonsense \r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        assert_eq!(job.get("/jobs").await["jobs"][0]["state"], "running");
        job.post("/jobs/a%20job/cancel", json!({})).await;
        assert_eq!(job.handle.join().await.unwrap().how, "cancelled");
    });
}

#[test]
fn cancel_answers_at_once_and_before_the_job_is_gone() {
    real(async |env| {
        let job = Running::start(&env, &[("checkpoints.url", "memory:cancel")]).await;
        let Running { env, handle, address, ledger } = job;
        // The process ends as soon as the job does: the answer must have left by then.
        let (sender, joined) = tokio::sync::oneshot::channel();
        let _joining = env.spawn_task("the process", async move {
            let _gone = sender.send(handle.join().await);
        });
        let mut connection = env.connect(&address).await.unwrap();
        let before = env.now();
        let request = b"POST /jobs/a%20job/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let result = joined.await.unwrap().unwrap();
        let took = env.now().since(before);
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""how":"cancelled""#), "{answer}");
        // Not when some time-out is over; `make kills` asks for a second, where nothing runs beside it.
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!((result.how.as_str(), ledger.breaches()), ("cancelled", Vec::new()));
        // And nobody listens any more.
        assert!(env.connect(&address).await.is_err());
    });
}

#[test]
fn a_savepoint_taken_at_the_stop_is_what_another_job_starts_from() {
    real(async |env| {
        let first = Running::start(&env, &[("checkpoints.url", "memory:first")]).await;
        let savepoint = first.post("/jobs/a%20job/savepoint", json!({"dir": "memory:copy"})).await;
        assert_eq!(savepoint, json!({"checkpoint": 1, "dir": "memory:copy"}));
        let (status, refused) = first.request("POST", "/jobs/a%20job/savepoint", b"").await;
        assert!(status == 400 && refused.contains("give a directory"), "{refused}");
        let ended = first.post("/jobs/a%20job/stop", json!({"savepoint": "memory:last"})).await;
        let expected = json!({
            "how": "stopped", "checkpoint": 2, "savepoint": "memory:last", "savepoint_failure": null
        });
        assert_eq!(ended, expected);
        first.handle.join().await.unwrap();
        let committed = first.ledger.committed();

        let settings = [("checkpoints.url", "memory:second"), ("from", "memory:last"), ("parallelism", "3")];
        let second = Running::start(&env, &settings).await;
        let details = second.get("/jobs/a%20job").await;
        assert!(details["started_from"].as_str().unwrap().contains("memory:last"), "{details}");
        second.post("/jobs/a%20job/stop", json!({"drain": true})).await;
        second.handle.join().await.unwrap();
        // What the second job committed begins where the savepoint ends: no count comes twice, none is missing.
        let mut all = committed;
        for (row, times) in second.ledger.committed() {
            *all.entry(row).or_default() += times;
        }
        for key in 0..5 {
            let counts: Vec<_> = all.iter().filter(|(row, _)| row.1 == key).collect();
            assert!(
                counts.iter().zip(1..).all(|((row, times), count)| row.2 == count && **times == 1),
                "{key}"
            );
        }
    });
}

#[test]
fn a_busy_address_is_refused_with_the_flag_to_use() {
    real(async |env| {
        let job = Running::start(&env, &[("checkpoints.url", "memory:busy")]).await;
        let rival = Job::new("rival").set("rest", &job.address).unwrap();
        rival
            .source("numbers", Numbers::new(1, 1))
            .key_by(|number| *number)
            .count("count")
            .sink("out", Ledger::<(u64, u64)>::default());
        let rival =
            rival.set("checkpoints.url", "memory:rival").unwrap().set("allow-volatile", "true").unwrap();
        let error = rival.start(&env).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("--rest HOST:PORT"), "{error}");
        job.handle.control().ask(tidegate_engine::cluster::attempt::Ask::Cancel).await.unwrap();
        job.handle.join().await.unwrap();
    });
}

#[test]
fn an_address_of_another_machine_is_a_mistake_and_no_passing_fault() {
    real(async |env| {
        // An address that is kept for documentation is nobody's.
        let settings = [("checkpoints.url", "memory:a"), ("allow-volatile", "true")];
        let job = with_settings(Job::new("a job"), &settings).unwrap().set("rest", "192.0.2.1:0").unwrap();
        job.source("numbers", Numbers::new(1, 1)).sink("out", Ledger::<u64>::default());
        let error = job.start(&env).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidJob, "{error}");
        assert!(error.to_string().contains("an address of this machine with --rest HOST:PORT"), "{error}");
    });
}

#[test]
fn a_second_process_hears_of_the_job_that_runs_and_takes_job_and_address_over() {
    real(async |env| {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let settings = [("checkpoints.url", place), ("checkpoints.interval", "20ms")];
        let first = Running::start(&env, &settings).await;
        let second = |take_over: &str| {
            let all = [&settings[..], &[("rest", &first.address), ("take-over", take_over)]].concat();
            let job =
                all.iter().try_fold(Job::new("a job"), |job, (name, value)| job.set(name, value)).unwrap();
            job.source("numbers", Numbers::endless(2).paced(3, Duration::from_millis(1)))
                .key_by(|number| number % 5)
                .count("count")
                .map(|(key, count)| Row(Kind::Count, key, count))
                .sink("out", first.ledger.clone());
            job
        };
        let refused = second("false").start(&env).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.to_string().contains("--take-over"), "{refused}");

        let handle = second("true").start(&env).await.unwrap();
        assert_eq!(handle.rest_address(), Some(&*first.address));
        let fenced = first.handle.join().await.unwrap_err();
        assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
        let second = Running { handle, ..first };
        while second.env.connect(&second.address).await.is_err() || !second.all_tasks_run().await {
            env.sleep(Duration::from_millis(5)).await;
        }
        second.post("/jobs/a%20job/cancel", json!({})).await;
        second.handle.join().await.unwrap();
    });
}

/// In the simulation an address can be taken and given back, but no real socket listens there.
#[test]
fn an_address_that_cannot_be_had_once_it_is_free_is_told_and_waited_for_no_longer() {
    simulate(async |sim, env| {
        let address = "127.0.0.1:8081";
        let older = env.listen(address).await.unwrap();
        let settings = [
            ("rest", address),
            ("take-over", "true"),
            ("state.backend", "memory"),
            ("allow-volatile", "true"),
            ("restart", "none"),
        ];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        job.source("numbers", Numbers::endless(1).paced(1, Duration::from_millis(10)))
            .map(|number| Row(Kind::Count, number, 0))
            .sink("out", Ledger::default());
        let (_process, handle) = start(sim, job).await.unwrap();
        let said = |text: &str| sim.printed().iter().filter(|(_, line)| line.contains(text)).count();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!((said("REST waits until 127.0.0.1:8081 is free"), said("without REST")), (1, 0));
        drop(older);
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(
            said("job subject: goes on without REST: REST needs a real socket"),
            1,
            "{:?}",
            sim.printed()
        );
        handle.control().ask(tidegate_engine::cluster::attempt::Ask::Cancel).await.unwrap();
        handle.join().await.unwrap();
    });
}
