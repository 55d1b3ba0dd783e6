//! The file sink: the conformance kit, and what is its own (names, rolling, damage, ownership).

use std::{
    io,
    path::{Path, PathBuf},
};

use env::{Env, sim::Simulation};
use tidegate_connectors::{
    FileSink,
    conformance::{SinkSubject, crash, kill, sink},
};
use types::{Error, Result};

/// Lines in files that roll at `ROLL` bytes.
struct Lines<const ROLL: u64> {
    dir: PathBuf,
}

/// Files of a few lines, so that a transaction has several.
type Few = Lines<7>;
/// Files of more than a buffer.
type Many = Lines<1_200_000>;

impl<const ROLL: u64> SinkSubject for Lines<ROLL> {
    type Sink = FileSink<u64>;

    fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn sink(&self) -> FileSink<u64> {
        FileSink::lines(&self.dir).roll_at(ROLL)
    }

    fn record(&self, number: u64) -> u64 {
        number
    }

    async fn visible(&self, env: &Env) -> Result<Vec<u64>> {
        let (dir, files) = (self.dir.clone(), env.files());
        let read = move || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for path in published(&*files, &dir)? {
                let text = read(&*files, &path)?;
                numbers.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
            }
            Ok(numbers)
        };
        env.blocking("reader", read).await?.map_err(|error| Error::io("the output", error))
    }
}

/// The published files; none if there is no directory.
fn published(files: &dyn env::Files, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = match files.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"));
    Ok(paths)
}

fn read(files: &dyn env::Files, path: &Path) -> io::Result<String> {
    let file = files.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += file.read_at(filled as u64, &mut bytes[filled..])?;
    }
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn survives_power_failures_and_failed_syncs_everywhere() {
    for seed in 0..6 {
        let crashes = crash::everywhere::<Few>(seed);
        println!("seed {seed}: {crashes:?}");
    }
}

#[test]
fn keeps_the_contract_on_a_simulated_disk() {
    for seed in 0..20 {
        Simulation::new(seed).run(async |env| sink::contract::<Many>(&env, Path::new("/out")).await);
    }
}

#[test]
fn child() {
    kill::child::<Few>();
}

#[test]
fn survives_kills_everywhere() {
    // A killed process loses nothing that it has written: memory will do for a disk, and syncs cost nothing there.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let kills = kill::everywhere::<Few>("file_sink::child", dir.path());
    println!("{kills:?}");
    assert!(kills.at_publish > 0, "{kills:?}");
}

#[test]
fn keeps_the_contract_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { sink::contract::<Many>(&Env::real(), dir.path()).await });
}
