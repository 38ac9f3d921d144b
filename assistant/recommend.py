"""Situation → decision, run and, for every field of it, a reason with its source.

Rules (kb/facts/rules.yaml) give every value; here is only the order in which they are asked. The command
`tunesmith recommend` and the tabs Ask and Plan stand on this. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from assistant import basemodel
from assistant.facts import complete, facts_of, like_card, rows_for
from assistant.fit import fit
from assistant.rules import Choice, citation, decide, evaluate, matching
from assistant.situation import situation, situation_from_profile, situation_from_text
from assistant.types import Reason, Recommendation, Situation
from assistant.yours import reason_json
from kb.facts import Rule
from trainer import rate
from trainer.calibration import Pair
from trainer.config import STARTER, RunConfig
from trainer.estimate import estimate
from trainer.hardware import GpuInfo, Hardware

__all__ = [
    "from_inputs",
    "recommend",
    "situation",
    "situation_from_profile",
    "situation_from_text",
    "to_json",
]

ASSUMED_MACHINE = ("gpus", "gpu_vram_gb", "bf16", "ram_gb", "headroom", "headroom_least")
ASSUMED_DATA = ("train_rows", "avg_tokens", "avg_completion_tokens")
PLANS = ("safe", "recommended", "best")
WANTED = ("families", "kinds", "serve_gb_per_second", "serve_gflops", "target_b", "length_needed")
RESULTS = ("rollout_gb", "answer_ms", "score_points", "head_better")
# RunConfig's fields in the order in which one depends on another. A field that no rule speaks of is left out.
BEFORE_STEPS = (
    "base_model", "starter_hidden_size", "starter_layers", "starter_vocab_size", "peft", "precision", "optim", "r",
    "lora_alpha", "target_modules", "lora_dropout", "use_rslora", "learning_rate", "lr_scheduler", "warmup_ratio", "weight_decay",
    "max_grad_norm", "epochs", "max_steps", "max_length", "effective_batch", "batch_size", "gradient_accumulation",
    "gradient_checkpointing", "loss_on", "packing", "neftune_noise_alpha", "beta", "simpo_gamma", "eval_fraction", "test_fraction",
)  # fmt: skip
AFTER_STEPS = (
    "eval_steps", "save_steps", "save_total_limit", "logging_steps", "early_stopping_patience", "seed",
    "max_new_tokens", "instruction", "task", "train_file",
)  # fmt: skip


def recommend(
    situation: Situation, hardware: Hardware | None = None, profile: Any = None, lang: str = "en",
    pairs: Sequence[Pair] = (), test: Any = None, rate: float | None = None,
) -> Recommendation:  # fmt: skip
    """A decision and, where it is to train, a run, each value with its reason in `lang` ("en" or "zh-TW").

    `hardware` counts where the situation says nothing of GPUs; without either, the rules assume one. `profile`
    is trainer.data.profile() of the data file and `test` that of a test file, `pairs` are finished runs of this home
    (trainer.calibration.load), `rate` what this machine computes (trainer.rate.known). Never raises for a valid situation.
    """
    situation = complete(situation, profile)
    facts = facts_of(situation, hardware, profile, test) | {"pairs_measured": pairs}
    # A rate that was measured here says nothing of another machine that the person described.
    facts["rate"] = rate if facts["host_ram_gb"] else None
    reasons: dict[str, Reason] = {}
    for name in ASSUMED_MACHINE:
        _assume(name, facts)
    _settle("decision", facts, reasons, lang)
    facts["trains"] = "finetune" in facts["decision"]
    facts["available_gb"] = facts["ram_gb"] if facts["where"] == "cpu" else facts["gpu_vram_gb"]
    if not facts["trains"]:
        return _recommendation(facts, reasons, situation, lang)
    _settle("method", facts, reasons, lang)
    facts["train_rows"] = rows_for(facts["method"], facts)
    for name in ASSUMED_DATA:
        _assume(name, facts)
    facts["completion_tokens"] = facts["train_rows"] * facts["avg_completion_tokens"]
    before, decided = dict(facts), dict(reasons)
    guess = _fill(facts, reasons, lang)
    plans = [_plan(preset, before, decided, facts, reasons, lang) for preset in PLANS]
    return _recommendation(facts, reasons, situation, lang, guess, plans)


def _fill(facts: dict[str, Any], reasons: dict[str, Reason], lang: str) -> dict[str, Any]:
    """Every value of the run, into `facts` and `reasons`; returns what it will take."""
    facts["usable_gb"] = facts["headroom"] * facts["available_gb"]
    for name in WANTED:
        _assume(name, facts)
    chosen, planned = basemodel.choose(facts)
    facts |= planned
    facts |= _others(facts, chosen)
    for name in BEFORE_STEPS:
        _settle(name, facts, reasons, lang)
    facts["steps"] = _steps(facts)
    for name in (*AFTER_STEPS, "memory_gb", "model_b"):
        _settle(name, facts, reasons, lang)
    facts["candidate"] = chosen
    guess = _estimate(facts, reasons, chosen.shape, lang)
    for name in RESULTS:
        _assume(name, facts)
    return guess


def _plan(
    preset: str, before: dict[str, Any], decided: dict[str, Reason], recommended: dict[str, Any],
    reasons: dict[str, Reason], lang: str,
) -> dict[str, Any]:  # fmt: skip
    """One of the three plans: the run again from the facts `before` it, with what the plan's rule changes."""
    facts = before | {"preset": preset}
    choice = decide("plan", recommended | {"preset": preset})
    assert choice is not None  # a rule for each plan has no condition but training
    wanted = {name: evaluate(value, recommended) for name, value in choice.value.items()}
    facts |= {name: value for name, value in wanted.items() if name not in RunConfig.model_fields}
    theirs = {name for name, reason in reasons.items() if reason.rule.endswith("-yours")}
    facts["forced"] = {
        name: (value, choice.rule)
        for name, value in wanted.items()
        if name in RunConfig.model_fields and name not in theirs
    }
    own = dict(decided)
    guess = _fill(facts, own, lang)
    run = {name: own[name].value for name in RunConfig.model_fields if name in own}
    changed = [name for name in run if name not in reasons or run[name] != reasons[name].value]
    return {
        "name": preset,
        **{name: run.get(name) for name in ("base_model", "method", "peft", "learning_rate", "r", "epochs")},
        **{name: facts[name] for name in ("model_b", "memory_gb", "fits")},
        "seconds": guess["seconds"],
        "because": choice.rule.because.get(lang).format_map(facts),
        "rule": choice.rule.id,
        "citation": citation(choice.rule),
        "changes": {name: reason_json(own[name]) for name in changed},
        "run": run,
    }


