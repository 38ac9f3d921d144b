"""A chat template of a stranger, rendered in a child process: Jinja's sandbox, a time limit, a memory limit.

`with Renderer(template) as render: render(batch)`. The environment is that of transformers (`apply_chat_template`).
`python -m trainer.data.template` is the child: a JSON line in for each batch, one out.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data.convert import Row
from trainer.data.tokens import endings

SECONDS = 10  # for a batch; a sound template takes a millisecond a row
BATCH = 50
MEMORY = 2 << 30  # bytes of address space of the child
NAMED = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
}
MARKS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Template:
    """`source` is Jinja; `marks` are the special tokens that it may name."""

    source: str
    marks: dict[str, str] = field(default_factory=dict)


def load_template(given: str) -> Template:
    """From a model's folder, a .jinja file, or one of NAMED. Raises UserError."""
    if given in NAMED:
        return Template(NAMED[given])
    path = Path(given).expanduser()
    try:
        if path.is_file():
            return Template(path.read_text(encoding="utf-8"))
        settings = _json(path / "tokenizer_config.json")
        marks = {**_json(path / "special_tokens_map.json"), **settings}
        named = {name: _content(marks[name]) for name in MARKS if marks.get(name)}
        own = path / "chat_template.jinja"
        source = own.read_text(encoding="utf-8") if own.is_file() else settings.get("chat_template")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; give a model's folder or a .jinja file") from None
    if isinstance(source, list):  # several, each with its name
        source = next((one["template"] for one in source if one.get("name") == "default"), None)
    if not isinstance(source, str):
        names = ", ".join(NAMED)
        raise UserError(
            f"{path}: no chat template there; give a model's folder, a .jinja file, or one of: {names}"
        )
    return Template(source, named)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _content(mark: Any) -> str:
    return str(mark.get("content", "")) if isinstance(mark, dict) else str(mark)


@dataclass(frozen=True)
class Rendered:
    """The texts of a row, one an ending; or the `fault` that the template raised."""

    texts: list[str] = field(default_factory=list)
    fault: str = ""


class TooSlow(Exception):
    """The template went on for longer than its time, or took more memory than it may."""


class Renderer:
    """A child process that renders rows. Raises UserError where the template is no Jinja, TooSlow while rendering."""

    def __init__(self, template: Template, seconds: float = SECONDS) -> None:
        root = Path(__file__).resolve().parents[2]
        self.seconds = seconds
        self._child = subprocess.Popen(
            [sys.executable, "-m", "trainer.data.template"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=root,
        )  # fmt: skip
        self._buffer = b""
        try:
            fault = self._asked({"template": template.source, "marks": template.marks}, 60)["fault"]
        except TooSlow:
            fault = "it cannot be read in 60 s"
        if fault:
            self.__exit__()
            raise UserError(f"chat template: {fault}; mend it, or use another template")

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.kill()
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()

    def __call__(self, rows: list[Row]) -> list[Rendered]:
        """Each row as the template writes it, with each of its endings. At most BATCH rows at a time."""
        asked = []
        for row in rows:
            tools = json.loads(row["tools"]) if row.get("tools") else None
            asked.append({"tools": tools, "messages": [row["prompt"] + ending for ending in endings(row)]})
        return [Rendered(**one) for one in self._asked({"rows": asked}, self.seconds)["rows"]]

    def _asked(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise TooSlow from None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._child.stdout], [], [], seconds)
            data = os.read(self._child.stdout.fileno(), 1 << 20) if ready else b""
            if not data:  # out of time, or ended by the limit on its memory
                raise TooSlow
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


# the child


def main() -> None:
    import resource

    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        resource.setrlimit(kind, (MEMORY, MEMORY))
    template = marks = None
    for line in sys.stdin:
        asked = json.loads(line)
        if "template" in asked:
            (template, fault), marks = _compiled(asked["template"]), asked["marks"]
            answer: dict[str, Any] = {"fault": fault}
        else:
            answer = {"rows": [_render(template, row, marks) for row in asked["rows"]]}
        print(json.dumps(answer), flush=True)


def _compiled(source: str) -> tuple[Any, str]:
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} … {% endgeneration %}, which transformers uses to find the assistant's tokens."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": _now}
    try:
        return environment.from_string(source), ""
    except TemplateSyntaxError as error:
        return None, f"line {error.lineno}: {error.message}"
    except RecursionError:
        return None, "nested too deeply"


def _now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)


def _render(template: Any, row: dict[str, Any], marks: dict[str, str]) -> dict[str, Any]:
    try:
        texts = [
            template.render(messages=messages, tools=row["tools"], add_generation_prompt=False, **marks)
            for messages in row["messages"]
        ]
    except MemoryError:
        raise
    except Exception as error:  # whatever the template of a stranger does wrong is its fault, not ours
        return {"fault": f"{type(error).__name__}: {error}"[:200]}
    return {"texts": texts}


if __name__ == "__main__":
    main()
