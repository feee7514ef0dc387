"""The accounts and leases of all budgets, and the only operations that may change them: pure."""
