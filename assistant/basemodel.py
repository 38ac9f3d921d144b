"""Which base model, how its weights are trained, and how many rows at once: the largest plan that fits.

Called by `recommend.py` once decision and method are known. The rules say what is wanted (families, kinds, a
target size, which adapters when); here the table of models is searched and the memory reckoned.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from assistant.rules import decide
from kb.facts import ModelCard, table
from trainer.config import STARTER
from trainer.estimate import (
    BF16,
    FP32,
    PAIRED,
    Shape,
    Stack,
    adapter_params,
    cpu_stack,
    memory,
    starter_shape,
)


@dataclass(frozen=True)
class Candidate:
    """A base model that can be planned: what `base_model` is set to, its sizes, its card if the table has one.

    `guessed`: neither the table nor the name tells how large it is.
    """

    hub: str
    shape: Any
    card: ModelCard | None
    guessed: bool = False


def named_model(facts: dict[str, Any]) -> Candidate | None:
    """The model that the person named, or one of the size they named; None where they did neither.

    A model that the table does not hold gets the proportions of the nearest one at the size its name tells.
    """
    wanted = facts["wanted_model"] or facts["base_model_given"]
    size = facts["wanted_model_b"] or (None if facts["wanted_model"] else facts["base_model_b"])
    if wanted:
        if card := find_card(wanted):
            return Candidate(card.hub_id, card, card)
        size = size or size_in_name(wanted)
        known = decide("named_b", facts)
        guessed = size is None and not known.rule.when
        size = size or known.value
        return Candidate(wanted, scaled(nearest(size), size), None, guessed)
    if size is None:
        return None
    card = nearest(size, facts)
    if abs(card.params_b - size) < 0.4 * size:
        return Candidate(card.hub_id, card, card)
    return Candidate(f"{size:g}B", scaled(card, size), None)


def starter(facts: dict[str, Any]) -> Candidate:
    """The starter model at the size that the rules give it."""
    sizes = {
        name: decide(name, facts).value
        for name in ("starter_hidden_size", "starter_layers", "starter_vocab_size")
    }
    return Candidate(STARTER, starter_shape(*sizes.values()), None)


def candidates(facts: dict[str, Any]) -> list[Candidate]:
    """Models of the wanted families and kinds up to the target size, largest first, preferred kind first."""
    kinds: list[str] = facts["kinds"]
    cards = [
        card
        for card in table("models")
        if card.family in facts["families"]
        and card.kind in kinds
        and not card.experts
        and knows(card, facts["language"])
        and (not card.superseded_by or _replaced_by_other_kind(card, kinds))
    ]
    cards = [card for card in cards if card.context >= facts["length_needed"]] or cards
    smallest = min(cards, key=lambda card: card.params_b)
    fitting = [card for card in cards if card.params_b <= facts["target_b"]] or [smallest]
    order = sorted(fitting, key=lambda card: (-round(card.params_b, 1), kinds.index(card.kind)))
    return [Candidate(card.hub_id, card, card) for card in order]


def choose(facts: dict[str, Any]) -> tuple[Candidate, dict[str, Any]]:
    """The first candidate that fits with its plan; the named one, or the smallest, where none does."""
    named = starter(facts) if facts["base_model"] == STARTER else named_model(facts)
    order = [named] if named else candidates(facts)
    for candidate in order:
        planned = plan(candidate, facts)
        if planned["fits"]:
            break
    return candidate, planned


def others(facts: dict[str, Any], chosen: Candidate) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Plans of the next larger and the largest smaller model of the same families that fit; None where none does."""
    free = facts | {"target_b": math.inf, "model_named": False}
    size = chosen.shape.params_b
    plans = [(c, plan(c, free)) for c in candidates(free) if c.hub != chosen.hub]
    larger = [p for c, p in plans if p["fits"] and c.shape.params_b > size * 1.2]
    smaller = [p for c, p in plans if p["fits"] and c.shape.params_b < size / 1.2]
    return (larger[-1] if larger else None), (smaller[0] if smaller else None)


