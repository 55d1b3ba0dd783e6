//! The socket source against a peer in the simulated network.

use std::time::Duration;

use engine::{
    api::source::{ReadStatus, Source, SourceOutput, SplitReader},
    prelude::*,
    record::BatchBuilder,
};
use env::{Connection, Env, Listener, sim::Simulation};
use tidegate_connectors::{
    CollectSink, Collected, SocketSource, conformance::source::context, socket::SocketReader,
};
use tokio::io::AsyncWriteExt;
use types::ErrorKind;

const ADDRESS: &str = "feed:7000";

async fn open(env: &Env, source: &SocketSource) -> SocketReader {
    source.validate().unwrap();
    let split = source.discover(&context(env)).await.unwrap().remove(0);
    source.open(split, &context(env)).await.unwrap()
}

/// Reads until `most` records are there or the source ends; every read is dropped again and again.
async fn lines(env: &Env, reader: &mut SocketReader, most: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    while lines.len() < most {
        let mut batch = BatchBuilder::default();
        let mut out = SourceOutput::new(&mut batch, 2, usize::MAX);
        let read = env.timeout(Duration::from_millis(3), reader.read(&mut out)).await;
        let mut batch = batch.take();
        while let Some(record) = batch.next() {
            lines.push(record.value);
        }
        if read.transpose()? == Some(ReadStatus::End) {
            break;
        }
    }
    Ok(lines)
}

/// Sends a text in small pieces, for as long as somebody reads.
async fn send(connection: &mut Box<dyn Connection>, env: &Env, text: &[u8]) {
    for piece in text.chunks(3) {
        if connection.write_all(piece).await.is_err() {
            return;
        }
        env.yield_now().await;
    }
}

fn against<T>(seed: u64, peer: impl AsyncFnOnce(Env, Listener), body: impl AsyncFnOnce(Env) -> T) -> T {
    Simulation::new(seed).run(async |env| {
        let listener = env.listen(ADDRESS).await.unwrap();
        let (result, ()) = futures::join!(body(env.clone()), peer(env.clone(), listener));
        result
    })
}

#[test]
fn reads_lines_and_connects_again() {
    for seed in 0..20 {
        let found = against(
            seed,
            async |env, mut listener| {
                for text in ["one\r\ntwo\n\nthr", "four\n", "five\nsix"] {
                    let mut connection = listener.accept().await.unwrap();
                    send(&mut connection, &env, text.as_bytes()).await;
                }
            },
            async |env| {
                let mut reader = open(&env, &SocketSource::lines(ADDRESS)).await;
                lines(&env, &mut reader, 7).await.unwrap()
            },
        );
        assert_eq!(found, ["one", "two", "", "thr", "four", "five", "six"], "seed {seed}");
    }
}

#[test]
fn ends_when_the_peer_closes_if_told_so() {
    let found = against(
        1,
        async |env, mut listener| {
            let mut connection = listener.accept().await.unwrap();
            send(&mut connection, &env, b"a\nb\nc").await;
        },
        async |env| {
            let mut reader = open(&env, &SocketSource::lines(ADDRESS).ends_on_close()).await;
            lines(&env, &mut reader, usize::MAX).await.unwrap()
        },
    );
    assert_eq!(found, ["a", "b", "c"]);
}

/// Says each word when event time has come to its end.
#[derive(Clone)]
struct AtTheEnd;

impl ProcessFunction for AtTheEnd {
    type Key = String;
    type In = String;
    type Out = String;
    type State = ();

    fn declare(_states: &mut Declarations) {}

    fn process(&mut self, _word: String, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.timers().register(Timestamp::MAX)
    }

    fn on_timer(&mut self, _at: Timestamp, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(ctx.key().clone());
        Ok(())
    }
}

/// A job that reads lines until the peer closes.
fn words(address: &str) -> (Job, Collected<String>) {
    let settings = [("rest", "off"), ("checkpoints.url", "/checkpoints"), ("restart", "none")];
    let job = settings.iter().fold(Job::new("subject"), |job, (name, value)| job.set(name, value).unwrap());
    let (sink, collected) = CollectSink::new();
    let lines = job.source("lines", SocketSource::lines(address).ends_on_close());
    lines.key_by(String::clone).process("last", AtTheEnd).sink("out", sink);
    (job, collected)
}

#[test]
fn a_job_finishes_when_the_peer_closes_if_told_so() {
    let collected = against(
        1,
        async |env, mut listener| {
            let mut connection = listener.accept().await.unwrap();
            send(&mut connection, &env, b"b\na\nb").await;
        },
        async |env| {
            let (job, collected) = words(ADDRESS);
            let ended = env.timeout(Duration::from_secs(60), job.start(&env).await.unwrap().join()).await;
            assert_eq!(ended.expect("it ends").unwrap().how, "finished");
            collected
        },
    );
    assert_eq!(collected.sorted(), ["a", "b"]);
}

