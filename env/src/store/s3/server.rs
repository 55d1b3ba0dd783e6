//! For tests: a server that speaks S3, as a process of its own, and a proxy in front of it that treats requests badly.
//!
//! The server is `scripts/s3_server.py` in the Python of `scripts/setup.sh s3`. It is killed by its process id, and ends
//! by itself when the test dies.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::missing_panics_doc,
    reason = "a test harness outside of every job: it starts a process and moves bytes between sockets"
)]

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

/// A server that speaks S3 at a free port of this machine, empty but for the bucket [`BUCKET`](Self::BUCKET).
pub struct S3Server {
    process: Child,
    address: String,
}

impl S3Server {
    /// The bucket that is there.
    pub const BUCKET: &'static str = "tidegate-test";

    /// Starts one.
    ///
    /// # Panics
    /// Naming the command to run, if what it needs is not there.
    #[must_use]
    pub fn start() -> Self {
        let python = python();
        let started = Command::new(&python)
            // From a crate's directory, in which cargo runs tests.
            .arg("../scripts/s3_server.py")
            .arg(Self::BUCKET)
            // Every listing has several pages.
            .env("MOTO_S3_DEFAULT_MAX_KEYS", "7")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = started
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/setup.sh s3 first", python.display()));
        let mut port = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut port).expect("the server's output can be read");
        let port: u16 = port.trim().parse().expect("the server says its port: run scripts/setup.sh s3 first");
        Self { process, address: format!("127.0.0.1:{port}") }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The environment variables with which a program finds what listens at `address`.
    #[must_use]
    pub fn vars(address: &str) -> Vec<(String, String)> {
        let endpoint = format!("http://{address}");
        let vars = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        vars.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `scripts/setup.sh s3` puts it.
fn python() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let cache = cache
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .expect("HOME or XDG_CACHE_HOME says where the cache is");
    cache.join("tidegate-s3/bin/python")
}

/// A request on its way through an [`S3Proxy`].
#[derive(Clone, Debug)]
pub struct S3Request {
    /// Such as `PUT`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl S3Request {
    /// Whether it is carried out only if there is no such object.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.headers.contains_key("if-none-match")
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is passed on.
    Pass,
    /// It is passed on without this header.
    Without(&'static str),
    /// It is answered with this status and S3's word for it, and not passed on.
    Answer(u16, &'static str),
    /// It is carried out, and its answer is this one.
    AnswerAfter(u16, &'static str),
    /// It is carried out, and the connection closed without an answer.
    LoseAnswer,
    /// The connection is closed and it is not passed on.
    Drop,
    /// It is passed on so much later.
    Late(Duration),
    /// It is passed on without its condition, a little later, if there was no such object before: as by a server that looks
    /// first and writes later.
    LookFirst,
}

/// Between the look and the write of [`Treatment::LookFirst`].
const LOOKED: Duration = Duration::from_millis(30);

type Rule = dyn Fn(&S3Request) -> Treatment + Send + Sync;

/// A proxy at a free port of this machine; it works until the process ends.
pub struct S3Proxy {
    address: String,
}

impl S3Proxy {
    /// Starts a proxy in front of the server at `server`; `rule` says of each request what becomes of it.
    #[must_use]
    pub fn start(server: &str, rule: impl Fn(&S3Request) -> Treatment + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (server, rule): (_, Arc<Rule>) = (server.to_owned(), Arc::new(rule));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, rule) = (server.clone(), Arc::clone(&rule));
                // Who closes a connection too early has its own error.
                thread::spawn(move || drop(serve(client, &server, &*rule)));
            }
        });
        Self { address }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Serves one request of a connection, and closes it.
fn serve(mut client: TcpStream, server: &str, rule: &Rule) -> std::io::Result<()> {
    let Some(mut request) = read_request(&client)? else { return Ok(()) };
    let canned = |status: u16, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
        let body = if request.method == "HEAD" { String::new() } else { body };
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    match rule(&request) {
        Treatment::Pass => client.write_all(&forward(&request, server)?)?,
        Treatment::Without(header) => {
            request.headers.remove(header);
            client.write_all(&forward(&request, server)?)?;
        }
        Treatment::Answer(status, code) => client.write_all(canned(status, code).as_bytes())?,
        Treatment::AnswerAfter(status, code) => {
            forward(&request, server)?;
            client.write_all(canned(status, code).as_bytes())?;
        }
        Treatment::LoseAnswer => drop(forward(&request, server)?),
        Treatment::Drop => {}
        Treatment::Late(span) => {
            thread::sleep(span);
            client.write_all(&forward(&request, server)?)?;
        }
        Treatment::LookFirst => {
            let mut look = S3Request { method: "HEAD".to_owned(), body: Vec::new(), ..request.clone() };
            look.headers.retain(|name, _| !matches!(&**name, "content-length" | "if-none-match"));
            if forward(&look, server)?.starts_with(b"HTTP/1.1 200") {
                client.write_all(canned(412, "PreconditionFailed").as_bytes())?;
            } else {
                thread::sleep(LOOKED);
                request.headers.remove("if-none-match");
                client.write_all(&forward(&request, server)?)?;
            }
        }
    }
    client.shutdown(Shutdown::Both)
}

fn read_request(client: &TcpStream) -> std::io::Result<Option<S3Request>> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(S3Request { method, target, headers, body }))
}

/// The server's whole answer.
fn forward(request: &S3Request, server: &str) -> std::io::Result<Vec<u8>> {
    let S3Request { method, target, headers, body } = request;
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| *name != "connection") {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("connection: close\r\n\r\n");
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(text.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
