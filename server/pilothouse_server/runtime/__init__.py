"""What every process needs, whatever it serves: tasks, supervision, the cooperative scheduler, log lines, tuning."""