def from_inputs(
    given: dict[str, Any], text: str | None = None, data: Path | None = None, lang: str = "en",
    pairs: Sequence[Pair] = (), test: Path | None = None, home: Path | None = None,
) -> Recommendation:  # fmt: skip
    """What the command line does: keys, a sentence, a data file and a test file together, on this machine.

    Raises UserError for an unknown key, a bad value, or a file that cannot be read.
    """
    from trainer.hardware import probe

    hardware = probe()
    values = {"goal": text, **given} if text else given
    measured_rate = rate.known(home, hardware) if home else None
    found, _ = on_file(situation(values), hardware, data, lang, pairs, test, measured_rate)
    if test and found.run:
        found.run["test_file"] = str(test)
    return found


def on_file(
    situation: Situation, hardware: Hardware | None, data: Path | None, lang: str = "en",
    pairs: Sequence[Pair] = (), test: Path | None = None, rate: float | None = None,
) -> tuple[Recommendation, Any]:  # fmt: skip
    """(recommendation, profile of the data file or None).

    Lengths are estimated first; where the model that is then proposed has its tokenizer on this machine, they are
    counted with it, and the advice is given on the counts.
    """
    from trainer.base import local_tokenizer
    from trainer.data import profile

    held_out = profile(test) if test else None
    measured = profile(data) if data else None
    found = recommend(situation, hardware, measured, lang, pairs, held_out, rate)
    if data and found.run and (own := local_tokenizer(found.run["base_model"])):
        measured = profile(data, tokenizer=own)
        found = recommend(situation, hardware, measured, lang, pairs, held_out, rate)
    return found, measured


