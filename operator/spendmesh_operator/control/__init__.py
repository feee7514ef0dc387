"""The server that sidecars talk to: policy down, rights and usage up. Knows nothing of Kubernetes."""
