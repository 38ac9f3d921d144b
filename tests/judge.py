"""What is wrong with a recommendation, by what an expert would accept of it: read by test_recommend.py and bench/advice.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from assistant.recommend import situation_from_text

HERE = Path(__file__).parent / "assistant"
LISTS = (
    "cases.yaml", "cases_heldout.yaml", "cases_unseen.yaml", "cases_fourth.yaml", "cases_fifth.yaml", "cases_sixth.yaml",
)  # fmt: skip
READ_KEYS = {
    "rows", "task", "language", "docs", "knowledge_update", "verifier_prompts", "gpus", "preference_pairs",
    "sft_done", "thumbs_up", "thumbs_down", "sensitive", "has_cot", "wanted_r",
}  # fmt: skip
RANGES = {"lr": "learning_rate", **{key: key for key in ("model_b", "r", "epochs", "memory_gb")}}


def cases(name: str) -> list[dict[str, Any]]:
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def request(case: dict[str, Any]) -> dict[str, Any]:
    """The line of `tunesmith recommend --batch` that asks for a case."""
    return {**case.get("have", {}), **({"goal": case["say"]} if "say" in case else {})}


def within(bounds: list[float], value: float | None) -> bool:
    return value is not None and bounds[0] <= value <= bounds[1]


def faults(case: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Each expectation of the case that the JSON answer does not meet, as "what: value"; empty when it passes."""
    if "error" in result:
        return [f"error: {result['error']}"]
    run = result["run"] or {}
    warnings = "\n".join(result["warnings"])
    checks: dict[str, tuple[bool, Any]] = {
        key: (result[key] in case[key], result[key]) for key in ("decision", "method", "peft") if key in case
    }
    if "base_model" in case and "say" not in case:
        checks["base_model"] = (
            bool(re.search(case["base_model"], result["base_model"] or "")),
            result["base_model"],
        )
    checks |= {
        key: (within(case[key], result[name]), result[name]) for key, name in RANGES.items() if key in case
    }
    checks |= {
        key: (within(case[key], run.get(key)), run.get(key)) for key in ("max_length", "beta") if key in case
    }
    if "fits" in case:
        fits = (result["estimate"] or {}).get("fits")
        checks["fits"] = (fits is case["fits"], (fits, result["memory_gb"]))
    for key in case.get("empty", []):
        checks[f"empty {key}"] = (result[key] is None, result[key])
    if "warns" in case:
        checks["warns"] = (bool(re.search(case["warns"], warnings)), warnings)
    if "silent" in case:
        checks["silent"] = (not re.search(case["silent"], warnings), warnings)
    if "ask" in case:
        slot = (result["ask"] or {}).get("slot")
        checks["ask"] = (slot == case["ask"], slot)
    if "alt" in case:
        other = json.dumps(result["alternatives"], ensure_ascii=False)
        checks["alt"] = (bool(re.search(case["alt"], other)), other)
    if "gpu_vram" in case and result["estimate"]:
        memory = result["estimate"]["available_gb"]
        checks["gpu_vram"] = (memory == case["gpu_vram"], memory)
    if "say" in case:
        read = situation_from_text(case["say"]).model_dump()
        checks |= {f"read {key}": (read[key] == case[key], read[key]) for key in READ_KEYS & case.keys()}
    return [f"{name}: {value}" for name, (passed, value) in checks.items() if not passed]
