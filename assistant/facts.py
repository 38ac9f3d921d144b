"""Situation, machine and measured data → the facts that rules read. No advice here, only arithmetic and look-ups.

First step of `recommend.py`. What a fact is called here is what `when` in rules.yaml may ask for.
"""

from __future__ import annotations

import re
from typing import Any

from assistant.situation import situation_from_profile, situation_from_text
from assistant.types import Situation
from kb.facts import table
from trainer.config import STARTER
from trainer.data.language import token_estimate
from trainer.hardware import Hardware, gpu_row

# Facts beside Situation's keys, RunConfig's fields and what rules set; a test holds rules.yaml to these names.
DERIVED = (
    "sft_rows", "pairs", "thumbs", "feedback", "data_rows", "train_rows", "thumbs_ratio", "completion_tokens",
    "chinese", "teacher", "wants_cpt", "plans_training", "trains", "where", "ram_gb", "gpu_known", "vram_total",
    "unknown_gpu", "labels", "label_list", "rows_per_class", "multi_turn", "p95", "longest", "completion_longest",
    "task_name", "data_file", "duplicates", "model_named", "model_hub", "model_b", "model_context", "model_moe",
    "model_knows_language", "model_superseded", "model_superseded_by", "model_kind", "model_thinking",
    "model_licence", "model_listed", "model_cache_bytes", "params_per_rank", "fits_full", "fits_lora", "fits_qlora", "batch_fits", "fits",
    "memory_gb", "memory_high_gb", "usable_gb", "steps", "hours", "base_model_given", "cpu_cores",
    "named", "label_tokens", "model_size_guessed", "available_gb", "preset", "host_needed_gb", "disk_needed_gb", "disk_free_gb", "host_ram_gb",
    "hours_high", "served_gb", "test_rows", "has_test", "absent_in_train", "absent_in_test", "duplicate_share", "conflicts",
    "loss_share", "data_licence", "data_non_commercial",
)  # fmt: skip
MOST_LABELS = 20  # labels that the instruction of a row can name
TEMPLATE = 24  # tokens of the instruction's own words, about
PREFERRED = {
    "dpo": "pairs",
    "orpo": "pairs",
    "simpo": "pairs",
    "reward": "pairs",
    "kto": "thumbs",
    "cpt": "docs",
}
TRAINED_ON = PREFERRED | {"grpo": "verifier_prompts", "rloo": "verifier_prompts"}


def complete(situation: Situation, profile: Any = None) -> Situation:
    """The situation with what the data file and the goal's words add. What the person gave stays as it is."""
    given = situation.model_dump(exclude_none=True)
    read = situation_from_text(situation.goal).model_dump(exclude_none=True) if situation.goal else {}
    measured = situation_from_profile(profile).model_dump(exclude_none=True) if profile is not None else {}
    return Situation(**(read | measured | given))


def facts_of(
    situation: Situation, hardware: Hardware | None = None, profile: Any = None, test: Any = None
) -> dict[str, Any]:
    """All facts that are known before anything is decided; a fact that is not known is None."""
    facts: dict[str, Any] = dict.fromkeys(DERIVED)
    facts |= situation.model_dump()
    facts |= _data(situation)
    facts |= _machine(situation, hardware)
    goal = situation.goal or ""
    named = situation.wanted_model or situation.base_model
    facts |= {
        "base_model": STARTER if (named or "").strip().lower() == STARTER else None,
        "base_model_given": situation.base_model,
        "named": re.sub(r"[^a-z0-9.]", "", (named or "").split("/")[-1].lower()),
        "model_named": bool(named or situation.wanted_model_b or situation.base_model_b),
        "chinese": (situation.language or "").lower().startswith(("zh", "chinese", "中文", "yue"))
        or _is_mixed(situation),
        "teacher": bool(re.search(r"\bteacher\b|distil|蒸餾|蒸馏|教師模型|教师模型", goal, re.I)),
        "wants_cpt": bool(
            re.search(
                r"continued? pre-?train|\bCPT\b|(?:繼續|继续|持續|持续|增量)預?预?訓?训?練?练?預?训?练?|續寫|续写|continue (?:my|the|our) (?:novel|stor)|domain[- ]adaptive pre",
                goal,
                re.I,
            )
        ),
        "task_name": (situation.task or "task") + "-run",
        "data_file": "data.jsonl",
    }
    facts["plans_training"] = _plans_training(situation, goal)
    if profile is not None:
        facts |= _measured(profile)
    if test is not None:
        facts |= _held_out(profile, test)
    return facts


def rows_for(method: str, facts: dict[str, Any]) -> int | None:
    """How many rows a method trains on; None where that is not known."""
    return facts[TRAINED_ON[method]] if method in TRAINED_ON else facts["sft_rows"] or None


def _data(s: Situation) -> dict[str, Any]:
    thumbs = (
        None if s.thumbs_up is None and s.thumbs_down is None else (s.thumbs_up or 0) + (s.thumbs_down or 0)
    )
    # "5,000 rows, 5,000 pairs" is one file told twice, not an SFT set beside the pairs
    same = s.rows is not None and s.rows in (s.preference_pairs, thumbs, s.verifier_prompts, s.thumbs_up)
    sft_rows = 0 if same and s.rows else s.rows
    feedback = [count for count in (s.preference_pairs, thumbs, s.verifier_prompts) if count is not None]
    counts = feedback + ([sft_rows] if sft_rows is not None else [])
    ratio = s.thumbs_up / s.thumbs_down if s.thumbs_up and s.thumbs_down else None
    return {
        "sft_rows": sft_rows,
        "pairs": s.preference_pairs,
        "thumbs": thumbs,
        "thumbs_ratio": ratio,
        "feedback": max(feedback, default=None),
        "data_rows": max(counts, default=None),
    }


