"""Shares of retry budgets that all pods of a RetryBudget have in common: pure, in the leader's memory only."""
