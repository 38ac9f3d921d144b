"""How full the packs are when rows are packed to max_length, and how much is padding when they are not.

Best-fit decreasing as TRL's `pack_dataset(strategy="bfd")` does it (Ding et al. 2024, arXiv:2404.10830): longest row
first, each into the fullest pack that has room. Rows longer than a pack are cut to it, as TRL does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.check import measured
from trainer.data.measure import TEMPLATE_TOKENS, tokenizer_file

BATCH = 1000  # rows that datasets.Dataset.map hands to TRL's packing at a time


@dataclass(frozen=True)
class Packing:
    """Of rows packed to `max_length` tokens: `packs`, the share of them that is `full`, `cut` tokens of long rows.

    `unpacked_full` is the share of a batch of `batch_size` rows that is no padding when nothing is packed.
    """

    rows: int
    tokens: int
    max_length: int
    packs: int
    full: float
    rows_a_pack: float
    cut: int
    long_rows: int
    batch_size: int
    unpacked_full: float


def packing(path: Path, max_length: int, tokenizer: str = "", batch_size: int = 8, seed: int = 42) -> Packing:
    """Measure a file. Tokens are counted with `tokenizer` (a model's folder), without it estimated. Raises UserError."""
    tokenizer = tokenizer_file(tokenizer) if tokenizer else ""
    _, part = measured(Path(path), False, max_length, tokenizer, lambda size: None)
    # A conversation has at least two turns, each with its marks; raw text has none.
    marks = np.where(part.answer_tokens > 0, 2 * TEMPLATE_TOKENS, 0)
    return packed(part.tokens.astype(np.int64) + marks, max_length, batch_size, seed)


def packed(lengths: np.ndarray, max_length: int, batch_size: int = 8, seed: int = 42) -> Packing:
    """The same of token counts a row, int [rows]."""
    fitting = np.minimum(lengths[lengths > 0], max_length)
    packs, tokens = count_packs(fitting, max_length), int(fitting.sum())
    shuffled = np.random.default_rng(seed).permutation(fitting)
    whole = shuffled[: len(shuffled) // batch_size * batch_size].reshape(-1, batch_size) if len(shuffled) >= batch_size else shuffled[None]  # fmt: skip
    return Packing(
        rows=len(fitting),
        tokens=int(lengths.sum()),
        max_length=max_length,
        packs=packs,
        full=tokens / max(1, packs * max_length),
        rows_a_pack=len(fitting) / max(1, packs),
        cut=int(lengths.sum()) - tokens,
        long_rows=int((lengths > max_length).sum()),
        batch_size=batch_size,
        unpacked_full=float(whole.sum() / max(1, (whole.max(axis=1) * whole.shape[1]).sum())),
    )


def count_packs(lengths: np.ndarray, max_length: int) -> int:
    """Packs that TRL makes of lengths of 1 to max_length: it packs BATCH rows at a time, in the file's order."""
    return sum(_best_fit(lengths[at : at + BATCH], max_length) for at in range(0, len(lengths), BATCH))


def _best_fit(lengths: np.ndarray, max_length: int) -> int:
    sizes = np.bincount(lengths, minlength=max_length + 1)
    room = np.zeros(max_length + 1, np.int64)  # room[s]: open packs that have exactly s tokens of room
    packs = 0
    for size in np.flatnonzero(sizes)[::-1].tolist():
        left = int(sizes[size])
        while left:
            fits = np.flatnonzero(room[size:])
            space = size + int(fits[0]) if len(fits) else max_length
            if not len(fits):
                packs += 1
                room[space] += 1
            # The pack with the least room stays that with the least room until no row of this size fits any more.
            taken = min(left, space // size)
            room[space] -= 1
            room[space - taken * size] += 1
            left -= taken
    return packs
