"""A trained run → a repository on the Hugging Face Hub: `tunesmith push ID OWNER/NAME`.

`plan(…)` says what would be sent, without a network; `send(plan)` sends it, as a job of kind "export". Files go up
one by one, then one commit names them all and a tag gives it the run's version: who is killed half-way goes on with
the first file that the Hub does not hold yet. The token is huggingface_hub's own (HF_TOKEN, or `hf auth login`); it is
never an argument here, so no file and no log can hold it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from trainer.atomic import read_object, write_atomic
from trainer.base import HUB_ID
from trainer.config import RunConfig, UserError
from trainer.export import terms
from trainer.runs import RunFolder

WHATS = ("adapter", "merged", "gguf", "dataset")
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SPLITS = {"train": "train", "eval": "validation", "test": "test"}
LEFT_OUT = ("README.md", "training_args.bin")  # a card of PEFT's that says nothing; a pickle


@dataclass(frozen=True)
class Push:
    """What would be sent: `files` maps a name in the repository to a file here, or to a text made for it."""

    folder: RunFolder
    repo: str
    what: str
    public: bool
    files: dict[str, Path | bytes]

    @property
    def kind(self) -> str:
        return "dataset" if self.what == "dataset" else "model"

    def rows(self) -> list[tuple[str, int]]:
        """(name, bytes) of every file, by name."""
        size = lambda one: len(one) if isinstance(one, bytes) else one.stat().st_size
        return [(name, size(self.files[name])) for name in sorted(self.files)]


def plan(
    folder: RunFolder, repo: str, what: str = "adapter", public: bool = False, licence: str = ""
) -> Push:
    """What a push of the run would send. Raises UserError where there is nothing to send, or a licence forbids it.

    what: one of WHATS. licence: what the person says of the base's licence, where nothing else says it.
    """
    if what not in WHATS:
        raise UserError(f"--what {what}: choose one of {', '.join(WHATS)}")
    if not HUB_ID.fullmatch(repo):
        raise UserError(
            f"{repo!r}: not a repository of the Hub; write OWNER/NAME in ASCII, such as me/reviews"
        )
    config = folder.config()
    held = terms.of_run(folder, config, licence)
    terms.check(held, repo, public, what)
    card = _card_of(folder)
    if what == "dataset":
        return Push(folder, repo, what, public, _dataset(folder, held))
    from trainer.project.texts import model_card

    files = {"adapter": _adapter, "merged": _merged, "gguf": _gguf}[what](folder, config)
    files |= {file.name: file for file in held.files}
    if text := terms.notice(held):
        files["NOTICE"] = text.encode()
    files["README.md"] = model_card(folder, config, card, what, held).encode()
    return Push(folder, repo, what, public, files)


def send(push: Push, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """Send a push; returns the repository's address. progress: bytes done and in all. Raises UserError."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    if not get_token():
        raise UserError("the Hub needs a token: set HF_TOKEN, or run `hf auth login`, then push again")
    disable_progress_bars()
    api, where = HfApi(), {"repo_id": push.repo, "repo_type": push.kind}
    source = lambda one: one if isinstance(one, bytes) else str(one)
    operations = {name: CommitOperationAdd(name, source(push.files[name])) for name in sorted(push.files)}
    sizes = dict(push.rows())
    total, done = sum(sizes.values()), 0
    try:
        address = str(api.create_repo(**where, private=not push.public, exist_ok=True))
        if push.public is False and not api.repo_info(**where).private:
            raise UserError(
                f"{push.repo}: is there already and is public; give another name, or push with --public"
            )
        for name, operation in operations.items():
            api.preupload_lfs_files(**where, additions=[operation], free_memory=False)
            done += sizes[name]
            progress(done, total)
            print(f"{name}: {sizes[name]:,} bytes", flush=True)
        commit = api.create_commit(
            **where,
            operations=[*operations.values(), *_stale(api, where, push)],
            commit_message=push.folder.id,
        )
        _tag(api, where, push.folder.version, commit.oid)
    except HfHubHTTPError as error:
        _refused(error, push)
    print(f"{address} at {push.folder.version}", flush=True)
    return address


def note(push: Push, address: str) -> None:
    """Keep in RUN/export/hub.json what went where: by form, {"address", "tag", "public", "time"}."""
    path = push.folder.path / "export" / "hub.json"
    told = pushed(push.folder) | {
        push.what: {
            "address": address,
            "tag": push.folder.version,
            "public": push.public,
            "time": round(time.time()),
        }
    }
    write_atomic(path, json.dumps(told, ensure_ascii=False, indent=1))


