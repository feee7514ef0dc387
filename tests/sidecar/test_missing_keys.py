"""Keys come and go while a sidecar runs: the control plane hears which are missing, without a restart or an edit."""

from __future__ import annotations

import pytest

from sidecar_beside import eventually
from sidecar_world import ANTHROPIC_KEY, OPENAI_KEY, POD, World
from spendmesh_sidecar.keys import StaticKeys

pytestmark = pytest.mark.anyio


async def test_a_key_that_comes_or_goes_is_told_with_the_policy_that_is_in_force(world: World) -> None:
    """A status must not ask for a Secret that was created since, nor hide that one was deleted."""
    await world.stop_sidecar()
    keys = StaticKeys({"anthropic": ANTHROPIC_KEY})
    await world.start_sidecar(keys=keys)
    uid, hub = POD.identity.uid, world.control.hub
    await eventually(lambda: "openai" in hub.missing_keys().get(uid, ()))
    keys.replace({"anthropic": ANTHROPIC_KEY, "openai": OPENAI_KEY, "backup": OPENAI_KEY})
    await eventually(lambda: not hub.missing_keys())
    keys.replace({"openai": OPENAI_KEY, "backup": OPENAI_KEY})
    await eventually(lambda: hub.missing_keys().get(uid) == ("anthropic",))
    await world.programmed()
