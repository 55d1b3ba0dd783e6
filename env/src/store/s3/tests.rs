//! The store against a real server, and against one that is behind a proxy which treats requests badly.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "the store's tasks are spawned past Env, as the real world does it; an address is found at which nobody is"
)]

use std::{
    io::{Read, Write},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::runtime::Handle;
use types::ErrorKind;

use super::*;
use crate::{Env, store_conformance, world::joined};

const URL: &str = "s3://tidegate-test/a/prefix";

/// A store that finds what listens at `address`, with these variables besides.
fn open(address: &str, url: &str, more: &[(&str, &str)]) -> Arc<dyn Store> {
    let Ok(super::super::Location::S3 { bucket, prefix }) = super::super::locate(url) else {
        panic!("{url} is no URL of S3");
    };
    let mut vars = S3Server::vars(address);
    vars.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let runtime = Handle::current();
    let spawn: Spawn = Arc::new(move |name, task| {
        let task = runtime.spawn(task);
        let abort = task.abort_handle();
        TaskHandle { abort: Box::new(move || abort.abort()), joined: Box::pin(joined(name.to_owned(), task)) }
    });
    Arc::new(S3Store::open(url, &bucket, &prefix, &vars, spawn).unwrap())
}

/// A store behind a proxy with this rule.
fn behind(
    server: &S3Server,
    rule: impl Fn(&S3Request) -> Treatment + Send + Sync + 'static,
) -> Arc<dyn Store> {
    open(S3Proxy::start(server.address(), rule).address(), URL, &[])
}

/// The first `times` requests that `which` picks are treated so, all others passed on.
fn first(
    times: usize,
    treatment: Treatment,
    which: impl Fn(&S3Request) -> bool + Send + Sync + 'static,
) -> impl Fn(&S3Request) -> Treatment + Send + Sync + 'static {
    let met = AtomicUsize::new(0);
    move |request| {
        if which(request) && met.fetch_add(1, Ordering::Relaxed) < times {
            treatment.clone()
        } else {
            Treatment::Pass
        }
    }
}

fn bytes(text: &'static str) -> Payload {
    vec![Bytes::from_static(text.as_bytes())]
}

/// How many requests of a kind were sent, and how many of them got no answer.
fn count(store: &dyn Store, kind: &str) -> (u64, u64) {
    let counts = store.requests();
    let found = counts.iter().find(|count| count.kind == kind).unwrap();
    (found.sent, found.unanswered)
}

/// More than one part.
fn long() -> Vec<Bytes> {
    let piece = |n: u8| Bytes::from(vec![n; (writer::PART / 3 + 1) as usize]);
    (0..8).map(piece).collect()
}

