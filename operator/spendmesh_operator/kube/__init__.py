"""
Everything that touches Kubernetes. The rest of the operator gets plain dicts and runs without a cluster.

    client          the one place that knows the client library: requests, errors, login
    paths           where objects live in the API
    informer        kopf as an informer: what is there now, and what changed
    election        which replica leads, by a Lease
    ledger_store    the books in one BudgetLedger object
    tokenreview     whose token is this
    status_writer   conditions and numbers on users' objects (leader only)
    events          Events on change (leader only)
    certificates    the serving certificate, its authority and the webhook's caBundle
"""
