"""Values of the person's own: what was advised stays beside them, with the rule's warning where they leave its range.

Read by the Plan tab before a start and by `tunesmith train` for a run file that was changed by hand. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from assistant.types import Reason, Recommendation
from kb.facts import by_id
from trainer.config import RunConfig


def reason_json(reason: Reason) -> dict[str, Any]:
    """A reason as it is written beside a run: {value, rule, because, citation, overruled}."""
    return {name: value for name, value in vars(reason).items() if name != "field"}


def yours(
    values: Mapping[str, Any], recommendation: Recommendation, lang: str = "en"
) -> dict[str, dict[str, Any]]:
    """Each advised field whose value is another now, as it is shown before the start and kept in lineage.yaml.

    {field: {"value", "advised", "rule": "yours", "advised_rule", "because", "warning", "citation"}}; `warning` is
    None while the value stays in the range that the rule admits.
    """
    return yours_of(
        values, {name: reason_json(reason) for name, reason in recommendation.reasons.items()}, lang
    )


def yours_of(
    values: Mapping[str, Any], reasons: Mapping[str, dict[str, Any]], lang: str = "en"
) -> dict[str, dict[str, Any]]:
    """`yours` for reasons as JSON, as they were saved beside a run: a value changed since then is the person's."""
    beyond = _beyond(values, reasons, lang)
    found = {}
    for name, reason in reasons.items():
        if name not in values or name not in RunConfig.model_fields or values[name] == reason["value"]:
            continue
        told = "Set by you; advised was {}. {}" if lang == "en" else "由你設定；建議值為 {}。{}"
        found[name] = {
            "value": values[name],
            "advised": reason["value"],
            "rule": "yours",
            "advised_rule": reason["rule"],
            "because": told.format(reason["value"], reason["because"]),
            "warning": beyond.get(name),
            "citation": reason["citation"],
        }
    return found


def beyond_advice(
    values: Mapping[str, Any], recommendation: Recommendation, lang: str = "en"
) -> dict[str, str]:
    """A sentence for each field whose value leaves the range that its rule admits: {field: why}."""
    reasons = {name: reason_json(reason) for name, reason in recommendation.reasons.items()}
    return _beyond(values, reasons, lang)


def _beyond(values: Mapping[str, Any], reasons: Mapping[str, dict[str, Any]], lang: str) -> dict[str, str]:
    found = {}
    for name, reason in reasons.items():
        lost = reason.get("overruled")
        advised = lost[0] if reason["rule"].endswith("-yours") and lost else None
        low, high = _range_of(name, advised["rule"] if advised else reason["rule"])
        value = values.get(name)
        if not isinstance(value, int | float) or low <= value <= high:
            continue
        why = advised["because"] if advised else reason["because"]
        if lang == "en":
            found[name] = f"{name} {value:g} is outside {low:g} to {high:g}. {why}"
        else:
            found[name] = f"{name} {value:g} 超出 {low:g} 至 {high:g}。{why}"
    return found


def _range_of(name: str, rule: str) -> tuple[float, float]:
    known = by_id("rules").get(rule)  # a run that was saved by another version may name a rule that is gone
    low, high = known.range.get(name, (-math.inf, math.inf)) if known else (-math.inf, math.inf)
    return low, high