async fn write_long(store: &dyn Store, path: &str) -> Result<()> {
    let mut writer = store.writer(path).await?;
    for piece in long() {
        writer.write(piece).await?;
    }
    writer.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    for url in [URL, "s3://tidegate-test"] {
        let server = S3Server::start();
        store_conformance(&Env::real(), open(server.address(), url, &[])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_other_prefixes_are_not_seen() {
    let server = S3Server::start();
    let store = open(server.address(), URL, &[]);
    // The server gives out seven keys at a time.
    for n in 0..30 {
        store.create(&format!("many/{n}"), bytes("x")).await.unwrap();
    }
    for other in ["s3://tidegate-test/a/prefix2", "s3://tidegate-test/a"] {
        open(server.address(), other, &[]).create("many/other", bytes("x")).await.unwrap();
    }
    let found = store.list("").await.unwrap();
    assert!(
        found.len() == 30 && found.is_sorted() && found.iter().all(|entry| entry.path.starts_with("many/"))
    );
    assert_eq!(count(&*store, "list"), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_object_is_uploaded_in_parts_and_replaces_nothing() {
    let server = S3Server::start();
    let (sender, aborted) = mpsc::sync_channel(10);
    let sender = Mutex::new(sender);
    let store = behind(&server, move |request| {
        if request.method == "DELETE" && request.target.contains("uploadId=") {
            sender.lock().unwrap().send(request.target.clone()).unwrap();
        }
        Treatment::Pass
    });
    write_long(&*store, "long").await.unwrap();
    assert_eq!((count(&*store, "begin-upload"), count(&*store, "upload-part")), ((1, 0), (3, 0)));
    assert!(aborted.try_recv().is_err(), "a complete upload was aborted");
    let all: Vec<u8> = long().concat();
    assert_eq!(store.len("long").await.unwrap(), Some(all.len() as u64));
    let edge = writer::PART as usize;
    for range in [edge - 10..edge + 1_000_000, all.len() - 5..all.len(), 0..all.len()] {
        let found = store.get_range("long", range.start as u64..range.end as u64).await.unwrap().unwrap();
        assert!(found == all[range.clone()], "{range:?}");
    }

    let error = write_long(&*store, "long").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        aborted.recv_timeout(Duration::from_secs(20)).unwrap().starts_with("/tidegate-test/a/prefix/long?")
    );

    let mut dropped = store.writer("dropped").await.unwrap();
    for piece in long() {
        dropped.write(piece).await.unwrap();
    }
    assert_eq!(store.len("dropped").await.unwrap(), None);
    drop(dropped);
    assert!(aborted.recv_timeout(Duration::from_secs(20)).unwrap().contains("dropped"));
    assert_eq!(store.list("").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_repeated_outlasts_a_passing_fault() {
    for treatment in [
        Treatment::Answer(500, "InternalError"),
        Treatment::Answer(503, "SlowDown"),
        Treatment::Answer(429, "TooManyRequests"),
        Treatment::Answer(409, "OperationAborted"),
        Treatment::AnswerAfter(502, "BadGateway"),
        Treatment::LoseAnswer,
        Treatment::Drop,
    ] {
        let server = S3Server::start();
        open(server.address(), URL, &[]).create("there", bytes("there")).await.unwrap();
        let repeated = |kind: &'static str, which: fn(&S3Request) -> bool| {
            (kind, behind(&server, first(2, treatment.clone(), which)))
        };
        let (kind, store) = repeated("put", |request| request.method == "PUT");
        store.put("put", bytes("put")).await.unwrap();
        assert_eq!(count(&*store, kind), (3, 2), "{treatment:?}");
        let (kind, store) = repeated("get", |request| request.method == "GET");
        assert_eq!(store.get("there").await.unwrap().unwrap(), "there");
        assert_eq!(count(&*store, kind), (3, 2), "{treatment:?}");
        let (kind, store) = repeated("head", |request| request.method == "HEAD");
        assert_eq!(store.len("there").await.unwrap(), Some(5));
        assert_eq!(count(&*store, kind), (3, 2), "{treatment:?}");
        let (kind, store) = repeated("list", |request| request.method == "GET");
        assert_eq!(store.list("").await.unwrap().len(), 2);
        assert_eq!(count(&*store, kind), (3, 2), "{treatment:?}");
        let (kind, store) = repeated("delete", |request| request.method == "DELETE");
        store.delete("there").await.unwrap();
        assert_eq!(count(&*store, kind), (3, 2), "{treatment:?}");
        let (kind, store) = repeated("upload-part", |request| request.target.contains("partNumber=2"));
        write_long(&*store, "long").await.unwrap();
        assert_eq!(count(&*store, kind), (5, 2), "{treatment:?}");
        assert!(store.get("long").await.unwrap().unwrap() == long().concat(), "{treatment:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_sent_once_and_an_unclear_answer_is_no_answer() {
    // What the server did, as far as the caller could find out by reading back.
    let (done, not_done) = (Some("own"), None);
    for (treatment, expected) in [
        (Treatment::Answer(409, "ConditionalRequestConflict"), not_done),
        (Treatment::Answer(503, "SlowDown"), not_done),
        (Treatment::Drop, not_done),
        (Treatment::AnswerAfter(500, "InternalError"), done),
        (Treatment::AnswerAfter(409, "ConditionalRequestConflict"), done),
        (Treatment::LoseAnswer, done),
    ] {
        let server = S3Server::start();
        let store = behind(&server, first(1, treatment.clone(), |request| request.method == "PUT"));
        let error = store.create("record", bytes("own")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{treatment:?}: {error}");
        assert_eq!(count(&*store, "create"), (1, 1), "{treatment:?}");
        let found = store.get("record").await.unwrap();
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{treatment:?}");
        let again = store.create("record", bytes("other")).await.unwrap();
        assert_eq!(again == Created::Exists, expected.is_some(), "{treatment:?}");

        let store = behind(
            &server,
            first(1, treatment.clone(), |request| request.method == "POST" && request.is_conditional()),
        );
        let mut upload = store.writer("aside").await.unwrap();
        upload.write(Bytes::from_static(b"aside")).await.unwrap();
        upload.finish().await.unwrap();
        write_long(&*store, "long").await.unwrap();
        let tries = if expected.is_some() { (1, 1) } else { (2, 1) };
        assert_eq!(count(&*store, "complete-upload"), tries, "{treatment:?}");
        assert!(store.get("long").await.unwrap().unwrap() == long().concat(), "{treatment:?}");
    }
}

/// The answer to the first completion is lost, and what the server then holds is not what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_somebody_else_is_not_taken_for_an_upload_whose_answer_was_lost() {
    for others in [long().concat().len(), 5] {
        let server = S3Server::start();
        let completes = |request: &S3Request| request.method == "POST" && request.is_conditional();
        let store = behind(&server, first(1, Treatment::Answer(503, "SlowDown"), completes));
        let mut writer = store.writer("long").await.unwrap();
        for piece in long() {
            writer.write(piece).await.unwrap();
        }
        open(server.address(), URL, &[]).put("long", vec![vec![7; others].into()]).await.unwrap();
        let error = writer.finish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(store.len("long").await.unwrap(), Some(others as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_object_whose_answer_was_lost_is_written_in_the_end() {
    for treatment in [Treatment::LoseAnswer, Treatment::Answer(503, "SlowDown"), Treatment::Drop] {
        let server = S3Server::start();
        let store = behind(&server, first(1, treatment.clone(), |request| request.method == "PUT"));
        let mut writer = store.writer("small").await.unwrap();
        writer.write(Bytes::from_static(b"small")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(store.get("small").await.unwrap().unwrap(), "small", "{treatment:?}");
    }
}

/// The client of S3 gives a listing up at such a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_that_nobody_can_list_past_is_named() {
    let server = S3Server::start();
    let mut raw = std::net::TcpStream::connect(server.address()).unwrap();
    let request = "PUT /tidegate-test/a/prefix/b//c HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
    raw.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let error = open(server.address(), URL, &[]).list("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.message().contains("a/prefix/b//c") && error.message().contains("another prefix"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_is_given_up_and_asked_again() {
    let server = S3Server::start();
    let slow = |method: &'static str| {
        let late = Treatment::Late(Duration::from_secs(5));
        let proxy = S3Proxy::start(server.address(), first(1, late, move |request| request.method == method));
        open(proxy.address(), URL, &[("AWS_TIMEOUT", "1s")])
    };
    let store = slow("PUT");
    let error = store.create("record", bytes("own")).await.unwrap_err();
    assert_eq!((error.kind(), count(&*store, "create")), (ErrorKind::Retryable, (1, 1)), "{error}");
    assert_eq!(store.create("other", bytes("own")).await.unwrap(), Created::New);
    let store = slow("GET");
    assert_eq!(store.get("other").await.unwrap().unwrap(), "own");
    assert_eq!(count(&*store, "get"), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_one_line_that_says_what_to_do() {
    let server = S3Server::start();
    for (status, code, expected) in [
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID"),
        (404, "NoSuchBucket", "make the bucket"),
        (400, "AuthorizationHeaderMalformed", "check AWS_REGION"),
        (301, "PermanentRedirect", "check AWS_REGION"),
        (501, "NotImplemented", "use another store"),
        (400, "InvalidRequest", "answered 400 InvalidRequest (as the test wants it)"),
    ] {
        let store = behind(&server, move |_| Treatment::Answer(status, code));
        let refusals = [
            ("create", store.create("x", bytes("x")).await.map(drop)),
            ("put", store.put("x", bytes("x")).await),
            ("get", store.get("x").await.map(drop)),
            ("list", store.list("x/").await.map(drop)),
            ("delete", store.delete("x").await),
            ("begin-upload", write_long(&*store, "x").await),
        ];
        for (kind, refusal) in refusals {
            let error = refusal.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{kind}: {error}");
            assert_eq!(count(&*store, kind), (1, 0), "{code} was asked again");
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains(&format!("{status} {code}")), "{text}");
            assert!(text.contains(URL) && text.lines().count() == 1 && !text.contains("secret"), "{text}");
        }
    }
    let missing = open(server.address(), "s3://tidegate-none/x", &[]);
    for error in [missing.get("x").await.unwrap_err(), missing.create("x", bytes("x")).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("make the bucket"), "{error}");
    }
}

/// A proxy on the way that says 404 while it starts anew knows nothing about objects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_404_of_somebody_else_does_not_say_that_an_object_is_missing() {
    let server = S3Server::start();
    open(server.address(), URL, &[]).create("record", bytes("own")).await.unwrap();
    let answers = |times| behind(&server, first(times, Treatment::Answer(404, ""), |_| true));
    assert_eq!(answers(1).get("record").await.unwrap().unwrap(), "own");
    let refusals = [
        answers(100).get("record").await.map(drop),
        answers(100).len("record").await.map(drop),
        answers(100).delete("record").await,
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Retryable);
    }
    let store = answers(0);
    assert_eq!(store.len("record").await.unwrap(), Some(3));
    assert_eq!(store.len("nothing").await.unwrap(), None);
}

/// In parts, of which none takes as long as a request may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_is_put_in_parts_and_may_replace_what_is_there() {
    let server = S3Server::start();
    let store = open(server.address(), URL, &[]);
    store.put("run", bytes("before")).await.unwrap();
    store.put("run", long()).await.unwrap();
    assert_eq!((count(&*store, "put"), count(&*store, "upload-part")), ((1, 0), (3, 0)));
    assert_eq!(store.get("run").await.unwrap().unwrap(), long().concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let store = open(&address, URL, &[]);
    let error = store.create("record", bytes("own")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert_eq!(
        error.to_string(),
        format!("cannot create record in {URL}: Connection refused (os error 111)")
    );
    let error = store.get("record").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert!(count(&*store, "get").0 > 2, "{:?}", store.requests());
}
