"""How much may be retried, by each pod or by all of them together: the part of a RetryBudget that bounds."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field
from pydantic.config import JsonDict

from spendmesh_operator.manifests.common import Currency
from spendmesh_operator.manifests.quantities import WHOLE, DecimalText, DurationText, duration_default
from spendmesh_operator.manifests.rules import Node, Rule

Weight = Annotated[int, Field(ge=1, le=10), WHOLE]
Interval = Annotated[timedelta, DurationText("1s", "1h")]
EMPTY: JsonDict = {"default": {}}
"""The server fills an absent object with the defaults of its fields."""


class RetryShare(Node):
    """Retries in proportion to calls."""

    percent: Annotated[int, Field(ge=0, le=100), WHOLE] = 10
    """Retries for each 100 calls of the interval. 10 means that retries add at most a tenth. Example: 20"""
    interval: Interval = duration_default("30s")
    """Time over which calls are counted, 1s to 1h. Example: 10s"""


class MinRetryRate(Node):
    """Retries that are allowed however few calls there are."""

    count: Annotated[int, Field(ge=0, le=1000), WHOLE] = 1
    """Retries in each interval; 0 for none. Example: 1"""
    interval: Interval = duration_default("10s")
    """The interval, 1s to 1h. Example: 10s"""


class MaxRetryCost(Node):
    """What the retries of one pod may cost. Each is held at its worst case when it is decided, and counts at its real
    cost once that is known."""

    amount: Annotated[Decimal, DecimalText(10**9, positive=True)]
    """The amount, in the currency. A retry at a model without a price in it is not made. Example: "0.50\""""
    currency: Currency
    """ISO 4217 code. Example: USD"""
    interval: Annotated[timedelta, DurationText("1s", "24h")] = duration_default("1h")
    """In any stretch of this length, 1s to 24h, retries cost no more. Example: 1h"""


class RetryConstraint(Node):
    """What may be retried: a share of calls, and a floor for quiet times. With scope Pod each pod has all of it, with
    scope Cluster all pods share it."""

    budget: RetryShare = Field(default_factory=RetryShare, json_schema_extra=EMPTY)
    """Retries in proportion to calls. Example: {percent: 10, interval: 30s}"""
    min_retry_rate: MinRetryRate = Field(default_factory=MinRetryRate, json_schema_extra=EMPTY)
    """Retries that are allowed however few calls there are: of each pod, and with scope Cluster of the WHOLE cluster.
    Example: {count: 1, interval: 10s}"""
    max_retry_cost: MaxRetryCost | None = None
    """What retries may cost; absent: only the ModelBudgets bound it. Example: {amount: "0.50", currency: USD}"""


class Weights(Node):
    """What a retry takes out of the share of calls, by the failure before it: costlier failures are retried less. The
    floor pays for any retry as one."""

    throttled: Weight = 1
    """After a provider throttled (429, 529, 503 with a Retry-After): nothing was served. Example: 1"""
    transient: Weight = 2
    """After a server's error or a connection that failed. Example: 2"""
    timeout: Weight = 3
    """After an answer that did not come in time, which is billed all the same. Example: 3"""


class ClusterShare(Node):
    """How pods lease their shares of a RetryBudget of scope Cluster."""

    RULES = (
        Rule(
            "!has(self.leaseDuration) || !has(self.refreshInterval) || "
            "duration(self.refreshInterval) + duration(self.refreshInterval) <= duration(self.leaseDuration)",
            lambda cluster: cluster.refresh_interval * 2 <= cluster.lease_duration,
            "refreshInterval is more than half of leaseDuration: one lost answer would end a share; write a shorter "
            "refreshInterval or a longer leaseDuration",
            ".refreshInterval",
        ),
    )

    lease_duration: Annotated[timedelta, DurationText("4s", "5m")] = duration_default("15s")
    """How long a share lasts that is not renewed, 4s to 5m; a new leader learns for as long. Example: 15s"""
    refresh_interval: Annotated[timedelta, DurationText("1s", "1m")] = duration_default("5s")
    """How often each pod asks for its share, give or take a fifth, 1s to 1m. Example: 5s"""
    on_lease_expired: Literal["Safe", "Deny"] = "Safe"
    """What a pod may retry whose share ran out because no leader answers: its part of minRetryRate in whole retries,
    or nothing. First tries are never held up. Example: Deny"""
