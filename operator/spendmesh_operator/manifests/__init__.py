"""The kinds of `spendmesh.io/v1alpha1` as typed, immutable values; the source of `crds/`. Knows no Kubernetes client.

`parse` reads one object; `transition_errors` says what an edit may not change; `nanos` gives a decimal in nano-units.
"""

from spendmesh_operator.manifests.attachment import (
    Attachment as Attachment,
    LabelSelector as LabelSelector,
    OrganisationAttachment as OrganisationAttachment,
    PodSelector as PodSelector,
    TargetRef as TargetRef,
)
from spendmesh_operator.manifests.budgetledger import BudgetLedger as BudgetLedger
from spendmesh_operator.manifests.common import (
    API_VERSION as API_VERSION,
    GROUP as GROUP,
    VERSION as VERSION,
    Manifest as Manifest,
)
from spendmesh_operator.manifests.modelbudget import Limit as Limit, ModelBudget as ModelBudget
from spendmesh_operator.manifests.modelprovider import ModelPrice as ModelPrice, ModelProvider as ModelProvider
from spendmesh_operator.manifests.parsing import (
    KINDS as KINDS,
    FieldError as FieldError,
    ManifestError as ManifestError,
    parse as parse,
    placement_errors as placement_errors,
    transition_errors as transition_errors,
)
from spendmesh_operator.manifests.quantities import nanos as nanos
from spendmesh_operator.manifests.retrybudget import RetryBudget as RetryBudget
from spendmesh_operator.manifests.routingpolicy import RoutingPolicy as RoutingPolicy
from spendmesh_operator.manifests.windows import Window as Window
