"""The rules engine: facts in, a value with its rule out.

Reads rules from kb/facts/rules.yaml and knows nothing of what they say. Pure: `recommend.py` gives the
facts and asks field by field; a decided field becomes a fact for the next.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kb.facts import Rule, by_id, table

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": round,
    "ceil": math.ceil,
    "floor": math.floor,
    "pow2": lambda x: 2 ** math.ceil(math.log2(max(x, 1))),  # next power of two
    "pow2_floor": lambda x: 2 ** math.floor(math.log2(max(x, 1))),
    "ceil_to": lambda x, step: math.ceil(x / step) * step,
    "nice": lambda x: float(f"{x:.2g}"),  # two significant digits
}
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "min": operator.ge,
    "max": operator.le,
    "gt": operator.gt,
    "lt": operator.lt,
    "not": lambda actual, unwanted: (
        actual not in unwanted if isinstance(unwanted, list) else actual != unwanted
    ),
}
# Fields that every matching rule adds to, in order of priority; all others have one winner.
COLLECTED = ("warning", "alternative", "ask", "fix")


@dataclass(frozen=True)
class Choice:
    """The value of one field, the rule that gave it, and the rules that lost with another value."""

    value: Any
    rule: Rule
    overruled: list[tuple[Rule, Any]] = field(default_factory=list)


def decide(name: str, facts: Mapping[str, Any]) -> Choice | None:
    """The value of one field by the matching rule of highest priority; None where no rule speaks.

    Of two rules with the same priority the one with more conditions wins, then the earlier one in the file.
    The fact "forced", {field: (value, rule)}, is what a plan other than the recommended one takes instead.
    """
    found = [(rule, evaluate(rule.set[name], facts)) for rule in matching(name, facts)]
    if name in (forced := facts.get("forced") or {}):
        value, rule = forced[name]
        found.insert(0, (rule, value))
    if not found:
        return None
    (winner, value), losers = found[0], found[1:]
    return Choice(value, winner, [(rule, other) for rule, other in losers if other != value])


def matching(name: str, facts: Mapping[str, Any]) -> list[Rule]:
    """Rules that set `name` and whose conditions all hold, best first."""
    return [rule for rule in _rules_of(name) if matches(rule.when, facts)]


def matches(when: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """True when every condition holds. An unknown fact (None) meets only the condition `null`."""
    return all(_holds(wanted, facts.get(fact), facts) for fact, wanted in when.items())


def evaluate(value: Any, facts: Mapping[str, Any]) -> Any:
    """A value of `set`: as it stands, or arithmetic over the facts where it is text that starts with '='.

    Raises ValueError that names the expression for anything but numbers, facts, + - * / // ** and FUNCTIONS.
    """
    if isinstance(value, str) and value.startswith("="):
        return _result(_evaluate(_parse(value[1:]), facts, value))
    return value


def names_in(value: Any) -> set[str]:
    """Facts that a value of `set` or `when` reads in its arithmetic (functions left out)."""
    if isinstance(value, dict):
        return set().union(*(names_in(part) for part in value.values())) if value else set()
    if not (isinstance(value, str) and value.startswith("=")):
        return set()
    return {node.id for node in ast.walk(_parse(value[1:])) if isinstance(node, ast.Name)} - FUNCTIONS.keys()


def citation(rule: Rule) -> dict[str, Any]:
    """{"page", "anchor", "sources": [{name, url, date}], "evidence"} of a rule."""
    page, _, anchor = rule.page.partition("#")
    rows = [by_id("sources")[key] for key in rule.sources]
    sources = [{"name": row.name, "url": row.url, "date": row.date.isoformat()} for row in rows]
    return {"page": page, "anchor": anchor, "sources": sources, "evidence": rule.evidence}


@cache
def _rules_of(name: str) -> tuple[Rule, ...]:
    # Sorting is stable: among equals the order of the file stays.
    rules = [rule for rule in table("rules") if name in rule.set]
    return tuple(sorted(rules, key=lambda rule: (-rule.priority, -len(rule.when))))


def _holds(wanted: Any, actual: Any, facts: Mapping[str, Any]) -> bool:
    if isinstance(wanted, dict):
        if unknown := wanted.keys() - BOUNDS.keys():
            raise ValueError(
                f"condition {wanted}: unknown bound {sorted(unknown)}; known are {', '.join(BOUNDS)}"
            )
        if actual is None and wanted.keys() != {"not"}:
            return False
        if any(facts.get(name) is None for name in names_in(wanted)):  # nor is a bound that is not known met
            return False
        return all(BOUNDS[key](actual, evaluate(limit, facts)) for key, limit in wanted.items())
    if isinstance(wanted, list):
        return actual in wanted
    return actual == wanted


@cache
def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"={text}: not an expression: {error.msg}") from None


def _evaluate(node: ast.expr, facts: Mapping[str, Any], text: str) -> Any:
    match node:
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.Name(id=name):
            if (value := facts.get(name)) is None:
                raise ValueError(f"{text}: the fact {name!r} is not known here; ask for it in `when`")
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_evaluate(left, facts, text), _evaluate(right, facts, text))
        case ast.UnaryOp(operand=operand, op=ast.USub()):
            return -_evaluate(operand, facts, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_evaluate(part, facts, text) for part in args))
    raise ValueError(f"{text}: {ast.unparse(node)!r} is not admitted; only arithmetic over facts is")


def _result(value: Any) -> Any:
    # 16.0 rows and 16 rows are one value; RunConfig's integers refuse a fraction but take a whole number
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
