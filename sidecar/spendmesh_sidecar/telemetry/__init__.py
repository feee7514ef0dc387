"""What leaves the sidecar about its calls, off the request path: spans and counters."""
