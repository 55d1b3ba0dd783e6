//! [`Env`], the handle that is passed everywhere, and [`World`], what stands behind it.

use std::{fmt, future::Future, ops, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
};
use types::{Error, Result, Timestamp};

use crate::{FaultPoint, Files, MemoryLimit, Store, store::MemoryStore};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The random generator handed out by [`Env::rng`].
pub type Rng = rand_chacha::ChaCha12Rng;

/// A point on the monotonic clock: the time since an arbitrary start of the [`Env`]. Never jumps, never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The time from `earlier` to this point; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl ops::Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// A byte stream to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A socket that accepts connections.
pub enum Listener {
    /// A real TCP listener, bound to a loopback or other address.
    Tcp(tokio::net::TcpListener),
    /// The simulated network: connections come through this channel.
    Simulated(tokio::sync::mpsc::Receiver<Box<dyn Connection>>),
}

impl Listener {
    /// The address at which it really listens: the port is known also where 0 was asked for. `None` in simulation,
    /// where it is the one asked for.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.to_string()),
            Self::Simulated(_) => None,
        }
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// `Retryable`: this connection failed, the next may not. `Unavailable`: the network is gone.
    pub async fn accept(&mut self) -> Result<Box<dyn Connection>> {
        match self {
            Self::Tcp(listener) => {
                let failed = |error| Error::io("cannot accept a connection", error);
                let (stream, _) = listener.accept().await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Ok(Box::new(stream))
            }
            Self::Simulated(incoming) => {
                incoming.recv().await.ok_or_else(|| Error::unavailable("the simulated network is gone"))
            }
        }
    }
}

/// Waits for a tokio task; a panic or an abort becomes an error.
pub(crate) async fn joined(name: String, task: tokio::task::JoinHandle<()>) -> Result<()> {
    task.await.map_err(|error| match error.try_into_panic() {
        Ok(payload) => panicked(&name, &*payload),
        Err(_) => Error::cancelled(format!("{name} was aborted")),
    })
}

