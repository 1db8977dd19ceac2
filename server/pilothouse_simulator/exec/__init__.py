"""The shell behind `kubectl exec`: its grammar, its tools, its processes."""
