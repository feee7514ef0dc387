"""
Everything that touches Kubernetes. The rest of the operator gets plain dicts and runs without a cluster.

    client          the one place that knows the client library: requests, errors, login
    paths           where objects live in the API
    informer        kopf as an informer: what is there now, and what changed
    kopf_sessions   its connections
    election        which replica leads, by a Lease
    ledger_store    the books in one BudgetLedger object
    tokenreview     whose token is this
    status_writer   conditions and numbers on users' objects (leader only)
    events          Events on change (leader only)
    certificates    the serving certificate and its authority: when, and how (pure)
    certificate_keeper   the same in a cluster: Secret, webhook's caBundle, live TLS
"""
