//! Job API, graph, operators, tasks, JobManager and TaskManager, recovery, REST.