def to_json(recommendation: Recommendation) -> dict[str, Any]:
    """The shape that other programs read (DESIGN.md): what does not apply is null."""
    run = recommendation.run or {}
    reasons = {name: reason_json(reason) for name, reason in recommendation.reasons.items()}
    return {
        "decision": recommendation.decision,
        **{name: run.get(name) for name in ("method", "peft", "base_model")},
        "model_b": recommendation.model_b,
        **{name: run.get(name) for name in ("learning_rate", "r", "epochs")},
        "memory_gb": recommendation.memory_gb,
        "run": recommendation.run,
        "reasons": reasons,
        "estimate": recommendation.estimate,
        "warnings": recommendation.warnings,
        "alternatives": recommendation.alternatives,
        "baseline": first_step(recommendation),
        "plans": recommendation.plans,
        "ask": recommendation.ask,
        "fixes": recommendation.fixes,
    }


def first_step(recommendation: Recommendation) -> dict[str, Any] | None:
    """What to measure before anything is trained: {"command", "because", "rule", "citation"}; None where nothing is."""
    return next((item for item in recommendation.alternatives if "command" in item), None)


def _assume(name: str, facts: dict[str, Any]) -> None:
    """Fill a fact that nobody gave; `assumed_…` lets a rule warn of it."""
    if facts.get(name) is None and (choice := decide(name, facts)):
        facts[name] = choice.value
        facts[f"assumed_{name}"] = True


def _settle(name: str, facts: dict[str, Any], reasons: dict[str, Reason], lang: str) -> None:
    choice = decide(name, facts)
    if choice is None:
        return
    value = choice.value
    if isinstance(value, str) and value == choice.rule.set.get(
        name
    ):  # a text of the rule's own, not a fact's
        value = value.format_map(facts)
    if name != "task":  # RunConfig's `task` is the run's name; the fact stays the kind of task
        facts[name] = value
    reasons[name] = Reason(
        field=name,
        value=value,
        rule=choice.rule.id,
        because=choice.rule.because.get(lang).format_map(facts),
        citation=citation(choice.rule),
        overruled=[
            {"rule": rule.id, "value": other, "because": rule.because.get(lang).format_map(facts)}
            for rule, other in choice.overruled
        ],
    )
    facts |= _advised_range(name, choice)


def _advised_range(name: str, choice: Choice) -> dict[str, Any]:
    """Facts r_low, r_high, r_advised for a value of the person's own: what the best losing rule admits."""
    if not choice.rule.id.endswith("-yours") or not choice.overruled:
        return {}
    rule, value = choice.overruled[0]
    low, high = rule.range.get(name, (value, value))
    return {f"{name}_low": low, f"{name}_high": high, f"{name}_advised": value}


def _others(facts: dict[str, Any], chosen: basemodel.Candidate) -> dict[str, Any]:
    """Facts of the neighbours in size that fit too, for alternatives."""
    if facts["base_model"] == STARTER:
        return {}
    larger, smaller = basemodel.others(facts, chosen)
    found: dict[str, Any] = {}
    for side, other in (("larger", larger), ("smaller", smaller)):
        if other:
            found |= {f"{side}_{name}": other[name] for name in ("model_hub", "model_b", "peft", "memory_gb")}
    return found


def _steps(facts: dict[str, Any]) -> int:
    rows = facts["train_rows"] * (1 - facts["eval_fraction"] - facts["test_fraction"])
    return max(1, math.ceil(rows * facts["epochs"] / facts["effective_batch"]))


