//! Barrier protocol, coordinator, job history, manifests, collection and savepoints.
