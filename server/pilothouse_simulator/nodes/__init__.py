"""The nodes: kubelets and the pods that live on them, with their logs and usage."""
