"""The needs of every process: tasks, supervision, the cooperative scheduler, log lines, tuning."""
