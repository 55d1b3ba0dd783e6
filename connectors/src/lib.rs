//! Sources and two-phase-commit sinks, one folder per outside system.