def _estimate(facts: dict[str, Any], reasons: dict[str, Reason], shape: Any, lang: str) -> dict[str, Any]:
    run = RunConfig(**{name: reasons[name].value for name in RunConfig.model_fields if name in reasons})
    # A starter's small vocabulary makes more tokens of a text than the measure counts: rows are taken as full.
    mean = facts["max_length"] if facts["base_model"] == STARTER else facts["avg_tokens"]
    lengths = SimpleNamespace(p50=mean, max=facts["max_length"], mean=mean)
    machine = _planned_machine(facts)
    guess = asdict(
        estimate(
            run, shape, lengths, machine, facts["train_rows"], lang, facts["pairs_measured"], facts["rate"]
        )
    )
    guess |= {"available_gb": facts["available_gb"], "fits": facts["fits"]}
    guess["device"] = machine.gpus[0].name if machine.gpus else None
    facts["memory_high_gb"] = guess["high_gb"]
    facts["host_needed_gb"], facts["disk_needed_gb"] = guess["host_gb"], guess["disk_gb"]
    facts["hours"] = guess["total_seconds"] / 3600 if guess["total_seconds"] else None
    facts["hours_high"] = guess["total_seconds_high"] / 3600 if guess["total_seconds"] else None
    facts["served_gb"] = next(
        s["device_gb"] or s["host_gb"] for s in guess["stages"] if s["name"] == "serving q4_k_m"
    )
    if not facts["has_test"]:
        facts["test_rows"] = int(facts["train_rows"] * facts["test_fraction"])
    return guess


def _recommendation(
    facts: dict[str, Any], reasons: dict[str, Reason], situation: Situation, lang: str,
    guess: dict[str, Any] | None = None, plans: Sequence[dict[str, Any]] = (),
) -> Recommendation:  # fmt: skip
    run = {name: reasons[name].value for name in RunConfig.model_fields if name in reasons}
    suited = fit(RunConfig(**run), facts, lang) if facts["trains"] else None
    return Recommendation(
        decision=facts["decision"],
        run=run if facts["trains"] else None,
        reasons=reasons,
        estimate=guess,
        warnings=[_sentence(rule, facts, lang) for rule in matching("warning", facts)],
        alternatives=[_alternative(rule, facts, lang) for rule in matching("alternative", facts)],
        model_b=facts["model_b"],
        memory_gb=facts["memory_gb"],
        plans=list(plans),
        ask=_question(facts, situation.asked or [], lang),
        fixes=suited.fixes if suited else [],
        facts=facts,
    )


def _question(facts: dict[str, Any], asked: Sequence[str], lang: str) -> dict[str, Any] | None:
    """The question whose answer would change most, {"slot", "question", "rule", "citation"}; none asked before."""
    for rule in matching("ask", facts):
        if rule.set["ask"] not in asked:
            return {"slot": rule.set["ask"], "question": _sentence(rule, facts, lang), "rule": rule.id, "citation": citation(rule)}  # fmt: skip
    return None


def _planned_machine(facts: dict[str, Any]) -> Hardware:
    if facts["where"] == "cpu":
        return Hardware([], cpu_cores=facts["cpu_cores"] or 1, ram_gb=facts["ram_gb"])
    memory = facts["gpu_vram_gb"]
    name = facts["gpu_name"] or like_card(memory, facts["bf16"])
    return Hardware([GpuInfo(name, memory, memory, facts["bf16"])])


def _sentence(rule: Rule, facts: dict[str, Any], lang: str) -> str:
    return rule.because.get(lang).format_map(facts)


def _alternative(rule: Rule, facts: dict[str, Any], lang: str) -> dict[str, Any]:
    change = {name: evaluate(value, facts) for name, value in rule.set["alternative"].items()}
    return {**change, "because": _sentence(rule, facts, lang), "rule": rule.id, "citation": citation(rule)}
