//! The keyed updates as one thread does them that uses RocksDB and nothing else: a get and a put for each record.
//! `raw_updates --keys N --records N --memory BYTES [--payload] [--skew] [--fill]`, for `keyed_updates --state rocksdb` at
//! parallelism 1 to be compared with. Prints its figures as JSON.
#![expect(clippy::disallowed_methods, reason = "what it measures is not a job")]

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteBufferManager, WriteOptions};
use tidegate_benches::{
    access::Access,
    figures::{Figures, process_cpu},
    payload::Padded,
};
use types::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sums numbers per key in RocksDB.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    access: Access,
    /// Bytes of memory for blocks and write buffers together
    #[arg(long, default_value_t = 128 << 20)]
    memory: usize,
}

fn main() -> ExitCode {
    tidegate_benches::report(run(&Args::parse()))
}

fn run(args: &Args) -> Result<Figures> {
    let Args { access, memory } = *args;
    let dir = std::env::temp_dir().join(format!("tidegate-raw-{}", std::process::id()));
    let db = DB::open(&options(memory), &dir).map_err(|error| failed(&error))?;
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    let mut began = (Instant::now(), process_cpu());
    for number in 0..access.before() + access.records {
        if number == access.before() {
            began = (Instant::now(), process_cpu());
        }
        let key = access.key(number).to_be_bytes();
        let found = db.get_pinned(key).map_err(|error| failed(&error))?;
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let sum = found.as_deref().map_or(0, word).wrapping_add(number);
        drop(found);
        let put = if access.payload {
            db.put_opt(key, Padded::new(sum).bytes(), &unlogged)
        } else {
            db.put_opt(key, sum.to_le_bytes(), &unlogged)
        };
        put.map_err(|error| failed(&error))?;
    }
    let (seconds, cpu) = (began.0.elapsed(), process_cpu().saturating_sub(began.1));
    drop(db);
    std::fs::remove_dir_all(&dir).map_err(|error| Error::io(dir.display(), error))?;
    Ok(Figures {
        records: access.records,
        seconds: seconds.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        ..Figures::default()
    })
}

/// What the state backend has while indexes and filters fit in this memory, with all of it for itself.
fn options(memory: usize) -> Options {
    let cache = Cache::new_lru_cache(memory);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_block_size(4 << 10);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        memory / 2,
        false,
        cache,
    ));
    options.set_write_buffer_size((memory / 4).min(64 << 20));
    options.set_target_file_size_base(8 << 20);
    options.set_level_zero_file_num_compaction_trigger(6);
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_memtable_whole_key_filtering(true);
    options.create_if_missing(true);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options.set_max_background_jobs(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

fn failed(error: &rocksdb::Error) -> Error {
    Error::unavailable(error.to_string())
}
