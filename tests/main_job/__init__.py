"""The main job, end to end: log in, namespace, application, watch, usage, lifecycle, audit."""
