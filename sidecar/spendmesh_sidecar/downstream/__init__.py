"""The way to the application: requests in within limits, answers out, also to those who join a call."""
