"""The sidecar's write-ahead log as a file."""
