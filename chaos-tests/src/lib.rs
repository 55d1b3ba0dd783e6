//! Simulation, oracle, fault injection and real-process kills.
