//! The commands for running jobs, against a server that answers what a job would, or something else.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a real socket and a real thread")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    thread::JoinHandle,
};

use types::rest::{CheckpointTaken, GarbageCollected, JobEnded, JobList, JobSummary, SavepointTaken};

use crate::command::{Ran, tidegate};

/// Answers each request of a run with the next of `answers`; gives the run and the requests: first line and body.
fn against(args: &[&str], answers: &[(u16, String)]) -> (Ran, Vec<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = serve(listener, answers.to_vec());
    let args = [args, &["--address", &address]].concat();
    let ran = tidegate(Path::new("/"), &args);
    (ran, served.join().unwrap())
}

fn serve(listener: TcpListener, answers: Vec<(u16, String)>) -> JoinHandle<Vec<(String, String)>> {
    std::thread::spawn(move || {
        let answer = |(status, body): (u16, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut len) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    len = value.trim().parse().unwrap();
                }
            }
            let mut sent = vec![0; len];
            reader.read_exact(&mut sent).unwrap();
            let head =
                format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
            let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap_or_default();
            (first.trim().to_owned(), sent.to_string())
        };
        answers.into_iter().map(answer).collect()
    })
}

fn json(value: impl serde::Serialize) -> (u16, String) {
    (200, serde_json::to_string(&value).unwrap())
}

fn jobs(names: &[&str]) -> (u16, String) {
    let job = |name: &&str| JobSummary {
        name: (*name).to_owned(),
        state: "running".to_owned(),
        attempt: Some(4),
        uptime_ms: 83_000,
        restarts: 1,
        checkpoints: 12,
    };
    json(JobList { jobs: names.iter().map(job).collect() })
}

#[test]
fn list_shows_the_jobs() {
    let (ran, requests) = against(&["list"], &[jobs(&["word-count"])]);
    assert_eq!(requests[0].0, "GET /jobs HTTP/1.1");
    let rows: Vec<Vec<_>> = ran.good().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["JOB", "STATE", "ATTEMPT", "UPTIME", "RESTARTS", "CHECKPOINTS"]);
    assert_eq!(rows[1], ["word-count", "running", "4", "1m", "23s", "1", "12"]);
}

#[test]
fn the_only_job_need_not_be_named() {
    let taken = json(CheckpointTaken { checkpoint: 13 });
    let (ran, requests) = against(&["checkpoint"], &[jobs(&["a b"]), taken.clone()]);
    assert_eq!(ran.good(), "checkpoint 13 is complete\n");
    assert_eq!(requests[1], ("POST /jobs/a%20b/checkpoint HTTP/1.1".to_owned(), "{}".to_owned()));
    let (ran, requests) = against(&["checkpoint", "named", "--json"], &[taken]);
    assert_eq!(requests[0].0, "POST /jobs/named/checkpoint HTTP/1.1");
    assert_eq!(ran.good(), "{\n  \"checkpoint\": 13\n}\n");
    against(&["status"], &[jobs(&["one", "two"])]).0.refused(2, &["give the JOB", "one", "two"]);
    against(&["status"], &[jobs(&[])]).0.refused(2, &["there is no job"]);
}

