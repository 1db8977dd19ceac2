"""The shell that answers `kubectl exec`: its grammar, its tools, the processes it shows."""
