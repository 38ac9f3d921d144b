"""Rare labels drawn more often: class weights through sampling, so that every loss stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from trainer.config import RunConfig, UserError


def balanced(trainer: Any, labels: list[str], config: RunConfig) -> None:
    """Let `trainer` draw its rows, whose labels these are, with weights 1 / count ** class_balance.

    An epoch is as long as before; its draw follows from the seed and its number, so a resumed run draws the same.
    Raises UserError where rows were dropped or joined, so that the labels no longer match.
    """
    if len(labels) != len(trainer.train_dataset):
        raise UserError(
            "class_balance: some rows lost their answer to max_length; raise max_length or set class_balance to 0"
        )
    sampler = Sampler(weights(labels, config.class_balance), config.seed)
    trainer._get_train_sampler = lambda dataset=None: sampler


def weights(labels: list[str], balance: float) -> list[float]:
    """The weight of each row; balance 1 makes all labels equally likely, 0 all rows."""
    counts = Counter(labels)
    return [counts[label] ** -balance for label in labels]


class Sampler:
    """Row numbers drawn with replacement; `set_epoch` is called by accelerate before each epoch."""

    def __init__(self, weights: list[float], seed: int) -> None:
        self.weights, self.seed, self.epoch = weights, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        import torch

        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        draw = torch.multinomial(torch.tensor(self.weights), len(self), replacement=True, generator=generator)
        return iter(draw.tolist())