#[test]
fn directories_are_sent_as_the_job_must_see_them() {
    let taken = json(SavepointTaken { checkpoint: 2, dir: "/there".to_owned() });
    let (ran, requests) = against(&["savepoint", "job", "there"], std::slice::from_ref(&taken));
    assert_eq!(requests[0].1, r#"{"dir":"/there"}"#);
    assert!(ran.good().contains("start from it with --from /there"), "{}", ran.out);
    let (_, requests) = against(&["savepoint", "./there"], &[jobs(&["job"]), taken.clone()]);
    assert_eq!(
        requests[1],
        ("POST /jobs/job/savepoint HTTP/1.1".to_owned(), r#"{"dir":"/there"}"#.to_owned())
    );
    let (_, requests) = against(&["savepoint", "job"], &[taken]);
    assert_eq!(requests[0].1, r#"{"dir":null}"#);
    // One word is the job's name, and may have been meant as a directory.
    let message = r#"there is no job \"there\" here: this process runs \"job\""#;
    let unknown = (404, format!(r#"{{"error":{{"kind":"invalid-job","message":"{message}"}}}}"#));
    let (ran, _) = against(&["savepoint", "there"], &[unknown.clone(), jobs(&["job"])]);
    ran.refused(2, &["this process runs \"job\"; a directory is written ./there"]);
    let (ran, _) = against(&["savepoint", "there", "here"], std::slice::from_ref(&unknown));
    assert!(!ran.err.contains("is written"), "{}", ran.err);
    let (ran, _) = against(&["savepoint", "job"], &[unknown, jobs(&["job"])]);
    assert!(!ran.err.contains("is written"), "{}", ran.err);
}

#[test]
fn stop_says_how_the_job_ended_and_fails_if_the_savepoint_did() {
    let mut ended = JobEnded { how: "stopped".to_owned(), checkpoint: Some(7), ..JobEnded::default() };
    let (ran, requests) = against(&["stop", "job", "--drain"], &[json(&ended)]);
    assert_eq!(ran.good(), "the job has stopped with checkpoint 7\n");
    assert_eq!(requests[0].1, r#"{"drain":true,"savepoint":null}"#);
    ended.savepoint_failure = Some("no space".to_owned());
    let (ran, _) = against(&["stop", "job", "--savepoint", "sp"], &[json(&ended)]);
    ran.refused(5, &["the job has ended, but there is no savepoint: no space"]);
    let cancelled = JobEnded { how: "cancelled".to_owned(), ..JobEnded::default() };
    let (ran, requests) = against(&["cancel", "job"], &[json(cancelled)]);
    assert_eq!(ran.good(), "the job has been cancelled\n");
    assert_eq!(requests[0].0, "POST /jobs/job/cancel HTTP/1.1");
}

#[test]
fn gc_has_a_job_that_runs_delete_until_there_is_nothing_more() {
    let gone = |files, more| json(GarbageCollected { files, more });
    let ask = |answers: &[(u16, String)]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = serve(listener, [&[jobs(&["job"])], answers].concat());
        (tidegate(Path::new("/"), &["gc", "--job", &address]), served.join().unwrap())
    };
    let (ran, requests) = ask(&[gone(1000, true), gone(3, false)]);
    assert_eq!(ran.good(), "job job has deleted 1003 files\n");
    assert_eq!(requests[2], ("POST /jobs/job/gc HTTP/1.1".to_owned(), "{}".to_owned()));
    let nothing = ask(&[gone(0, false)]).0;
    assert_eq!(nothing.good(), "nothing to delete: job job collects by itself, after its checkpoints\n");
    ask(&[gone(0, true)]).0.refused(4, &["ask again"]);
    let both = tidegate(Path::new("/"), &["gc", "ck", "--job", "127.0.0.1:1"]);
    both.refused(2, &["--job"]);
    tidegate(Path::new("/"), &["gc"]).refused(2, &["DIR"]);
}

#[test]
fn errors_of_the_job_keep_their_kind_and_strangers_are_recognised() {
    let refused = |kind: &str| format!(r#"{{"error":{{"kind":"{kind}","message":"some words"}}}}"#);
    against(&["cancel", "x"], &[(404, refused("invalid-job"))]).0.refused(2, &["some words"]);
    against(&["cancel", "x"], &[(409, refused("conflict"))]).0.refused(10, &["some words"]);
    against(&["cancel", "x"], &[(500, refused("a kind of tomorrow"))]).0.refused(3, &["some words"]);
    against(&["list"], &[(200, "<html>".to_owned())]).0.refused(5, &["is not a Tidegate job"]);
    against(&["list"], &[(404, "nothing".to_owned())]).0.refused(5, &["is not a Tidegate job", "404"]);
    let nobody = |address: &str| tidegate(Path::new("/"), &["list", "--address", address]);
    nobody("127.0.0.1:1").refused(5, &["no job answers at 127.0.0.1:1", "--address"]);
    nobody("http://127.0.0.1:1/").refused(2, &["is not HOST:PORT"]);
    nobody("8081").refused(2, &["is not HOST:PORT"]);
}
