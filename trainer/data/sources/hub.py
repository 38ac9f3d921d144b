"""A data set of the Hugging Face Hub, streamed. Source name: `hf:owner/name[:config][@revision][#split]`.

The revision is pinned to its commit before anything is read, and the commit is recorded. Code in a data set is never
run: `datasets` 4 and later cannot. A token is taken from HF_TOKEN by huggingface_hub itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from trainer.config import UserError
from trainer.data.documents import plain
from trainer.data.sources.incoming import Environ, Incoming, Item, Options, Part, note

NAME = re.compile(
    r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@#]+))?(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?"
)


class HubOptions(Options):
    """No options: the name says all."""


def open_hub(target: str, options: HubOptions, environ: Environ) -> Incoming:
    """Pin a data set and find its configuration and split. Raises UserError that lists what there is."""
    given = NAME.fullmatch(target.strip())
    if not given:
        raise UserError(f"hf:{target}: give owner/name[:config][@revision][#split], as hf:gsm8k:main#train")
    name, config, revision, split = (given[part] for part in ("id", "config", "revision", "split"))
    commit, licence = _told(name, lambda: _pinned(name, revision))
    config, split, features, rows = _told(name, lambda: _chosen(name, commit, config, split))
    pinned = f"hf:{name}{':' + config if config != 'default' else ''}@{commit}#{split}"
    facts = {"revision": commit, "asked_revision": revision or "main", "config": config, "split": split}
    incoming = Incoming(pinned, [], total=rows, facts=facts)
    if licence:
        facts["licence"] = licence
    left = [column for column, kind in (features or {}).items() if type(kind).__name__ in MEDIA]
    if left:
        incoming.notes.append(note("media", columns=", ".join(left)))
    incoming.parts = [Part(split, lambda: _rows(name, config, commit, split, features, left))]
    return incoming


MEDIA = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")


def _pinned(name: str, revision: str | None) -> tuple[str, str]:
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(name, revision=revision)
    licence = (found.card_data or {}).get("license") if found.card_data else None
    return found.sha, licence if isinstance(licence, str) else ""


def _chosen(
    name: str, commit: str, config: str | None, split: str | None
) -> tuple[str, str, Any, int | None]:
    """(config, split, features or None, rows or None)."""
    import datasets

    configs = datasets.get_dataset_config_names(name, revision=commit)
    if config is None and len(configs) > 1 and "default" not in configs:
        raise UserError(
            f"hf:{name} has several configurations; give one: hf:{name}:{configs[0]} ({', '.join(configs[:20])})"
        )
    config = config or ("default" if "default" in configs else configs[0])
    if config not in configs:
        raise UserError(f"hf:{name} has no configuration {config!r}; choose one of {', '.join(configs[:20])}")
    builder = datasets.load_dataset_builder(name, config, revision=commit)
    splits = list(builder.info.splits or {}) or datasets.get_dataset_split_names(
        name, config, revision=commit
    )
    split = split or ("train" if "train" in splits else splits[0])
    if split not in splits:
        raise UserError(f"hf:{name} has no split {split!r}; choose one of {', '.join(splits)}")
    known = (builder.info.splits or {}).get(split)
    return config, split, builder.info.features, getattr(known, "num_examples", None)


def _rows(name: str, config: str, commit: str, split: str, features: Any, left: list[str]) -> Iterator[Item]:
    import datasets

    def opened() -> Any:
        found = datasets.load_dataset(name, config, split=split, revision=commit, streaming=True)
        return found.remove_columns(left) if left else found

    stream = _told(name, opened)
    kinds = stream.features or features or {}
    rows = iter(stream)
    number = 0
    while (row := _told(name, lambda: next(rows, None))) is not None:
        number += 1
        yield (
            f"row {number}",
            {column: plain(_named(value, kinds.get(column))) for column, value in row.items()},
        )


def _named(value: Any, kind: Any) -> Any:
    """Numbers of a ClassLabel as their names, also in lists; -1, which says "none", as None."""
    if isinstance(value, list):
        inner = getattr(kind, "feature", kind[0] if isinstance(kind, list) and kind else None)
        return [_named(item, inner) for item in value]
    if type(kind).__name__ == "ClassLabel" and isinstance(value, int):
        return kind.int2str(value) if value >= 0 else None
    return value


def _told(name: str, work: Callable[[], Any]) -> Any:
    """What a call to the Hub gives; its failures in one line."""
    import requests
    from huggingface_hub import errors

    try:
        return work()
    except errors.GatedRepoError:
        raise UserError(
            f"hf:{name}: its owner asks for consent; accept on its page, then set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"hf:{name}: no such data set, or a private one; check the name, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"hf:{name}: no such revision; give a branch, tag or commit") from None
    except errors.OfflineModeIsEnabled:
        raise UserError(f"hf:{name}: HF_HUB_OFFLINE is set; unset it to reach the Hub") from None
    except UserError:
        raise
    except (errors.HfHubHTTPError, OSError, requests.RequestException, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"hf:{name}: cannot be read: {first}") from None