#[test]
fn a_job_goes_on_at_the_address_that_it_is_given_now() {
    let sim = Simulation::new(1);
    sim.run(async |env| {
        let mut old = env.listen(ADDRESS).await.unwrap();
        let (first, _) = words(ADDRESS);
        let handle = first.start(&env).await.unwrap();
        let mut feed = old.accept().await.unwrap();
        send(&mut feed, &env, b"one\n").await;
        env.sleep(Duration::from_secs(1)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        handle.join().await.unwrap();
        drop((feed, old));

        let mut moved = env.listen("new-feed:7001").await.unwrap();
        let (second, collected) = words("new-feed:7001");
        let handle = second.start(&env).await.unwrap();
        let accepted = env.timeout(Duration::from_secs(60), moved.accept()).await;
        let mut feed = accepted.expect("it connects to the new address").unwrap();
        send(&mut feed, &env, b"two\n").await;
        drop(feed);
        handle.join().await.unwrap();
        assert_eq!(collected.sorted(), ["one", "two"], "with the words before");
    });
}

#[test]
fn gives_up_after_so_many_attempts() {
    let sim = Simulation::new(2);
    sim.run(async |env| {
        let pause = Duration::from_secs(1);
        let source = SocketSource::lines(ADDRESS).reconnects(3, pause, pause * 2);
        let mut reader = open(&env, &source).await;
        let begin = env.now();
        let error = lines(&env, &mut reader, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable);
        assert!(error.to_string().contains("feed:7000 after 4 attempts"), "{error}");
        let took = env.now().since(begin);
        assert!((pause * 5..pause * 6).contains(&took), "pauses of 1, 2 and 2 seconds, not {took:?}");
    });
    // Whoever looks at the job knows what it waits for.
    let told: Vec<_> = sim.printed().into_iter().map(|(_, line)| line).collect();
    assert_eq!(told[0], "source conformance: connecting to feed:7000");
    let tries =
        ["1s, 3 tries", "2s, 2 tries", "2s, 1 tries"].map(|text| format!("; tries again in {text} are left"));
    assert_eq!(told.len(), 1 + tries.len(), "{told:?}");
    for (line, end) in told[1..].iter().zip(tries) {
        assert!(line.starts_with("source conformance: ") && line.contains("feed:7000"), "{line}");
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn a_connection_is_told() {
    let sim = Simulation::new(3);
    sim.run(async |env| {
        let mut listener = env.listen(ADDRESS).await.unwrap();
        let mut reader = open(&env, &SocketSource::lines(ADDRESS)).await;
        let peer = async { listener.accept().await.unwrap().write_all(b"one\n").await.unwrap() };
        let (found, ()) = futures::join!(lines(&env, &mut reader, 1), peer);
        assert_eq!(found.unwrap(), ["one"]);
    });
    let told: Vec<_> = sim.printed().into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        told[..2],
        ["source conformance: connecting to feed:7000", "source conformance: connected to feed:7000"]
    );
}

#[test]
fn bad_lines_are_refused() {
    let refused = |source: SocketSource, text: &'static [u8]| {
        against(
            3,
            async |env, mut listener| {
                let mut connection = listener.accept().await.unwrap();
                send(&mut connection, &env, text).await;
            },
            async |env| {
                let mut reader = open(&env, &source).await;
                lines(&env, &mut reader, usize::MAX).await
            },
        )
    };
    let source = || SocketSource::lines(ADDRESS).ends_on_close();
    let error = refused(source(), b"fine\ncaf\xe9\n").unwrap_err();
    assert!(error.message().contains("byte 0xe9 of line 2 is not UTF-8"), "{error}");
    assert_eq!(refused(source().lossy(), b"caf\xe9\n").unwrap(), ["caf\u{fffd}"]);
    let error = refused(source().max_line_bytes(4), b"1234\r\n12345").unwrap_err();
    assert!(error.message().contains("line 2 is longer than 4 bytes"), "{error}");
    let error = refused(source().max_line_bytes(4), &[b'x'; 100]).unwrap_err();
    assert!(error.message().contains("line 1 is longer than 4 bytes"), "{error}");
}

#[test]
fn wrong_addresses_are_refused() {
    for address in ["", "host", "host:", ":80", "host:port", "host:0", "host:65536"] {
        let error = SocketSource::lines(address).validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidJob, "{address}");
    }
    for address in ["host:80", "127.0.0.1:1", "[::1]:8080"] {
        SocketSource::lines(address).validate().unwrap();
    }
}
