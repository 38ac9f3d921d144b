"""One number a row of a file of any size: an array that grows where it stands, so that it is never held twice."""

from __future__ import annotations

import numpy as np


class Column:
    """Rows of `dtype`, each of `width` numbers (0: one plain number); add() at the end, `values` are all of them."""

    def __init__(self, dtype: type, width: int = 0) -> None:
        self._held = np.empty((0, width) if width else 0, dtype)
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        end = self._count + len(rows)
        if end > len(self._held):
            # realloc moves the pages of a large array and copies none; it needs that nobody else holds the array
            self._held.resize((max(end, len(self._held) * 5 // 4), *self._held.shape[1:]), refcheck=False)
        self._held[self._count : end] = rows
        self._count = end

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> np.ndarray:
        """A view, good until the next add()."""
        return self._held[: self._count]
