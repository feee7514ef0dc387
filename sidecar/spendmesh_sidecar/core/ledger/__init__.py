"""Rights that this sidecar holds, and what each attempt takes from them."""
