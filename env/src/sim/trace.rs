//! What happened in a simulation, as a rolling hash and the last events: equal seeds give equal hashes.

use std::collections::VecDeque;

use crate::Monotonic;

/// How many events are kept for reading.
const KEPT: usize = 10_000;

#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    last: VecDeque<String>,
}

impl Trace {
    pub(super) fn add(&mut self, now: Monotonic, process: &str, event: &str) {
        let line = format!("{:>12} {process}: {event}", now.0.as_nanos() / 1_000);
        let mut bytes = self.hash.to_le_bytes().to_vec();
        bytes.extend_from_slice(line.as_bytes());
        self.hash = types::key_hash(&bytes);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