def pushed(folder: RunFolder) -> dict[str, Any]:
    """What `note` kept; {} for nothing."""
    return read_object(folder.path / "export" / "hub.json")


def _adapter(folder: RunFolder, config: RunConfig) -> dict[str, Path | bytes]:
    name = "model" if config.keeps_whole_model else "adapter"
    found = _files(folder.path / name, folder, f"train it to its end: tunesmith train {folder.task}")
    settings = found.get("adapter_config.json")
    if isinstance(settings, Path):
        values = json.loads(settings.read_text(encoding="utf-8"))
        named = str(values.get("base_model_name_or_path") or "")
        if Path(named).is_absolute():  # a path of this machine means nothing elsewhere, and tells of it
            values["base_model_name_or_path"] = Path(named).name
            found["adapter_config.json"] = json.dumps(values, ensure_ascii=False, indent=2).encode()
    return found


def _merged(folder: RunFolder, config: RunConfig) -> dict[str, Path | bytes]:
    return _files(folder.path / "export" / "merged", folder, f"run: tunesmith export {folder.id} --to merged")


def _gguf(folder: RunFolder, config: RunConfig) -> dict[str, Path | bytes]:
    out, how = folder.path / "export", f"run: tunesmith export {folder.id} --to gguf"
    found = {
        name: out / name for name in ("model.gguf", "model-q8_0.gguf", "Modelfile") if (out / name).is_file()
    }
    if "model.gguf" not in found:
        raise UserError(f"{folder.id}: has no GGUF file yet; {how}")
    if not read_object(out / "parity.json").get("ready"):
        raise UserError(
            f"{folder.id}: its GGUF file is not proven equal to the trained model; run: tunesmith verify {folder.id}"
        )
    return found


def _files(place: Path, folder: RunFolder, how: str) -> dict[str, Path | bytes]:
    """Every file of a folder of weights; hidden ones and pickles stay here."""
    found = [
        file
        for file in sorted(place.rglob("*"))
        if file.is_file() and file.name not in LEFT_OUT and not file.name.startswith(".")
    ]
    if not any(file.suffix == ".safetensors" for file in found):
        raise UserError(f"{folder.id}: has no {place.name}/ to send; {how}")
    return {file.relative_to(place).as_posix(): file for file in found}


def _dataset(folder: RunFolder, held: terms.Terms) -> dict[str, Path | bytes]:
    from trainer.data.card import card_text

    data = folder.path / "data"
    files = {f"{name}.jsonl": data / f"{name}.jsonl" for name in SPLITS if (data / f"{name}.jsonl").stat().st_size}  # fmt: skip
    text = card_text(f"{folder.task} {folder.version}", list(files.values()), held.data or "unknown")
    return {**files, "README.md": text.encode()}


def _card_of(folder: RunFolder) -> dict[str, Any]:
    from trainer.data.stage import thaw

    staged = thaw(folder.path / "data")
    if staged is None:
        raise UserError(f"{folder.id}: has no frozen rows yet; train it first: tunesmith train {folder.task}")
    return staged.card


def _stale(api: Any, where: dict[str, str], push: Push) -> list[Any]:
    """Shards of an older version, which the new index no longer names. Other files there are the person's."""
    from huggingface_hub import CommitOperationDelete

    if not any(name.endswith(".safetensors") for name in push.files):
        return []
    there = api.list_repo_files(**where)
    return [CommitOperationDelete(name) for name in there if SHARD.fullmatch(name) and name not in push.files]


def _tag(api: Any, where: dict[str, str], version: str, commit: str) -> None:
    """Let the tag `version` name the commit; one that names an older push of the same run is moved."""
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(**where).tags}
    if tags.get(version) == commit:
        return
    if version in tags:
        api.delete_tag(**where, tag=version)
    api.create_tag(**where, tag=version, revision=commit)


def _refused(error: Any, push: Push) -> NoReturn:
    """A refusal of the Hub in one line, with the way out; never with a header of the request."""
    status = getattr(error.response, "status_code", 0)
    if status in (401, 403):
        raise UserError(
            f"{push.repo}: the Hub does not let this token write there; make one with write access at huggingface.co/settings/tokens, then push again"
        ) from None
    said = " ".join(str(getattr(error, "server_message", "") or "").split())[:160]
    raise UserError(
        f"{push.repo}: the Hub answered {status} {said}; push again to go on where it stopped"
    ) from None
