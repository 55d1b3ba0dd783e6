//! The way to the world: clock, randomness, tasks, channels, files and stores, real and simulated.
