//! Filling the store at restore: sorted files, which become part of the database as they are.

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use types::Result;

use super::{RocksDbStore, SortedEntries, error::error};

pub(super) fn bulk_load(store: &mut RocksDbStore, entries: &SortedEntries) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let RocksDbStore { db, options, loads: (loads, number), directory, .. } = store;
    let failed = |it: rocksdb::Error| error(directory.path(), "load restored state", &it);
    let path = loads.join(format!("{number}.sst"));
    *number += 1;
    let mut file = SstFileWriter::create(options);
    file.open(&path).map_err(failed)?;
    for (key, value) in entries.iter() {
        file.put(key, value).map_err(failed)?;
    }
    file.finish().map_err(failed)?;
    let mut ingest = IngestExternalFileOptions::default();
    ingest.set_move_files(true);
    db.ingest_external_file_opts(&ingest, vec![path]).map_err(failed)
}
