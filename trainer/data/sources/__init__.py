"""Where rows come from: one name a source, one registry. What they become is made in ../imports.py.

reviews.csv or folder/ · hf:owner/name[:config][@revision][#split] · sql:SELECT … · rest:https://… · web:https://…
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainer.config import UserError
from trainer.data.sources.files import FileOptions, open_path
from trainer.data.sources.hub import HubOptions, open_hub
from trainer.data.sources.incoming import Environ, Incoming, Options
from trainer.data.sources.rest import RestOptions, open_rest
from trainer.data.sources.sql import SqlOptions, open_sql
from trainer.data.sources.web import WebOptions, open_web

__all__ = ["SOURCES", "Incoming", "open_source", "settings", "split_name"]


@dataclass(frozen=True)
class Source:
    options: type[Options]
    open: Callable[[str, Any, Environ], Incoming]


SOURCES = {
    "path": Source(FileOptions, open_path),
    "hf": Source(HubOptions, open_hub),
    "sql": Source(SqlOptions, open_sql),
    "rest": Source(RestOptions, open_rest),
    "web": Source(WebOptions, open_web),
}


def open_source(name: str, given: dict[str, Any], environ: Environ) -> tuple[Incoming, dict[str, Any]]:
    """(what the source gives, the options that are not its defaults). Raises UserError.

    `given` are options as text or values; `environ` holds the variables from which secrets are read.
    """
    kind, target = split_name(name)
    source = SOURCES[kind]
    options = settings(source.options, given, kind)
    return source.open(target, options, environ), options.model_dump(mode="json", exclude_defaults=True)


def split_name(name: str) -> tuple[str, str]:
    """("hf", "owner/name") of "hf:owner/name"; a name without a known beginning is a path."""
    kind, colon, target = name.partition(":")
    if colon and kind in SOURCES and kind != "path":
        return kind, target
    if name.startswith(("http://", "https://")):
        raise UserError(
            f"{name[:80]}: give rest:{name[:60]} for an endpoint of rows, web:{name[:60]} for a page"
        )
    return "path", name


def settings(model: type[Options], given: dict[str, Any], kind: str) -> Any:
    """Options of a source, checked; "params.day" reaches into one. Raises UserError with what there is."""
    nested: dict[str, Any] = {}
    for name, value in given.items():
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = ", ".join(model.model_fields) or "none"
        raise UserError(
            f"--set {name}={first.get('input')!s:.40}: {first['msg'].lower()}; {kind} knows: {known}"
        ) from None
