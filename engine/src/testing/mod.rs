//! What users and our own tests need to try functions without a cluster.
