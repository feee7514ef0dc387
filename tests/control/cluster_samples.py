"""Policies of one team, as a user applies them."""

POLICIES = """
apiVersion: spendmesh.io/v1alpha1
kind: ModelProvider
metadata: {name: standin}
spec:
  dialect: OpenAI
  baseURL: http://standin.providers.svc:8080/v1
  plaintext: Allow
  auth: {type: APIKey, apiKey: {secretKeyRef: {name: model-keys, key: openai}}}
  prices:
  - model: small-1
    currency: USD
    inputPerMillion: "0.05"
    outputPerMillion: "0.40"
    contextTokens: 128000
    maxOutputTokens: 16384
  - model: medium-1
    currency: USD
    inputPerMillion: "0.25"
    outputPerMillion: "2.00"
    contextTokens: 128000
    maxOutputTokens: 16384
---
apiVersion: spendmesh.io/v1alpha1
kind: RoutingPolicy
metadata: {name: support}
spec:
  mode: Enforce
  podSelector: {matchLabels: {app: support}}
  providers: [{name: openai, ref: {name: standin}}]
  tiers:
  - {name: economy, targets: [{name: small, provider: openai, model: small-1}]}
  - {name: standard, targets: [{name: medium, provider: openai, model: medium-1}]}
  defaultTier: standard
  rules: [{name: extract, when: {tasks: [extract]}, tier: economy}]
---
apiVersion: spendmesh.io/v1alpha1
kind: ModelBudget
metadata: {name: team}
spec:
  limits:
  - {name: monthly, currency: USD, amount: "25.00", window: {type: Calendar, period: Month, timeZone: Europe/Berlin}}
---
apiVersion: spendmesh.io/v1alpha1
kind: RetryBudget
metadata: {name: default}
spec:
  retryConstraint: {budget: {percent: 10, interval: 30s}, minRetryRate: {count: 1, interval: 10s}}
"""
