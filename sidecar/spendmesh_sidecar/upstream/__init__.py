"""The way to a provider: one attempt over kept-alive connections of our own."""
