"""Calls that get the answer of another one: which, and what is kept for that."""
