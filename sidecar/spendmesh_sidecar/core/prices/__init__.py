"""Money and prices as integers."""
