"""A trained run → a model to chat with: merge → GGUF → proof against transformers → Ollama.

`export(folder, to="gguf")`, as a job of kind "export". All of it lands in RUN/export: merged/, model.gguf,
base.gguf (the untrained base, to compare), parity.json, Modelfile, status.json; adapter.gguf, model-q8_0.gguf and
quantized.json, gptq/ or awq/ where asked for. Stages that are done stay done, so a killed export goes on.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError, write_atomic
from trainer.methods import METHODS
from trainer.runs import RunFolder

TARGETS = ("merged", "adapter", "gguf", "ollama", "gptq", "awq", "verify", "hub")


def export(
    folder: RunFolder,
    to: str = "gguf",
    name: str | None = None,
    host: str | None = None,
    quantize: str | None = None,
    hub: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Export a finished run. Returns what was made: {"merged", "gguf", "parity", "ollama", …}, as far as asked.

    to: one of TARGETS; "verify" proves again what is exported, in llama.cpp and in Ollama where it is there. name:
    in Ollama, default task:version; host: of Ollama. quantize: for "gguf" q8_0, with what it costs; for "ollama"
    q8_0, q4_K_M or q4_K_S, made there. A model that fails the proof is kept, marked "ready": false in status.json
    and parity.json, and not handed to Ollama. hub: arguments of hub.plan, {"repo", "what", "public", "licence"}, for
    "hub". Raises UserError.
    """
    if to not in TARGETS:
        raise UserError(f"export to {to!r}: choose one of {', '.join(TARGETS)}")
    if folder.attempt is not None:  # a worker reports the end itself
        return _push(folder, hub) if to == "hub" else _export(folder, to, name, host, quantize)
    folder = dataclasses.replace(folder, kind="export")
    folder.set_status(state="running", message="")
    try:
        made = _push(folder, hub) if to == "hub" else _export(folder, to, name, host, quantize)
    except BaseException as error:
        folder.set_status(
            state="failed", stage="", message=" ".join(str(error).split()) or type(error).__name__
        )
        raise
    folder.set_status(state="done", stage="", message="")
    return made


def _export(
    folder: RunFolder, to: str, name: str | None, host: str | None, quantize: str | None
) -> dict[str, Any]:
    from trainer.export.merge import merge
    from trainer.export.modelfile import model_name
    from trainer.export.push import check_name, server_at, server_with

    server = None
    _check_kind(folder, folder.config(), to)
    _check_quantize(to, quantize)
    if to in ("gptq", "awq"):
        from trainer.export.gptq import check_gpu

        check_gpu(to)
    if to in ("ollama", "verify"):  # before an hour of work
        name = check_name(name or model_name(folder.id))
    if to == "verify":
        if not (folder.path / "export" / "model.gguf").is_file():
            raise UserError(f"{folder.id}: is not exported yet; run `tunesmith export {folder.id} --to gguf`")
        return {"parity": _prove(folder, server_with(host, name or ""), again=True)}
    if to == "ollama":
        server = server_at(host)
    config = folder.config()
    if to == "adapter":
        return _write_adapter(folder, config)
    _check_disk(folder, config, to, quantize)
    folder.set_status(stage="merge", step=0, total_steps=None)
    made: dict[str, Any] = {"merged": merge(folder)}
    if to == "merged":
        from trainer.export.serving import vllm_command

        made["vllm"] = vllm_command(folder, config)
        print(f"serve it with: {made['vllm']}", flush=True)
        return made
    if to in ("gptq", "awq"):
        from trainer.export.gptq import quantize as quantized

        return made | {to: quantized(folder, to)}
    made["gguf"] = _write_files(folder, config, made["merged"])
    made["parity"] = _prove(folder)
    settings = _write_modelfile(folder, config, made["merged"], made["gguf"])
    if quantize and to == "gguf":
        made["quantized"] = _quantize(folder)
    if server is not None:
        made["ollama"] = _hand_over(folder, server, name or "", made, settings, quantize)
    return made


def _check_kind(folder: RunFolder, config: RunConfig, to: str) -> None:
    """Raise UserError for what no engine runs, before anything is written."""
    output = METHODS[config.method].output
    if output != "text" and to != "merged":
        what = "a classifier" if output == "labels" else "a reward model"
        raise UserError(
            f"{folder.id}: {what} gives {output}, not words, so llama.cpp and Ollama cannot run it; export to merged, "
            f"a folder for transformers"
        )


def _push(folder: RunFolder, hub: dict[str, Any] | None) -> dict[str, Any]:
    """To the Hub. Whether the model is proven ready stays as it was told before."""
    from trainer.export import hub as repository

    folder.set_status(stage="upload", step=0, total_steps=None)
    made = repository.plan(folder, **{"repo": "", **(hub or {})})
    address = repository.send(made, _reporter(folder, 1_000_000))
    repository.note(made, address)
    return {"hub": address}


def _check_quantize(to: str, quantize: str | None) -> None:
    from trainer.export.push import QUANTIZATIONS

    allowed = {"ollama": QUANTIZATIONS, "gguf": ("q8_0",)}
    if quantize and quantize not in allowed.get(to, ()):
        raise UserError(
            f"quantize {quantize!r}: with --to ollama one of {', '.join(QUANTIZATIONS)}, with --to gguf q8_0"
        )


