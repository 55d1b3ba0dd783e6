//! Filling the store at restore: sorted files, which become part of the database as they are.

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use types::Result;

use super::{RocksDbStore, SortedEntries, error::error, layout};

pub(super) fn bulk_load(store: &mut RocksDbStore, entries: &SortedEntries) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let RocksDbStore { db, options, layout, loads: (loads, number), directory, .. } = store;
    let failed = |it: rocksdb::Error| error(directory.path(), "load restored state", &it);
    let (bytes, mut paths) = (entries.bytes(), Vec::new());
    let mut entries = entries.iter().peekable();
    while entries.peek().is_some() {
        let path = loads.join(format!("{number}.sst"));
        *number += 1;
        let mut file = SstFileWriter::create(options);
        file.open(&path).map_err(failed)?;
        let mut len = 0;
        while len < layout.file_len()
            && let Some((key, value)) = entries.next()
        {
            file.put(key, value).map_err(failed)?;
            len += (key.len() + value.len()) as u64;
        }
        file.finish().map_err(failed)?;
        paths.push(path);
    }
    let mut ingest = IngestExternalFileOptions::default();
    ingest.set_move_files(true);
    db.ingest_external_file_opts(&ingest, paths).map_err(failed)?;
    layout::on_changed(store, bytes)
}
