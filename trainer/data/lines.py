"""A JSONL file in blocks of whole lines, of any size in little memory; each line a record or a named fault.

First step for a large file: blocks() reads, parse() decodes one block, in another process if need be.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 4 << 20
LONGEST_LINE = 16 << 20  # some four million tokens: no row to train on
LONGEST_NUMBER = 4000  # digits; Python refuses to read more than 4,300 as an int
DEEPEST = 500  # levels; the C decoder would read twice as many, what works on rows not


@dataclass(frozen=True)
class Fault:
    """A line that cannot be read: `text` goes on where "file" ended (":3:7: not valid JSON: …")."""

    kind: str
    number: int
    text: str


@dataclass
class Block:
    """Whole lines: `first` is the number of the first one, `offset` its first byte in the file."""

    first: int
    offset: int
    data: bytes
    last: bool = False
    faults: list[Fault] = field(default_factory=list)


@dataclass
class Parsed:
    """Rows as (line, record), what was mended by kind, and the lines that are no rows."""

    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def blocks(path: Path, seen: Callable[[bytes], None] = lambda data: None) -> Iterator[Block]:
    """Blocks of about 4 MB. `seen` is given every byte in order (a hash, a progress bar)."""
    with path.open("rb") as file:
        first, offset, rest = 1, 0, b""
        while data := file.read(BLOCK):
            seen(data)
            rest += data
            end = rest.rfind(b"\n") + 1
            if end:
                yield Block(first, offset, rest[:end])
                first, offset, rest = first + rest.count(b"\n", 0, end), offset + end, rest[end:]
            elif len(rest) > LONGEST_LINE:
                size, rest = _skip_line(file, seen, len(rest))
                fault = Fault(
                    "line_too_long",
                    first,
                    f":{first}: a line of {size >> 20} MB; divide the text into rows of less than {LONGEST_LINE >> 20} MB",
                )
                yield Block(first, offset, b"\n", faults=[fault])
                first, offset = first + 1, offset + size
        yield Block(first, offset, rest, last=True)


def _skip_line(file: Any, seen: Callable[[bytes], None], size: int) -> tuple[int, bytes]:
    """(bytes of the line, what was read of the next one)."""
    while data := file.read(BLOCK):
        seen(data)
        end = data.find(b"\n") + 1
        if end:
            return size + end, data[end:]
        size += len(data)
    return size, b""


def parse(block: Block, mend: bool = False) -> Parsed:
    """Every line of a block as a record, or its fault; `mend` reads past NUL and bytes that are no UTF-8."""
    parsed = Parsed(faults=list(block.faults))
    load = loader(parsed.mended)
    data = block.data.removeprefix(b"\xef\xbb\xbf") if block.offset == 0 else block.data
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a JSON string.
    lines: list[str | bytes] = data.split(b"\n")
    if b"\0" not in data:
        # Where some line is not UTF-8, each is decoded on its own below, so that the others are kept.
        with contextlib.suppress(UnicodeDecodeError):
            lines = data.decode("utf-8").split("\n")
    offset = block.offset + len(block.data) - len(data)
    for number, raw in enumerate(lines, start=block.first):
        fault = None
        line = raw
        if isinstance(raw, bytes):
            line, fault = _decoded(raw, number, offset)
            if mend and fault:
                parsed.mended[fault.kind] += 1
                line, fault = raw.replace(b"\0", b"").decode("utf-8", "replace"), None
            offset += len(raw) + 1
        if fault:
            parsed.faults.append(fault)
        elif line and not line.isspace():
            ended = not (block.last and number == block.first + len(lines) - 1)
            _parse_line(parsed, load, number, line, ended)
    return parsed


def _decoded(raw: bytes, number: int, offset: int) -> tuple[str, Fault | None]:
    at = raw.find(b"\0")
    if at >= 0:
        text = f":{number}: a NUL byte at offset {offset + at}; the file is binary or UTF-16: save it as UTF-8 text"
        return "", Fault("nul_byte", number, text)
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        at = error.start
        text = f":{number}: invalid UTF-8 (byte 0x{raw[at]:02x} at offset {offset + at}); save it as UTF-8"
        return "", Fault("bad_utf8", number, text)


def _parse_line(parsed: Parsed, load: Any, number: int, line: str, ended: bool) -> None:
    kind, fault = "", ""
    try:
        if line.count("[") + line.count("{") > DEEPEST and depth(line) > DEEPEST:
            raise RecursionError
        record = load(line)
        if isinstance(record, dict):
            parsed.rows.append((number, record))
            return
        kind, fault = "not_object", f":{number}: expected an object {{…}}, found {json_name(record)}"
    except json.JSONDecodeError as error:
        kind = "broken_json" if ended else "truncated_line"
        fault = f":{number}:{error.colno}: not valid JSON: {error.msg}"
    except RecursionError:
        kind, fault = "too_deep", f":{number}: nested too deeply to read"
    parsed.faults.append(Fault(kind, number, fault))


def depth(text: str) -> int:
    """The deepest level of brackets outside strings."""
    level = deepest = 0
    inside = escaped = False
    for char in text:
        if inside:
            inside, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            inside = True
        elif char in "[{":
            level += 1
            deepest = max(deepest, level)
        elif char in "]}":
            level -= 1
    return deepest


def loader(mended: Counter[str]) -> Callable[[str], Any]:
    """A JSON decoder that counts in `mended` what it puts right: keys named twice, NaN, endless numbers."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(items)
        if len(record) < len(items):
            mended["duplicate_key"] += 1
        return record

    def constant(name: str) -> None:  # NaN, Infinity: written by pandas for a missing value
        mended["nan"] += 1

    def whole(digits: str) -> Any:
        if len(digits) <= LONGEST_NUMBER:
            return int(digits)
        mended["huge_number"] += 1
        return digits

    def real(digits: str) -> Any:
        value = float(digits)
        if math.isfinite(value):
            return value
        mended["huge_number"] += 1
        return digits

    # The hooks leave the decoder written in C in use.
    return json.JSONDecoder(
        object_pairs_hook=pairs, parse_constant=constant, parse_int=whole, parse_float=real
    ).decode


def json_name(value: Any) -> str:
    """What a JSON value is, for a sentence."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")
