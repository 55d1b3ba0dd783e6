//! [`SocketSource`] and its reader, which connects again with growing pauses.

use std::time::Duration;

use engine::api::source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader};
use env::{BoxFuture, Connection, Env, Monotonic};
use memchr::memchr;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use types::{Error, Result, Uid};

/// Bytes asked of the connection at a time.
const CHUNK: usize = 64 << 10;

/// Reads lines from `HOST:PORT`, in one subtask. Lines end with `\n` or `\r\n`; the last one may lack it. A job that goes
/// on from a checkpoint reads from the address that its program gives now.
///
/// When the connection ends or cannot be made, it is made again: by default up to 10 times in a row, with pauses of
/// 200 ms that double up to 5 s; then the job fails, to be restarted by its strategy.
///
/// **Guarantee:** at most once after a failure. Lines that were read after the last checkpoint, or sent while nobody was
/// connected, are lost unless the peer sends them again.
#[derive(Clone, Debug)]
pub struct SocketSource {
    address: String,
    max_line: usize,
    lossy: bool,
    ends_on_close: bool,
    reconnects: Reconnects,
}

#[derive(Clone, Copy, Debug)]
struct Reconnects {
    attempts: u32,
    first_pause: Duration,
    longest_pause: Duration,
}

impl Reconnects {
    /// The pause before the attempt after `failed` ones in a row.
    fn pause(&self, failed: u32) -> Duration {
        self.first_pause.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(self.longest_pause)
    }
}

impl SocketSource {
    /// Each line as a record.
    #[must_use]
    pub fn lines(address: impl Into<String>) -> Self {
        let (first_pause, longest_pause) = (Duration::from_millis(200), Duration::from_secs(5));
        Self {
            address: address.into(),
            max_line: 1 << 20,
            lossy: false,
            ends_on_close: false,
            reconnects: Reconnects { attempts: 10, first_pause, longest_pause },
        }
    }

    /// The greatest length of a line in bytes, 1 MiB by default; a longer one is an error.
    #[must_use]
    pub fn max_line_bytes(self, bytes: usize) -> Self {
        Self { max_line: bytes, ..self }
    }

    /// Replaces bytes that are not UTF-8 by U+FFFD, instead of failing.
    #[must_use]
    pub fn lossy(self) -> Self {
        Self { lossy: true, ..self }
    }

    /// Ends the source when the peer closes the connection in good order, instead of connecting again: the source is
    /// bounded then, and a job whose sources have all ended finishes.
    #[must_use]
    pub fn ends_on_close(self) -> Self {
        Self { ends_on_close: true, ..self }
    }

    /// Connects again up to `attempts` times in a row, with pauses that double from `first_pause` to `longest_pause`.
    #[must_use]
    pub fn reconnects(self, attempts: u32, first_pause: Duration, longest_pause: Duration) -> Self {
        Self { reconnects: Reconnects { attempts, first_pause, longest_pause }, ..self }
    }
}

/// The one split of a socket: how many lines were read, for messages alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSplit {
    address: String,
    lines: u64,
}

impl Split for SocketSplit {
    fn id(&self) -> String {
        self.address.clone()
    }

    fn place(&self) -> String {
        format!("{}, after line {}", self.address, self.lines)
    }
}

impl Source for SocketSource {
    type Out = String;
    type Split = SocketSplit;
    type Reader = SocketReader;

