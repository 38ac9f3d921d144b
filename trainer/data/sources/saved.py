"""Web pages as Markdown files in a folder, for `tunesmith ingest FOLDER`: to ask about instead of to train on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from trainer.config import UserError, write_atomic
from trainer.data.sources import open_source
from trainer.data.sources.incoming import Environ, Note


def save_pages(
    source: str, folder: Path, options: dict[str, Any], environ: Environ,
    limit: int | None = None, seen: Callable[[int, int | None], None] = lambda read, total: None,
) -> tuple[list[Path], list[Note]]:  # fmt: skip
    """(files, what was left out) of a `web:` source. A page that is there already is written anew. Raises UserError.

    Each file is whole or not there at all; its front matter holds title, url and date.
    """
    if not source.startswith("web:"):
        raise UserError(
            f"{folder}: only pages (web:…) become files of a folder; give rows a name that ends in .jsonl"
        )
    incoming, _ = open_source(source, options, environ)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    items = incoming.parts[0].open()
    for _, record in items:
        text = record.pop("text")
        path = folder / f"{slug(record['url'])}.md"
        head = yaml.safe_dump(record, allow_unicode=True, sort_keys=False)
        write_atomic(path, f"---\n{head}---\n\n{text}\n")
        files.append(path)
        seen(len(files), incoming.total)
        if len(files) == limit:
            break
    items.close()
    return files, incoming.notes


def slug(url: str) -> str:
    """A file name of an address: example.org-guide-lora."""
    return re.sub(r"[^\w.]+", "-", url.partition("://")[2]).strip("-.")[:120] or "page"
