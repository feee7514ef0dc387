"""What follows from a policy alone is worked out once for it, and never taken for another policy's."""

from __future__ import annotations

from spendmesh_sidecar.core.once import MAX_KEPT, once


def test_the_same_object_is_derived_once() -> None:
    asked: list[list[int]] = []
    total = once(lambda numbers: asked.append(numbers) or sum(numbers))
    numbers = [1, 2]
    assert (total(numbers), total(numbers), len(asked)) == (3, 3, 1)


def test_an_equal_object_or_one_in_the_place_of_a_dead_one_is_another() -> None:
    """A result keeps its source alive, so that no later object can be mistaken for it by its address."""
    count = once(len)
    for size in range(3 * MAX_KEPT):
        assert count(["x"] * size) == size


def test_old_policies_are_let_go() -> None:
    class Source:
        alive = 0

        def __init__(self) -> None:
            Source.alive += 1

        def __del__(self) -> None:
            Source.alive -= 1

    name = once(lambda source: type(source).__name__)
    for _ in range(5 * MAX_KEPT):
        name(Source())
        assert Source.alive <= MAX_KEPT
