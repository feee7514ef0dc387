"""
Which page of the stored books holds what, and which pages have changed since they were last written. Pure.

What is once in a page stays in it: a page can then be written alone, without saying anything about another one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Pages(Generic[K]):
    """Keys in pages of at most `most` keys. Page 0 is always there."""

    def __init__(self, most: int) -> None:
        self.changed: set[int] = set()
        """Pages that must be written again."""
        self._most = most
        self._page_of: dict[K, int] = {}
        self._keys: list[dict[K, None]] = [{}]

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self, page: int) -> Iterator[K]:
        """What a page holds, oldest first."""
        return iter(self._keys[page])

    def page_of(self, key: K) -> int:
        """The page of a key. Raises KeyError."""
        return self._page_of[key]

    def note(self, key: K) -> None:
        """A key is new, or what it stands for has changed."""
        page = self._page_of.get(key)
        if page is None:
            page = self._roomy()
            self.place(key, page)
        self.changed.add(page)

    def place(self, key: K, page: int) -> None:
        """Put a key where the stored books have it."""
        self.reach(page)
        self._page_of[key] = page
        self._keys[page][key] = None

    def reach(self, page: int) -> None:
        """The stored books have this page, perhaps without a key: a page that is stored is one that can be dropped."""
        while len(self._keys) <= page:
            self._keys.append({})

    def remove(self, key: K) -> int:
        """Take a key out. Answers the page that it was in, which has changed. Raises KeyError."""
        page = self._page_of.pop(key)
        del self._keys[page][key]
        self.changed.add(page)
        return page

    def mark_all(self) -> None:
        """Every page must be written."""
        self.changed.update(range(len(self._keys)))

    def take_changed(self) -> list[int]:
        """Pages to write now, in order; they no longer count as changed."""
        changed = sorted(self.changed)
        self.changed.clear()
        return changed

    def _roomy(self) -> int:
        for page, keys in enumerate(self._keys):
            if len(keys) < self._most:
                return page
        return len(self._keys)
