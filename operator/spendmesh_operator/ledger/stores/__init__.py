"""Where the books are kept; each store is compare-and-swap on sections."""
