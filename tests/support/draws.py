"""Draws of one seed, of which random inputs are made, and the seeds that a test takes."""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any


def seeds(by_default: str) -> range:
    """`FIRST-LAST`, or one alone; those of DEVMESH_SEEDS where that is set."""
    first, _, last = os.environ.get("DEVMESH_SEEDS", by_default).partition("-")
    return range(int(first), int(last or first) + 1)


class Draws:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def _any(self, *of: Any) -> Any:
        return self._rng.choice(of)

    def _some(self, of: Sequence[Any], most: int) -> list[Any]:
        return self._rng.sample(of, self._rng.randint(1, most))

    def _maybe(self, share: float) -> bool:
        return self._rng.random() < share

    def _with(self, **fields: tuple[float, Callable[[], Any]]) -> dict[str, Any]:
        """Each field with its share of the cases; empty values are left out."""
        given = {name: make() for name, (share, make) in fields.items() if self._maybe(share)}
        return {name: value for name, value in given.items() if value not in ({}, [])}
