"""
What a pod gets when it is born under Spendmesh: a pure function from pod to JSON patch, or to a reason why not.

The webhook and `spendmesh inject` call the same `mutate`, so that both give the same pod. Nothing here reads a
cluster, a file or a clock.

    names      what we call things in other people's pods
    additions  the sidecar container, its volumes
    wiring     environment of the application's containers
    conflicts  what cannot work, and what carries our names already
    mutate     the decision, and the patch
"""

from spendmesh_operator.injection.additions import InjectionConfig, ProviderKey
from spendmesh_operator.injection.mutate import Decision, Injected, LeftAlone, Refused, debug, mutate

__all__ = ["Decision", "Injected", "InjectionConfig", "LeftAlone", "ProviderKey", "Refused", "debug", "mutate"]