def _machine(s: Situation, hardware: Hardware | None) -> dict[str, Any]:
    row = gpu_row(s.gpu_name, s.gpu_vram_gb) if s.gpu_name else None
    here = hardware.gpus[0] if hardware and hardware.gpus else None
    said = s.gpus is not None or s.gpu_name is not None or s.gpu_vram_gb is not None
    gpus, memory, bf16 = s.gpus, s.gpu_vram_gb, s.bf16
    if row is not None:
        memory = row.memory_gb if memory is None else memory
        bf16 = row.bf16 if bf16 is None else bf16
    if not said and hardware is not None:
        gpus = len(hardware.gpus)
        memory, bf16 = (here.memory_gb, here.bf16 if bf16 is None else bf16) if here else (memory, bf16)
    if memory == 0:
        gpus, memory = 0, None
    if gpus is None and (s.gpu_name or memory):
        gpus = 1
    return {
        "gpus": gpus,
        "gpu_vram_gb": memory,
        "bf16": bf16,
        "gpu_known": said or hardware is not None,
        "unknown_gpu": s.gpu_name if s.gpu_name and row is None else None,
        "gpu_name": row.name if row else s.gpu_name or (here.name if here and not said else None),
        "where": "cpu" if gpus == 0 else "gpu",
        "ram_gb": hardware.ram_gb if hardware else None,
        "cpu_cores": hardware.cpu_cores if hardware else None,
        # What this machine has says nothing of another one that the person described.
        "host_ram_gb": hardware.ram_gb if hardware and not said else None,
        "disk_free_gb": hardware.disk_free_gb if hardware and not said else None,
    }


def like_card(memory_gb: float, bf16: bool) -> str:
    """The slowest card of the table with about this memory, for the time on a card that nobody named."""
    cards = [card for card in table("gpus") if card.bf16 == bf16] or table("gpus")
    nearest = min(abs(card.memory_gb - memory_gb) for card in cards)
    same = [card for card in cards if abs(card.memory_gb - memory_gb) <= nearest]
    return min(same, key=lambda card: card.bf16_tflops or 0).name


def _plans_training(s: Situation, goal: str) -> bool:
    if any(
        (s.wanted_model, s.wanted_model_b, s.wanted_r, s.base_model, s.base_model_b, s.sft_done, s.has_cot)
    ):
        return True
    if s.gpus is not None or s.gpu_vram_gb is not None or s.gpu_name is not None:
        return True
    return bool(re.search(r"fine[- ]?tun|微調|微调|訓練|训练|\btrain|LoRA|\bSFT\b|\bDPO\b", goal, re.I))


def _is_mixed(s: Situation) -> bool:
    return bool(re.search(r"mixed|中英|zh", s.language or "", re.I))


def _measured(profile: Any) -> dict[str, Any]:
    labels = profile.labels or {}
    lengths, completions = profile.tokens, profile.completion_tokens
    name = (
        re.sub(r"[^\w-]+", "-", profile.path.stem).strip("-_")[:48] if hasattr(profile.path, "stem") else ""
    )
    return {
        "labels": len(labels) or None,
        "label_list": _listed(labels) or None,
        "rows_per_class": min(labels.values()) if labels else None,
        "label_tokens": token_estimate(listed, profile.script) + TEMPLATE
        if (listed := _listed(labels))
        else 0,
        "multi_turn": profile.format in ("messages", "sharegpt") or None,
        "p95": lengths.p95 if lengths else None,
        "longest": lengths.max if lengths else None,
        "completion_longest": completions.max if completions else None,
        "duplicates": profile.duplicates,
        "duplicate_share": profile.duplicates / max(1, profile.rows),
        "conflicts": profile.conflicts,
        "loss_share": profile.loss_share,
        "data_licence": profile.licence or None,
        "data_non_commercial": bool(
            re.search(r"\bNC\b|non-?commercial|research only", profile.licence, re.I)
        ),
        "data_file": str(profile.path),
        **({"task_name": name} if name else {}),
    }


def _held_out(profile: Any, test: Any) -> dict[str, Any]:
    """What a test file says beside the training file: its rows, and labels that only one of them has."""
    trained, tested = (set(one.labels or ()) if one is not None else set() for one in (profile, test))
    both = bool(trained and tested)
    named = lambda labels: ", ".join(sorted(map(str, labels))[:MOST_LABELS]) or None
    return {
        "has_test": True,
        "test_rows": test.rows,
        "absent_in_train": named(tested - trained) if both else None,
        "absent_in_test": named(trained - tested) if both else None,
    }


def _listed(labels: dict[str, int]) -> str:
    """Labels as the instruction names them; "" where they are too many to be named in every row."""
    return ", ".join(map(str, labels)) if 1 < len(labels) <= MOST_LABELS else ""