def plan(candidate: Candidate, facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of training this model: its properties, what fits, adapters, batch, memory in GiB."""
    facts = facts | model_facts(candidate, facts)
    if facts["model_context"] is None:
        facts["model_context"] = decide("model_context", facts).value
    for name in ("gradient_checkpointing", "max_length", "precision"):
        facts[name] = decide(name, facts).value
    for peft in ("full", "lora", "qlora"):
        facts[f"fits_{peft}"] = _gb(candidate, _settings(facts, peft), peft) <= facts["usable_gb"]
    peft = decide("peft", facts).value
    settings = _settings(facts, peft)
    size = settings["batch_target"]
    while size > settings["batch_min"] and _gb(candidate, settings, peft, size) > facts["usable_gb"]:
        size = max(settings["batch_min"], size // 2)
    total = _gb(candidate, settings, peft, size)
    limit = facts["headroom_least"] * facts["available_gb"] if facts["model_named"] else facts["usable_gb"]
    return facts | {
        "peft": peft,
        "batch_fits": size,
        "memory_gb": round(total, 2),
        "fits": total <= limit,
    }


def model_facts(candidate: Candidate, facts: dict[str, Any]) -> dict[str, Any]:
    """What rules may ask about a model."""
    card, shape = candidate.card, candidate.shape
    return {
        "model_hub": candidate.hub,
        "model_b": float(f"{shape.params_b:.4g}"),
        "model_listed": card is not None,
        "model_size_guessed": candidate.guessed,
        "model_moe": bool(shape.experts),
        "model_context": card.context if card else None,
        "model_kind": card.kind if card else None,
        "model_thinking": card.thinking if card else None,
        "model_licence": card.licence if card else None,
        "model_superseded": bool(card and card.superseded_by),
        "model_superseded_by": card.superseded_by if card else None,
        "model_knows_language": knows(card, facts["language"]) if card else None,
        "params_per_rank": adapter_params(shape, 1),
        # keys and values of one token in 16 bits
        "model_cache_bytes": 2 * shape.layers * shape.kv_heads * shape.head_dim * BF16,
    }


def knows(card: ModelCard, language: str | None) -> bool:
    """Whether the maker names the language, or more than twenty of them; no language asks for none."""
    if not language:
        return True
    asked = re.split(r"[-_\s]", language.lower())[0]
    asked = {"chinese": "zh", "english": "en", "mixed": "zh", "yue": "zh", "cmn": "zh"}.get(asked, asked)
    return asked in card.languages or ("multi" in card.languages and asked not in ("zh", "en"))


def find_card(name: str) -> ModelCard | None:
    """The table's row for a Hub id, a name, an Ollama tag or a loose spelling of one ("qwen3 8b")."""
    wanted = _flat(name.split("/")[-1])
    for card in table("models"):
        if wanted in {
            _flat(card.id),
            _flat(card.name),
            _flat(card.hub_id.split("/")[-1]),
            _flat(card.ollama_tag or ""),
        }:
            return card
    loose = [card for card in table("models") if _flat(card.id).startswith(wanted + "instruct")]
    return loose[0] if loose else None


def size_in_name(name: str) -> float | None:
    """Billions of parameters that a model's name tells ("Llama-2-13b-hf" → 13); None where it tells none."""
    if experts := re.search(r"(\d+)\s?x\s?(\d+(?:\.\d+)?)\s?[bB](?![a-zA-Z])", name):
        return float(experts[1]) * float(experts[2])  # "8x7b": shared attention makes it a little less
    found = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s?[bB](?![a-zA-Z])", name)
    return float(found[1]) if found and float(found[1]) > 0 else None


def nearest(size: float, facts: dict[str, Any] | None = None) -> ModelCard:
    """The dense model of the table whose size is nearest, by ratio.

    With `facts` one that knows the language, of the wanted families and kinds where they have such a size.
    """
    cards = [card for card in table("models") if not card.experts]
    if facts is not None:
        fresh = [card for card in cards if not card.superseded_by and knows(card, facts["language"])]
        close = [card for card in fresh if 0.7 < card.params_b / size < 1.4]
        wanted = [card for card in close if card.family in facts["families"] and card.kind in facts["kinds"]]
        cards = wanted or close or [card for card in cards if knows(card, facts["language"])] or cards
    return min(
        cards, key=lambda card: (round(abs(math.log(card.params_b / size)), 1), card.family != "qwen3")
    )


def scaled(card: ModelCard, size: float) -> Shape:
    """The card's proportions at another size: width and depth grow alike, the vocabulary stays."""
    factor = (size / card.params_b) ** (1 / 3)
    return Shape(
        params_b=size,
        layers=max(1, round(card.layers * factor)),
        hidden=round(card.hidden * factor),
        heads=card.heads,
        kv_heads=card.kv_heads,
        head_dim=max(1, round(card.head_dim * factor)),
        ffn=round(card.ffn * factor),
        vocab=card.vocab,
        tied=card.tied,
    )


def _settings(facts: dict[str, Any], peft: str) -> dict[str, Any]:
    """The decided numbers that memory depends on, were the weights trained this way."""
    trial = facts | {"peft": peft}
    for name in ("effective_batch", "batch_target", "batch_min"):
        trial[name] = decide(name, trial).value
    rank = decide("r", trial)
    return trial | {"r": rank.value if rank else 1}


def _gb(candidate: Candidate, settings: dict[str, Any], peft: str, batch: int | None = None) -> float:
    terms = memory(
        candidate.shape,
        peft=peft,
        r=settings["r"],
        batch=batch or settings["batch_min"],
        length=settings["max_length"],
        checkpointing=settings["gradient_checkpointing"],
        sequences=2 if settings["method"] in PAIRED else 1,
        reference=settings["method"] in ("dpo", "kto"),
        stack=stack_for(settings),
    )
    return sum(terms.values())


def stack_for(facts: dict[str, Any]) -> Stack:
    """How weights and activations are kept on the planned device: 16 bits where it has bf16, else 32."""
    if facts["where"] == "cpu":
        return cpu_stack()
    return Stack() if facts["bf16"] else Stack(FP32, compute_bytes=FP32, hidden_bytes=FP32)


def _flat(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _replaced_by_other_kind(card: ModelCard, kinds: list[str]) -> bool:
    # Qwen3-4B was followed by an instruct-only model: for reasoning the hybrid one is still the newest
    successor = next((row for row in table("models") if row.id == card.superseded_by), None)
    return successor is not None and successor.kind not in kinds
