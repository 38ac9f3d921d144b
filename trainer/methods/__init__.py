"""METHODS: every training method that runs today, one entry a name. Adding one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.config import UserError
from trainer.data.convert import SHAPES
from trainer.methods import preference, sft, unpaired


@dataclass(frozen=True)
class MethodEntry:
    """`build(config, model, tokenizer, train, evaluation, output, device, callbacks)` gives a TRL trainer.

    `shape` is what its rows look like (see data/convert.py), `status` how settled the library class is.
    """

    build: Callable[..., Any]
    shape: str
    library: str
    status: str


METHODS: dict[str, MethodEntry] = {
    "sft": MethodEntry(sft.build, SHAPES["sft"], "trl.SFTTrainer", "stable"),
    "cpt": MethodEntry(sft.build, SHAPES["cpt"], "trl.SFTTrainer", "stable"),
    "dpo": MethodEntry(preference.build_dpo, SHAPES["dpo"], "trl.DPOTrainer", "stable"),
    "orpo": MethodEntry(
        preference.build_orpo, SHAPES["orpo"], "trl.experimental.orpo.ORPOTrainer", "experimental"
    ),
    "simpo": MethodEntry(
        preference.build_simpo, SHAPES["simpo"], "trl.experimental.cpo.CPOTrainer", "experimental"
    ),
    "kto": MethodEntry(unpaired.build, SHAPES["kto"], "trl.KTOTrainer", "stable"),
}


def require_trainable(name: str) -> MethodEntry:
    """The entry of a method. Raises UserError that lists what can be trained now."""
    if name not in METHODS:
        raise UserError(f"method = {name!r}: cannot be trained yet; choose one of: {', '.join(METHODS)}")
    return METHODS[name]