    fn boundedness(&self) -> Boundedness {
        if self.ends_on_close { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn parallelism_limit(&self) -> Option<u32> {
        Some(1)
    }

    fn validate(&self) -> Result<()> {
        let port = self.address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(Error::invalid_job(format!("socket address {:?} is not HOST:PORT", self.address)));
        }
        if self.max_line == 0 {
            return Err(Error::invalid_job("no line fits into 0 bytes: max_line_bytes must be 1 or more"));
        }
        Ok(())
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<SocketSplit>> {
        Ok(vec![SocketSplit { address: self.address.clone(), lines: 0 }])
    }

    async fn open(&self, split: SocketSplit, context: &SourceContext) -> Result<SocketReader> {
        // The peer may have moved since the checkpoint: the program says where it is.
        let split = SocketSplit { address: self.address.clone(), ..split };
        context.env.warn(&format!("source {}: connecting to {}", context.uid, split.address));
        Ok(SocketReader {
            env: context.env.clone(),
            uid: context.uid.clone(),
            source: self.clone(),
            split,
            link: Link::Waiting(context.env.now()),
            failed: 0,
            buffer: Vec::new(),
            at: 0,
            searched: 0,
        })
    }
}

/// How the reader stands with its peer.
enum Link {
    /// The next attempt comes at this time.
    Waiting(Monotonic),
    Connecting(BoxFuture<'static, Result<Box<dyn Connection>>>),
    Connected(Box<dyn Connection>),
    /// The peer has closed; what is left in the buffer is the last line.
    Closed,
}

/// Reads the lines of a connection, and of the ones after it. Whatever takes time is kept here and not in the future, so
/// that `read` is cancel-safe.
pub struct SocketReader {
    env: Env,
    /// The source's uid, for messages.
    uid: Uid,
    source: SocketSource,
    split: SocketSplit,
    link: Link,
    /// Attempts that failed in a row.
    failed: u32,
    buffer: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    /// No line ends between `at` and here.
    searched: usize,
}

impl SocketReader {
    /// Emits the whole lines in the buffer, as far as there is room; returns whether there were any.
    fn emit_lines(&mut self, out: &mut SourceOutput<'_, String>) -> Result<bool> {
        let mut emitted = false;
        while out.room() > 0 {
            let from = self.searched.max(self.at);
            let Some(end) = memchr(b'\n', &self.buffer[from..]).map(|place| from + place) else {
                self.searched = self.buffer.len();
                self.check_length((self.buffer.len() - self.at).saturating_sub(1))?;
                break;
            };
            let text = &self.buffer[self.at..end];
            self.emit_line(text.strip_suffix(b"\r").unwrap_or(text), out)?;
            self.at = end + 1;
            self.split.lines += 1;
            emitted = true;
        }
        if self.at == self.buffer.len() {
            self.discard();
        }
        Ok(emitted)
    }

    fn emit_line(&self, text: &[u8], out: &mut SourceOutput<'_, String>) -> Result<()> {
        self.check_length(text.len())?;
        let line = match str::from_utf8(text) {
            Ok(line) => line.to_owned(),
            Err(_) if self.source.lossy => String::from_utf8_lossy(text).into_owned(),
            Err(error) => {
                return Err(Error::bad_input(format!(
                    "{}: byte {:#04x} of line {} is not UTF-8: send UTF-8, or have such bytes replaced (lossy() \
                     in code)",
                    self.split.address,
                    text[error.valid_up_to()],
                    self.split.lines + 1
                )));
            }
        };
        out.add_bytes(line.len());
        out.emit(line);
        Ok(())
    }

    fn check_length(&self, len: usize) -> Result<()> {
        if len <= self.source.max_line {
            return Ok(());
        }
        Err(Error::bad_input(format!(
            "{}: line {} is longer than {} bytes: send shorter lines, or allow longer ones (max_line_bytes in code)",
            self.split.address,
            self.split.lines + 1,
            self.source.max_line
        )))
    }

    fn discard(&mut self) {
        self.buffer.clear();
        self.at = 0;
        self.searched = 0;
    }

    /// Takes one step towards more bytes.
    async fn advance(&mut self) -> Result<()> {
        match &mut self.link {
            Link::Waiting(until) => {
                let until = *until;
                let wait = until.since(self.env.now());
                if !wait.is_zero() {
                    self.env.sleep(wait).await;
                }
                let (env, address) = (self.env.clone(), self.split.address.clone());
                self.link = Link::Connecting(Box::pin(async move { env.connect(&address).await }));
            }
            Link::Connecting(connecting) => match connecting.await {
                Ok(connection) => {
                    self.env.warn(&format!("source {}: connected to {}", self.uid, self.split.address));
                    self.link = Link::Connected(connection);
                }
                Err(error) => self.fail(error)?,
            },
            Link::Connected(connection) => {
                self.buffer.drain(..self.at);
                self.searched = self.searched.saturating_sub(self.at);
                self.at = 0;
                self.buffer.reserve(CHUNK);
                match connection.read_buf(&mut self.buffer).await {
                    Ok(0) => self.link = Link::Closed,
                    Ok(_) => self.failed = 0,
                    Err(error) => {
                        // Half a line of a broken connection is no line.
                        self.discard();
                        let place = format!("the connection to {} broke", self.split.address);
                        self.fail(Error::io(place, error))?;
                    }
                }
            }
            Link::Closed => {}
        }
        Ok(())
    }

    /// Plans the next attempt, if one is left.
    fn fail(&mut self, error: Error) -> Result<()> {
        self.failed += 1;
        if self.failed > self.source.reconnects.attempts {
            let place = format!("cannot read from {} after {} attempts", self.split.address, self.failed);
            return Err(Error::retryable(place).with_source(error));
        }
        let Reconnects { attempts, .. } = self.source.reconnects;
        let (pause, left) = (self.source.reconnects.pause(self.failed), attempts - self.failed + 1);
        // A peer that starts later than the job is nothing to worry about, and nothing to be silent about.
        self.env
            .warn(&format!("source {}: {error}; tries again in {pause:?}, {left} tries are left", self.uid));
        self.link = Link::Waiting(self.env.now() + pause);
        Ok(())
    }

    /// Emits the last line of a closed connection.
    fn close(&mut self, out: &mut SourceOutput<'_, String>) -> Result<ReadStatus> {
        let last = std::mem::take(&mut self.buffer).split_off(self.at);
        self.discard();
        if !last.is_empty() {
            self.emit_line(&last, out)?;
            self.split.lines += 1;
        }
        if self.source.ends_on_close {
            return Ok(ReadStatus::End);
        }
        self.fail(Error::retryable(format!("{} closed the connection", self.split.address)))?;
        Ok(ReadStatus::More)
    }
}

impl SplitReader for SocketReader {
    type Out = String;
    type Split = SocketSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, String>) -> Result<ReadStatus> {
        while out.room() > 0 {
            if self.emit_lines(out)? {
                return Ok(ReadStatus::More);
            }
            if matches!(self.link, Link::Closed) {
                let had_last = self.at < self.buffer.len();
                let status = self.close(out)?;
                if had_last || status == ReadStatus::End {
                    return Ok(status);
                }
            }
            self.advance().await?;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> SocketSplit {
        self.split.clone()
    }
}
