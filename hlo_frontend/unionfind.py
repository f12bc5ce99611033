"""Disjoint sets of the numbers 0, 1, 2, ..."""

from __future__ import annotations


class UnionFind:
    """Disjoint sets; the representative of a set is the one that `join` names first."""

    def __init__(self, size: int = 0) -> None:
        self._parent = list(range(size))

    def add(self) -> int:
        """Adds a set of one new number, which it returns."""
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def find(self, number: int) -> int:
        """The representative of the set of `number`."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(self, keep: int, other: int) -> None:
        """Unites two sets; the representative is that of `keep`."""
        self._parent[self.find(other)] = self.find(keep)
