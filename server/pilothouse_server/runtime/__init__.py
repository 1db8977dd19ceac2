"""Parts of every process: tasks, supervision, scheduler, log lines, tuning."""
