//! The named fault points: one table, fired by tests, nothing but a call that returns at once in production.

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A place in the code where a test can make the process die or a call fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultPoint {
            $($(#[$doc])* $name,)*
        }

        impl FaultPoint {
            /// All points, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name under which a test arms the point.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

points! {
    /// A task has read records or a mark, and has not worked on them.
    ReadAfter = "read.after",
    /// A task is cut at a barrier: its tables have flipped, and the barrier is not passed on.
    CutAfter = "cut.after",
    /// A task is about to drain a few of the cells that were cut.
    DrainBefore = "drain.before",
    /// A run is sealed, its file not yet written.
    RunUploadBefore = "run-upload.before",
    /// A run's file is durable, not yet acknowledged.
    RunUploadAfter = "run-upload.after",
    /// Neighbouring runs are about to be merged.
    MergeBefore = "merge.before",
    /// A merged run is durable, not yet in any list.
    MergeAfter = "merge.after",
    /// A sink's transaction is about to be prepared.
    PrepareBefore = "prepare.before",
    /// A sink's transaction is prepared, not yet acknowledged.
    PrepareAfter = "prepare.after",
    /// All acknowledgements are in, the manifest not yet written.
    ManifestBefore = "manifest.before",
    /// The manifest is durable, the history record not yet created.
    ManifestAfter = "manifest.after",
    /// A "checkpoint completed" record is about to be created.
    CompletedRecordBefore = "completed-record.before",
    /// A "checkpoint completed" record is created, nobody told.
    CompletedRecordAfter = "completed-record.after",
    /// A file of the sink is about to be published.
    PublishBefore = "publish.before",
    /// A file of the sink is published, its directory not yet synced.
    PublishAfter = "publish.after",
    /// All sinks have committed, "sinks confirmed" not yet recorded.
    ConfirmBefore = "confirm.before",
    /// "Sinks confirmed" is recorded.
    ConfirmAfter = "confirm.after",
    /// The last checkpoint of a job that ends is about to be triggered.
    LastCheckpointBefore = "last-checkpoint.before",
    /// The last checkpoint is committed, the end not yet recorded.
    LastCheckpointAfter = "last-checkpoint.after",
    /// A "finished" or "stopped" record is about to be created.
    FinishedRecordBefore = "finished-record.before",
    /// A "finished" or "stopped" record is created, the process still alive.
    FinishedRecordAfter = "finished-record.after",
    /// An attempt's start record is about to be created.
    StartRecordBefore = "start-record.before",
    /// An attempt's start record is created, nothing restored.
    StartRecordAfter = "start-record.after",
    /// The working state that a dead process left on disk is about to be removed.
    DeadStateBefore = "dead-state.before",
    /// The working state of a dead process is removed, but for the lock that says so.
    DeadStateAfter = "dead-state.after",
    /// An operator's subtask is about to get its keyed state back.
    RestoreBefore = "restore.before",
    /// A part of what the runs hold is read back.
    RestoreAmid = "restore.amid",
    /// A task has all its state back, and has not yet said that it runs.
    RestoreAfter = "restore.after",
    /// A store is about to be opened; its directory may not be there.
    StoreOpenBefore = "store-open.before",
    /// A store is open and empty.
    StoreOpenAfter = "store-open.after",
    /// Restored state is about to be loaded into a store.
    StoreLoadBefore = "store-load.before",
    /// Restored state is loaded into a store; more may follow.
    StoreLoadAfter = "store-load.after",
    /// A store is about to be asked for what is not in the table.
    StoreReadBefore = "store-read.before",
    /// Changes are about to be written into a store.
    StoreWriteBefore = "store-write.before",
    /// Changes are written into a store, nobody told.
    StoreWriteAfter = "store-write.after",
    /// A garbage record is about to be created.
    GarbageRecordBefore = "garbage-record.before",
    /// A garbage record is created, nothing deleted.
    GarbageRecordAfter = "garbage-record.after",
    /// A file named by a garbage record, or of a savepoint that is to go, is about to be deleted.
    DeleteBefore = "delete.before",
    /// A file named by a garbage record, or of a savepoint that is to go, is deleted.
    DeleteAfter = "delete.after",
    /// A savepoint's files are about to be copied.
    SavepointCopyBefore = "savepoint-copy.before",
    /// What a savepoint holds of one subtask is copied.
    SavepointCopyAmid = "savepoint-copy.amid",
    /// A savepoint is whole, "savepoint completed" not yet recorded.
    SavepointCopyAfter = "savepoint-copy.after",
}
