"""
What a client asked: route, strict reading, field tables, the few changes that a request may see.

Pure. Knows the dialects' wire and nothing of policy, providers' addresses or I/O.
"""

from spendmesh_sidecar.core.operations.errors import RequestError
from spendmesh_sidecar.core.operations.parse import parse_request
from spendmesh_sidecar.core.operations.rewrite import rewrite
from spendmesh_sidecar.core.operations.routes import Route, parse

__all__ = ["RequestError", "Route", "parse", "parse_request", "rewrite"]
