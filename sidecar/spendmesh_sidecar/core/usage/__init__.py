"""Usage out of the bytes of an answer, while they pass."""
