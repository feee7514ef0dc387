"""What a failure means and what follows from it: hints, retries within their budget, breakers, concurrency."""
