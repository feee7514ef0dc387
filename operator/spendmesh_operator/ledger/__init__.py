"""The books of all budgets: pure accounts and leases, durable stores, and the one coordinator that writes them."""
