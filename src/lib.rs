//! Tidegate: a stream processor built around its state. Whatever dies on the way, the visible result is the one that a
//! run without failures would have produced.
//!
//! A job is a Rust program:
//!
//! ```no_run
//! use tidegate::prelude::*;
//!
//! # fn main() -> std::process::ExitCode {
//! let job = Job::new("word-count");
//! job.source("lines", FileSource::lines("books/"))
//!     .flat_map(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
//!     .key_by(String::clone)
//!     .count("count")
//!     .map(|(word, count)| format!("{word}\t{count}"))
//!     .sink("counts", FileSink::lines("counts/"));
//! job.main()
//! # }
//! ```
//!
//! Start it with `--checkpoints DIR`, kill it with `kill -9`, start it again with the same command: the output holds
//! what an undisturbed run would have written.
//!
//! What the command line says about checkpoints, restarts and state can be said in code as well, below it; so can where
//! the job is started, and what it is asked while it runs:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tidegate::prelude::*;
//!
//! async fn count_for_a_while(env: &Env) -> Result<JobResult> {
//!     let job = Job::new("count")
//!         .checkpoints(Checkpoints::every(Duration::from_secs(5)).to("checkpoints/").at_least_once())
//!         .restarts(RestartStrategy::FixedDelay(FixedDelay { attempts: 3, delay: Duration::from_secs(1) }))
//!         .state_backend(Backend::Filesystem)
//!         .rest(RestAddress::Off);
//!     job.source("numbers", GeneratorSource::new(|number| number % 10))
//!         .key_by(|number| *number)
//!         .count("count")
//!         .sink("out", DiscardSink::new());
//!     let handle = job.start(env).await?;
//!     env.sleep(Duration::from_secs(60)).await;
//!     handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await?;
//!     handle.join().await
//! }
//! ```
//!
//! With the feature `test-util`, functions are tested without a runtime, and connectors of your own by kits that kill them
//! at every step (`connectors::conformance`):
//!
#![cfg_attr(feature = "test-util", doc = "```")]
#![cfg_attr(not(feature = "test-util"), doc = "```ignore")]
//! use tidegate::{engine::testing::OperatorHarness, prelude::*};
//!
//! let mut counts = OperatorHarness::new(|words: Stream<String>| words.key_by(String::clone).count("count"));
//! counts.push("tide".to_owned(), Timestamp(0));
//! counts.push("tide".to_owned(), Timestamp(1));
//! assert_eq!(counts.out(), [("tide".to_owned(), 1), ("tide".to_owned(), 2)]);
//! ```

pub use connectors;
pub use engine::{self, checkpoint, env, types};
pub use statebackend;

/// Everything that a program with a job needs: `use tidegate::prelude::*`.
pub mod prelude {
    pub use connectors::{
        collect::CollectSink, collection::CollectionSource, discard::DiscardSink, file_sink::FileSink,
        file_source::FileSource, generator::GeneratorSource, print::PrintSink, socket::SocketSource,
    };
    pub use engine::prelude::*;
}
