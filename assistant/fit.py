"""Whether a run's values fit the device, and if not the smallest changes that make them fit, the least harmful first.

The rules with `fix` in rules.yaml say what may be changed and in which order; here each is tried on the estimate.
Called by `recommend.py` for what it proposes and by the Plan tab for what a person set in the form. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assistant import basemodel
from assistant.rules import citation, evaluate, matches
from kb.facts import Rule, table
from trainer.config import STARTER, RunConfig
from trainer.estimate import run_terms, stack_of, starter_shape

NO_MODEL = {"model_hub", "model_b", "peft", "memory_gb"}


@dataclass(frozen=True)
class Fit:
    """Memory of some values in GiB, what there is, and the changes that would make them fit.

    Each fix: {"change": {field: value}, "memory_gb", "because", "rule", "citation"}.
    """

    memory_gb: float
    available_gb: float
    fits: bool
    fixes: list[dict[str, Any]] = field(default_factory=list)


def fit(config: RunConfig, facts: Mapping[str, Any], lang: str) -> Fit:
    """`facts` are those of the recommendation that the values stand in (Recommendation.facts)."""
    available = facts["available_gb"]
    limit = facts["headroom_least"] * available
    total = memory_of(config, facts)
    fixes = [] if total <= limit else changes(config, facts, limit, lang)
    return Fit(round(total, 2), available, total <= limit, fixes)


def changes(config: RunConfig, facts: Mapping[str, Any], limit: float, lang: str) -> list[dict[str, Any]]:
    """Each single change that brings the memory under `limit` GiB, in the rules' order.

    Where no change of the settings does alone, the first few of them together stand before another model.
    """
    known = {**facts, **smaller(config, facts)}
    settings, models = [], []
    for rule in ordered(config, known):
        changed, size = tried(rule, config, known, limit)
        if changed != config and size <= limit:
            item = told([rule], config, changed, size, known, lang)
            (models if "base_model" in item["change"] else settings).append(item)
    return [*(settings or together(config, known, limit, lang)), *models]


def together(config: RunConfig, known: Mapping[str, Any], limit: float, lang: str) -> list[dict[str, Any]]:
    """The first few changes of the settings one upon the other, as one item; none where even all do not suffice."""
    now, used = config, []
    for rule in ordered(config, known):
        if "base_model" in rule.set["fix"] or not applies(rule, now, known):
            continue
        changed, size = tried(rule, now, known, limit)
        if changed != now:
            now, used = changed, [*used, rule]
        if size <= limit:
            return [told(used, config, now, size, known, lang)]
    return []


def ordered(config: RunConfig, known: Mapping[str, Any]) -> list[Rule]:
    """The rules with `fix`, the least harmful first; one that a change before it makes possible is among them."""
    return sorted(
        (rule for rule in table("rules") if "fix" in rule.set and possible(rule, config, known)),
        key=lambda rule: -rule.priority,
    )


def possible(rule: Rule, config: RunConfig, known: Mapping[str, Any]) -> bool:
    return "base_model" not in rule.set["fix"] or applies(rule, config, known)


def applies(rule: Rule, config: RunConfig, known: Mapping[str, Any]) -> bool:
    return matches(rule.when, {**known, **config.model_dump(exclude={"task"})})


def tried(rule: Rule, config: RunConfig, known: Mapping[str, Any], limit: float) -> tuple[RunConfig, float]:
    """(the run with the rule's change, its memory): a halving is done again until it fits or has nothing left."""
    now, size = config, memory_of(config, known)
    while size > limit and applies(rule, now, known):
        facts = {**known, **now.model_dump(exclude={"task"})}
        change = {name: evaluate(value, facts) for name, value in rule.set["fix"].items()}
        changed = applied(now, change)
        if changed is None or changed == now:
            break
        now, size = changed, memory_of(changed, known)
    return now, size


def told(
    rules: list[Rule], before: RunConfig, after: RunConfig, size: float, known: Mapping[str, Any], lang: str
) -> dict[str, Any]:
    old, new = before.model_dump(), after.model_dump()
    return {
        "change": {name: value for name, value in new.items() if value != old[name]},
        "memory_gb": round(size, 2),
        "because": " ".join(rule.because.get(lang).format_map(known) for rule in rules),
        "rule": rules[-1].id,
        "rules": [rule.id for rule in rules],
        "citation": citation(rules[-1]),
    }


def applied(config: RunConfig, change: dict[str, Any]) -> RunConfig | None:
    """The run with a change; None where its values do not go together."""
    try:
        return RunConfig(**{**config.model_dump(), **change})
    except ValueError:
        return None


def smaller(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts smaller_… of the largest model below the run's that fits; None each where there is none."""
    found: dict[str, Any] = {f"smaller_{name}": None for name in NO_MODEL}
    if config.base_model == STARTER:
        return found
    now = candidate(config, facts)
    own = {**facts, **{name: getattr(config, name) for name in ("max_length", "gradient_checkpointing")}}
    _, other = basemodel.others(own, now)
    return found | ({f"smaller_{name}": other[name] for name in NO_MODEL} if other else {})


def candidate(config: RunConfig, facts: Mapping[str, Any]) -> basemodel.Candidate:
    """The base model of the run with its sizes, guessed where the table does not know it."""
    if config.base_model == STARTER:
        shape = starter_shape(config.starter_hidden_size, config.starter_layers, config.starter_vocab_size)
        return basemodel.Candidate(STARTER, shape, None)
    if config.base_model == facts["base_model"] and facts.get("candidate"):
        return facts["candidate"]
    named = {
        "wanted_model": config.base_model,
        "wanted_model_b": None,
        "base_model_given": None,
        "base_model_b": None,
    }
    found = basemodel.named_model({**facts, **named})
    assert found is not None  # a name is given
    return found


def memory_of(config: RunConfig, facts: Mapping[str, Any]) -> float:
    """GiB of the training peak of these values on the planned device."""
    stack = stack_of(config, facts["where"] == "cpu", bool(facts["bf16"]))
    return sum(run_terms(config, candidate(config, facts).shape, None, stack).values())