def _write_adapter(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """adapter.gguf, and base.gguf to put it on."""
    from trainer import base
    from trainer.export.adapter import write_adapter
    from trainer.export.gguf import write_gguf

    out, base_path = folder.path / "export", base.locate(config, folder.path)
    adapter = write_adapter(folder.path / "adapter", base_path, out / "adapter.gguf")
    if not (out / "base.gguf").is_file():
        _check_disk(folder, config, "adapter", None)
        folder.set_status(stage="gguf", step=0, total_steps=None)
        write_gguf(base_path, out / "base.gguf", progress=_reporter(folder, 1_000_000))
    print(f"wrote {adapter} ({adapter.stat().st_size / 1e6:.1f} MB)", flush=True)
    return {"adapter": adapter, "base": out / "base.gguf"}


def _quantize(folder: RunFolder) -> dict[str, Any]:
    from trainer.export.quantize import cost_of_q8_0

    folder.set_status(stage="quantize", step=0, total_steps=None)
    cost = cost_of_q8_0(folder, _reporter(folder, 1_000_000))
    before, after = (cost["q8_0"]["perplexity"][when] for when in ("before", "after"))
    print(f"q8_0: perplexity {before:.4g} before, {after:.4g} after", flush=True)
    return cost


def _check_disk(folder: RunFolder, config: RunConfig, to: str, quantize: str | None) -> None:
    """Before anything is written. Raises UserError with what is needed and what is free, in GB."""
    from trainer import base

    out = folder.path / "export"
    base_bytes = _weight_bytes(base.locate(config, folder.path))
    merges = not config.keeps_whole_model and not (out / "merged").is_dir() and to != "adapter"
    needed = base_bytes if merges else 0
    if to == "adapter":
        needed += base_bytes
    elif to != "merged":
        needed += sum(base_bytes for file in ("model.gguf", "base.gguf") if not (out / file).is_file())
    if quantize and to == "gguf" and not (out / "model-q8_0.gguf").is_file():
        needed += base_bytes  # about half of it, for weights of 16 bits
    for left in out.glob(".*.part"):  # of an export that was killed
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder.path).free
    if needed * 1.05 > free:
        raise UserError(
            f"{out}: the export needs {needed * 1.05 / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free some space, then export again"
        )


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _write_files(folder: RunFolder, config: RunConfig, merged: Path) -> Path:
    """model.gguf and base.gguf, unless they are there and newer than what they are made from."""
    from trainer import base
    from trainer.export.gguf import write_gguf

    out = folder.path / "export"
    folder.set_status(stage="gguf", step=0, total_steps=None)
    for source, target in (
        (merged, out / "model.gguf"),
        (base.locate(config, folder.path), out / "base.gguf"),
    ):
        if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        if target.name == "model.gguf":
            (out / "parity.json").unlink(missing_ok=True)  # it speaks of the older file
        write_gguf(source, target, progress=_reporter(folder, 1_000_000))
        print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)", flush=True)
    return out / "model.gguf"


def _prove(folder: RunFolder, server: tuple[Any, str] | None = None, again: bool = False) -> dict[str, Any]:
    from trainer.export.parity import check

    path, gguf = folder.path / "export" / "parity.json", folder.path / "export" / "model.gguf"
    folder.set_status(stage="parity", step=0, total_steps=None)
    if again or not path.is_file() or path.stat().st_mtime < gguf.stat().st_mtime:
        check(folder, progress=_reporter(folder), server=server)
    parity = json.loads(path.read_text(encoding="utf-8"))
    folder.set_status(ready=parity["ready"])
    said = "the same" if parity["ready"] else f"NOT the same. {parity['cause']['en']}"
    print(f"parity: {parity['same']} of {parity['rows']} rows ({parity['compared']}): {said}", flush=True)
    return parity


def _write_modelfile(folder: RunFolder, config: RunConfig, merged: Path, gguf: Path) -> dict[str, Any]:
    """Modelfile beside the GGUF file; returns what `push` needs of it."""
    from trainer import base
    from trainer.data.stage import thaw
    from trainer.export.header import read_header
    from trainer.export.modelfile import PROBES, go_template, modelfile, parameters
    from trainer.export.vocabulary import read_json

    tokenizer = base.load_tokenizer(merged)

    def render(chat: list[dict[str, str]]) -> str:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text.removeprefix(tokenizer.bos_token or "")

    staged = thaw(folder.path / "data")
    generation = read_json(merged / "generation_config.json")
    greedy = bool(staged and staged.card["labels"])
    settings = parameters(config, read_header(gguf), greedy, generation)
    template = go_template([render(chat) for chat in PROBES]) if tokenizer.chat_template else None
    text = modelfile(gguf, template, settings, config.system_prompt)
    write_atomic(folder.path / "export" / "Modelfile", text)
    return {"template": template, "parameters": settings, "system": config.system_prompt, "render": render}


def _hand_over(
    folder: RunFolder,
    server: Any,
    name: str,
    made: dict[str, Any],
    settings: dict[str, Any],
    quantize: str | None,
) -> str:
    from trainer.export.push import push

    parity = made["parity"]
    if not parity["ready"]:
        raise UserError(
            f"{folder.id}: not handed to Ollama: llama.cpp answers as in training on only {parity['same']} of "
            f"{parity['rows']} rows. {parity['cause']['en']}"
        )
    folder.set_status(stage="ollama", step=0, total_steps=None)
    rendered = push(server, name, made["gguf"], **settings, quantize=quantize)
    print(
        f"ollama: {name} is ready" + ("" if rendered else "; this server cannot show how it renders"),
        flush=True,
    )
    return name


def _reporter(folder: RunFolder, unit: int = 1) -> Callable[[int, int], None]:
    """A progress callback that writes the status twice a second at most."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            folder.set_status(step=done // unit, total_steps=max(1, total // unit))

    return report
