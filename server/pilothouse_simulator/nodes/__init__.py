"""The nodes: kubelets and the pods that run on them, with their logs and usage."""
