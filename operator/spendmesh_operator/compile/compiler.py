"""Index to policies and verdicts: `compile_index`. Pure: the same objects give the same digests, in whatever order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from spendmesh_operator.compile.attachment import Level, Placed, applies, overlaps, place
from spendmesh_operator.compile.budgets import budget_spec
from spendmesh_operator.compile.classes import PriceShelf, World
from spendmesh_operator.compile.inheritance import unseen_findings
from spendmesh_operator.compile.isolation import Isolated, compile_isolated, vet
from spendmesh_operator.compile.model import ClassKey, CompiledPolicy, CompileSettings, Finding, Verdict
from spendmesh_operator.compile.providers import provider_findings
from spendmesh_operator.compile.verdicts import Evidence, verdict
from spendmesh_operator.index import NAMESPACE_NAME_LABEL, POLICY_KINDS, Index, ObjectKey, Owner, PodInfo
from spendmesh_operator.manifests import ModelProvider
from spendmesh_operator.prices import BuiltInPrices
from spendmesh_sidecar.core.specs import BudgetSpec


class Compiled:
    """The result of one compilation. Immutable to its users; policies of pods to come are made when asked for."""

    def __init__(self, world: World, last_good: Mapping[ObjectKey, Placed], before: Compiled | None) -> None:
        self._world = world
        self.last_good = last_good
        """The last meaning of each object that compiled."""
        self._classes: dict[ClassKey, Isolated] = {}
        self._class_of: dict[str, ClassKey] = {}
        self._members, self._reaching = _by_reach(world)
        self._before = before
        self._changed = _changed_namespaces(world, before._world) if before is not None else frozenset()
        self.policies: dict[ClassKey, CompiledPolicy] = {}
        """One for each class of known pods."""
        self.verdicts: dict[ObjectKey, Verdict] = {}
        """One for each object."""

    @property
    def price_tables(self) -> Mapping[str, bytes]:
        """Canonical price tables by digest: every one that a policy here names."""
        return self._world.shelf.documents

    def policy_of(self, pod_uid: str) -> CompiledPolicy | None:
        """The policy of a known pod."""
        key = self._class_of.get(pod_uid)
        return self.policies[key] if key is not None else None

    def class_for(self, namespace: str, labels: Mapping[str, str], owners: Sequence[Owner], name: str = "") -> ClassKey:
        """The class of a pod that need not exist yet; `owners` as `Index.owner_chain` gives them."""
        pod = PodInfo(namespace, name, "", labels, tuple(owners))
        labelled = {**self._world.namespaces.get(namespace, {}), NAMESPACE_NAME_LABEL: namespace}
        candidates = (*self._members.get(namespace, ()), *self._reaching)
        return ClassKey(namespace, tuple(sorted(each.key for each in candidates if applies(each, pod, labelled))))

    def policy_for(
        self, namespace: str, labels: Mapping[str, str], owners: Sequence[Owner], name: str = ""
    ) -> CompiledPolicy:
        """The policy of a pod that need not exist yet: the same that it gets once it runs."""
        return self.isolated(self.class_for(namespace, labels, owners, name)).result.compiled

    def isolated(self, key: ClassKey) -> Isolated:
        """A class, compiled at the first question. Where its namespaces are as they were, the last answer stands."""
        if key not in self._classes:
            same = self._changed.isdisjoint({key.namespace, *(each.namespace for each in key.objects)})
            reused = self._before._classes.get(key) if self._before and same else None
            self._classes[key] = reused or compile_isolated(key, self._world, self.last_good)
        return self._classes[key]

    def settle(self, pods: Iterable[PodInfo]) -> dict[ClassKey, list[PodInfo]]:
        """Compile the classes of all known pods."""
        members: defaultdict[ClassKey, list[PodInfo]] = defaultdict(list)
        for pod in pods:
            key = self.class_for(pod.namespace, pod.labels, pod.owners, pod.name)
            self._class_of[pod.uid] = key
            members[key].append(pod)
        self.policies = {key: self.isolated(key).result.compiled for key in sorted(members)}
        return members

    def forget_before(self) -> None:
        """Let go of the compilation before this one, so that they do not pile up."""
        self._before = None

    @property
    def budgets(self) -> dict[ObjectKey, BudgetSpec]:
        """Every readable budget as its author wrote it: what the books remember, and what a status is about."""
        specs = {key: budget_spec(placed) for key, placed in self._world.objects.items()}
        return {key: spec for key, spec in specs.items() if spec is not None}

    @property
    def world(self) -> World:
        """The objects as they are in force."""
        return self._world


def compile_index(
    index: Index,
    settings: CompileSettings,
    prices: BuiltInPrices,
    previous: Compiled | None = None,
    remembered: Mapping[str, BudgetSpec] | None = None,
) -> Compiled:
    """
    Compile everything that the index knows.

    `previous` is the last result: an object that breaks compile keeps the last meaning that did not, and namespaces
    without a change are not compiled again. `remembered`: what the books know of budgets by `namespace/name`, for one
    that is unreadable since before we started.
    """
    entries = index.entries()
    same = previous is not None and previous.world.prices is prices and previous.world.settings == settings
    before = previous if same else None
    shelf = before.world.shelf if before is not None else PriceShelf(prices)
    placed = {entry.key: place(entry, index.operator_namespace) for entry in entries}
    good = previous.last_good if previous is not None else {}
    seen = World(placed, settings, prices, shelf, remembered or {}, index.namespaces(), index.operator_namespace)
    world, broken = vet(seen, good)
    compiled = Compiled(world, good, before)
    members = compiled.settle(index.pods())

    evidence = {
        key: Evidence(cause=broken.get(key, ""), kept=each.manifest is None and each.ref in world.remembered)
        for key, each in placed.items()
    }
    for class_key, pods in members.items():
        _gather(evidence, compiled.isolated(class_key), pods)
    for key in placed:
        if key.kind in POLICY_KINDS and not evidence[key].matched:
            _gather(evidence, compiled.isolated(_hypothetical(key, world)), ())
    for entry in entries:
        manifest = entry.manifest
        alone: tuple[Finding, ...] = ()
        if isinstance(manifest, ModelProvider) and not evidence[entry.key].cause:
            alone = tuple(provider_findings(manifest, index))
        elif placed[entry.key].reach is not None:
            alone = tuple(unseen_findings(settings))
        compiled.verdicts[entry.key] = verdict(
            entry, placed[entry.key], evidence[entry.key], alone, good.get(entry.key)
        )
    compiled.last_good = _good_now(placed, evidence, good)
    compiled.forget_before()
    return compiled


def _gather(evidence: Mapping[ObjectKey, Evidence], isolated: Isolated, pods: Sequence[PodInfo]) -> None:
    result = isolated.result
    for key in {*result.compiled.key.objects, *result.effective}:
        evidence[key].take(key, result, pods)
    for key, cause in isolated.broken.items():
        evidence[key].cause = evidence[key].cause or cause


def _hypothetical(key: ObjectKey, world: World) -> ClassKey:
    """The class of a pod that only this object and those for its whole namespace match: enough without pods."""
    placed = world.objects.get(key)
    attachment = placed.attachment if placed is not None else None
    if placed is None or attachment is None or placed.reach is not None:
        return ClassKey(key.namespace, (key,))
    beside = (
        other.key
        for other in world.objects.values()
        if other.key.namespace == key.namespace
        and other.attachment is not None
        and (other.level is Level.NAMESPACE or (other.level is placed.level and overlaps(other.attachment, attachment)))
    )
    return ClassKey(key.namespace, tuple(sorted({key, *beside})))


def _by_reach(world: World) -> tuple[Mapping[str, Sequence[Placed]], Sequence[Placed]]:
    """Objects that apply to their own namespace, by namespace, and those that reach others."""
    members: defaultdict[str, list[Placed]] = defaultdict(list)
    reaching: list[Placed] = []
    for placed in world.objects.values():
        if placed.reach is not None:
            reaching.append(placed)
        elif placed.attachment is not None:
            members[placed.key.namespace].append(placed)
    return members, reaching


def _changed_namespaces(world: World, before: World) -> frozenset[str]:
    """Namespaces in which some object is not the very one that it was."""

    def signature(each: Placed, of: World) -> tuple[object, ...]:
        kept = of.remembered.get(each.ref) if each.manifest is None else None
        return (each.uid, each.generation, each.created, id(each.manifest), each.attachment, kept)

    now = {key: signature(placed, world) for key, placed in world.objects.items()}
    then = {key: signature(placed, before) for key, placed in before.objects.items()}
    return frozenset(key.namespace for key in now.keys() | then.keys() if now.get(key) != then.get(key))


def _good_now(
    placed: Mapping[ObjectKey, Placed], evidence: Mapping[ObjectKey, Evidence], before: Mapping[ObjectKey, Placed]
) -> dict[ObjectKey, Placed]:
    """What each object meant when it last compiled."""
    good = {key: each for key, each in placed.items() if each.manifest is not None and not evidence[key].cause}
    return {key: before[key] for key in placed if key in before} | good