/// The error that a panic becomes.
pub(crate) fn panicked(name: &str, payload: &(dyn std::any::Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text");
    Error::internal(format!("{name} panicked: {text}"))
}

/// What an [`Env`] stands for. Two implementations: real and simulated.
pub trait World: Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Monotonic;
    /// The wall clock. It may jump; never use it to measure a time span.
    fn wall(&self) -> Timestamp;
    /// The processor time that the calling thread has used so far: only for the difference of two calls on one thread.
    fn thread_cpu(&self) -> Duration;
    /// Ready after `span` on the monotonic clock.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
    /// A seed of its own for each `name`: from the one seed in simulation, from the operating system otherwise.
    fn seed(&self, name: &str) -> [u8; 32];
    /// Runs a task; `name` appears in traces. The task ends when its [`TaskHandle`] is aborted.
    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle;
    /// Runs a task that calls functions of the user's, see [`Env::spawn_user`].
    fn spawn_user(&self, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle {
        self.spawn(name, task)
    }
    /// Runs `work`, which may block or compute for long, away from the tasks. In simulation: inline, after a virtual
    /// delay. The work goes on when the future is dropped.
    fn run_blocking(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<()>>;
    /// Lets other tasks run. In simulation sometimes several times (seeded), otherwise at most once.
    fn yield_now(&self) -> BoxFuture<'static, ()>;
    /// In simulation: sometimes, seeded, yields; channels call it at each send and receive. Real: ready at once.
    fn maybe_yield(&self) -> Option<BoxFuture<'static, ()>>;
    /// The local file system.
    fn files(&self) -> Arc<dyn Files>;
    /// Opens the store at a URL (`file:///path`, a plain path, `s3://bucket/prefix`, `memory:NAME`).
    ///
    /// # Errors
    /// `InvalidJob` for an unknown scheme, `Unavailable` if it cannot be reached.
    fn open_store(&self, url: &str) -> Result<Arc<dyn Store>>;
    /// Connects to `HOST:PORT`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Box<dyn Connection>>>;
    /// Listens at `HOST:PORT`. Only the real world has sockets that strangers can reach.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>>;
    /// The value of an environment variable.
    fn var(&self, name: &str) -> Option<String>;
    /// The names of all environment variables that begin with `prefix`, in order.
    fn vars(&self, prefix: &str) -> Vec<String>;
    /// Writes one line to standard output, and nothing of it stays behind. A reader that has gone away (`| head`) is no
    /// reason to fail.
    ///
    /// # Errors
    /// What the operating system says: the disk is full, say.
    fn print(&self, line: &str) -> Result<()>;
    /// Writes one line to standard error.
    fn warn(&self, line: &str);
    /// The number of this process.
    fn process_id(&self) -> u32;
    /// Called at each named fault point. Returns `Ok` at once unless a test has armed it.
    ///
    /// # Errors
    /// What the armed fault says.
    fn fault(&self, point: FaultPoint) -> Result<()>;
}

/// The handle through which everything reaches the world. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    world: Arc<dyn World>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl ops::Deref for Env {
    type Target = dyn World;
    fn deref(&self) -> &Self::Target {
        &*self.world
    }
}

impl Env {
    /// A handle to `world`.
    pub fn new(world: impl World) -> Self {
        Self { world: Arc::new(world) }
    }

    /// The real world. Tasks run on the tokio runtime in whose context this is called, all of them.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn real() -> Self {
        Self::real_with(Handle::current())
    }

    /// The real world. Tasks that call functions of the user's run on the runtime `users`, all others on the one in whose
    /// context this is called: functions that keep every thread of `users` keep nobody else.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn real_with(users: Handle) -> Self {
        Self::new(crate::real::RealWorld::new(users))
    }

    /// A store in memory that nobody else can open: gone when its last user lets go of it.
    #[must_use]
    pub fn private_store(&self, limit: Option<MemoryLimit>) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new("private").with_limit(limit))
    }

    /// A random generator of its own for `name`; the same name gives the same numbers under the same seed.
    #[must_use]
    pub fn rng(&self, name: &str) -> Rng {
        rand::SeedableRng::from_seed(self.world.seed(name))
    }

    /// Runs a task, see [`World::spawn`].
    pub fn spawn_task(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.world.spawn(name, Box::pin(task))
    }

    /// Runs a task that calls functions of the user's, which may keep their thread for as long as they like: away from
    /// what the job's control needs, where the world has threads of their own for them.
    pub fn spawn_user(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.world.spawn_user(name, Box::pin(task))
    }

    /// Runs `work` away from the tasks and gives back what it returns.
    ///
    /// # Errors
    /// `Internal` if the work panicked; the message holds the panic's text.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let work = Box::new(move || drop(sender.send(work())));
        self.world.run_blocking(name, work).await?;
        receiver.await.map_err(|_| Error::internal(format!("{name} ended without a result")))
    }

    /// `future`'s result, or `None` if `span` went by first.
    pub async fn timeout<T>(&self, span: Duration, future: impl Future<Output = T>) -> Option<T> {
        let deadline = self.world.sleep(span);
        tokio::select! {
            biased;
            result = future => Some(result),
            () = deadline => None,
        }
    }
}

/// A spawned task. Dropping the handle lets the task run on.
pub struct TaskHandle {
    pub(crate) abort: Box<dyn Fn() + Send + Sync>,
    pub(crate) joined: BoxFuture<'static, Result<()>>,
}

impl TaskHandle {
    /// Ends the task at its next await; does nothing if it has ended.
    pub fn abort(&self) {
        (self.abort)();
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// `Internal` with the panic's text if it panicked, `Cancelled` if it was aborted.
    pub async fn join(self) -> Result<()> {
        self.joined.await
    }
}
