"""
What a day's failures cost with two policies: a known figure, played by the sidecar's own code.

The figure: of 100,000 requests 5 % fail at first, 60 % of these are malformed, half of all retries succeed, and
back-off recovers 90 % of what is not malformed. An immediate double retry makes 8,750 failed calls of it; error classes
and back-off make 2,200.
"""
