"""Commands about exported models: export, verify, push, combine and what Ollama holds; part of ui/cli.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError
from ui.cli_runs import Json, RunId, emit, folder_of, follow, jobs

ollama_app = typer.Typer(help="List and remove models in Ollama.", no_args_is_help=True)
Name = Annotated[str | None, typer.Option(help="Name in Ollama; default task:version.")]
NOT_READY = "is not ready: it answers otherwise than in training"


def export(
    run_id: RunId,
    to: Annotated[str, typer.Option(help="merged, adapter, gguf, ollama, gptq or awq.")] = "gguf",
    name: Name = None,
    quantize: Annotated[
        str | None, typer.Option(help="gguf: q8_0, with its cost; ollama: q8_0, q4_K_M or q4_K_S.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a finished run and prove that it answers as it did in training."""
    from trainer.export import TARGETS

    targets = [target for target in TARGETS if target not in ("verify", "hub")]  # commands of their own
    if to not in targets:
        raise UserError(f"--to {to}: choose one of {', '.join(targets)}")
    folder = folder_of(run_id)
    arguments = {"to": to, "name": name, "quantize": quantize}
    work(folder, {key: value for key, value in arguments.items() if value}, as_json)
    if to == "merged" and not as_json:
        from trainer.export.serving import vllm_command

        typer.echo(vllm_command(folder, folder.config()))
    if to == "adapter" and not as_json:
        from trainer.export.serving import vllm_adapter_command

        typer.echo(vllm_adapter_command(folder.config().base_model, [folder], folder.config()))
    if to in ("gguf", "ollama") and not as_json:
        show(folder)


def verify(run_id: RunId, name: Name = None, as_json: Json = False) -> None:
    """Prove an exported run again, in llama.cpp and in Ollama where it is there: prompts, tokens, answers, score."""
    folder = folder_of(run_id)
    if not (folder.path / "export" / "model.gguf").is_file():
        raise UserError(f"{folder.id}: is not exported yet; run `tunesmith export {folder.id} --to gguf`")
    work(folder, {"to": "verify"} | ({"name": name} if name else {}), True, quiet=as_json)
    report = json.loads((folder.path / "export" / "parity.json").read_text(encoding="utf-8"))
    if as_json:
        emit({"id": folder.id, **report})
    else:
        show(folder)
    if not report["ready"] or any(step["state"] == "failed" for step in report["steps"]):
        raise typer.Exit(1)


def push(
    run_id: RunId,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face Hub.")],
    what: Annotated[str, typer.Option(help="adapter, merged, gguf or dataset.")] = "adapter",
    public: Annotated[bool, typer.Option(help="Let everybody see it; private otherwise.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Really upload; without it only the list is shown.")
    ] = False,
    licence: Annotated[
        str, typer.Option(help="The base model's licence, where nothing else says it, such as apache-2.0.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Upload a run to the Hugging Face Hub with its model card. Shows every file first; the token is HF_TOKEN's."""
    from trainer.export.hub import plan

    folder = folder_of(run_id)
    made = plan(folder, repo, what, public, licence)
    if not as_json:
        from ui.i18n import screen_lang
        from ui.terminal_export import print_push

        print_push(made, yes, screen_lang())
    elif not yes:
        files = [{"name": name, "bytes": size} for name, size in made.rows()]
        emit({"id": folder.id, "repo": repo, "what": what, "public": public, "files": files, "sent": False})
    if yes:
        hub = {"repo": repo, "what": what, "public": public, "licence": licence}
        work(folder, {"to": "hub", "hub": hub}, as_json)


def work(folder: Any, arguments: dict[str, Any], as_json: bool, quiet: bool = False) -> None:
    """Run an export job and wait for it. Status 1 where the model is not ready."""
    from ui.home import home

    if arguments["to"] in ("ollama", "verify"):
        arguments["host"] = home().settings().ollama_host
    jobs().submit(folder, "export", arguments)
    verifying = arguments["to"] == "verify"
    pushing = arguments["to"] == "hub"
    follow(folder, as_json and not verifying, "export", quiet=quiet)
    if not verifying and not pushing and folder.status("export").get("ready") is False:
        typer.echo(f"tunesmith: {folder.id} {NOT_READY}; `tunesmith verify {folder.id}` says where", err=True)
        raise typer.Exit(1)


def show(folder: Any) -> None:
    """The parity report and, where it is there, what quantizing cost."""
    from ui.i18n import screen_lang
    from ui.terminal_export import print_costs, print_parity

    out = folder.path / "export"
    print_parity(json.loads((out / "parity.json").read_text(encoding="utf-8")), screen_lang())
    if (out / "quantized.json").is_file():
        print_costs(json.loads((out / "quantized.json").read_text(encoding="utf-8")), screen_lang())


def combine(
    out: Annotated[Path, typer.Argument(help="Folder for the combined model.")],
    parts: Annotated[list[str], typer.Argument(metavar="ID=WEIGHT...", help="Runs, such as reviews/v1=0.7.")],
    gguf: Annotated[bool, typer.Option(help="Write OUT.gguf as well.")] = False,
    as_json: Json = False,
) -> None:
    """Combine several runs' LoRA adapters on their common base into one model, each by its weight."""
    wanted = [weighted(part) for part in parts]
    if out.exists():
        raise UserError(f"{out}: is there already; give another folder")
    from trainer.export.merge import combine

    report = combine(wanted, out)
    if gguf:
        from trainer.export.gguf import write_gguf

        report["gguf"] = str(write_gguf(out, out.with_name(out.name + ".gguf")))
    emit(report) if as_json else typer.echo(f"wrote {out}" + (f" and {report['gguf']}" if gguf else ""))


def weighted(part: str) -> tuple[Any, float]:
    run_id, sep, weight = part.partition("=")
    try:
        return folder_of(run_id), float(weight) if sep else 1.0
    except ValueError:
        raise UserError(
            f"{part!r}: {weight!r} is no number; write ID=WEIGHT, such as reviews/v1=0.7"
        ) from None


def vote_list(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    to: Annotated[Path | None, typer.Option(help="Write the decided votes as rows for DPO (.jsonl).")] = None,
    as_json: Json = False,
) -> None:
    """Blind votes of a task, cast in the Test tab: win rates, and rows for DPO with --to."""
    from trainer import runs, votes
    from ui.home import home
    from ui.i18n import screen_lang
    from ui.terminal_export import print_votes

    folder = runs.newest(home().tasks, task).path.parents[1]
    if to:
        written = votes.export(folder, to)
        emit({"task": task, "rows": written, "file": str(to)}) if as_json else typer.echo(f"wrote {written} rows to {to}")  # fmt: skip
        return
    rows = votes.tally(votes.read(folder))
    emit(rows) if as_json else print_votes(rows, screen_lang())


@ollama_app.command("list")
def ollama_list(as_json: Json = False) -> None:
    """Models on the Ollama server, newest first."""
    from ui.terminal_export import print_served

    models = server().models()
    emit(models) if as_json else print_served(models)


@ollama_app.command("remove")
def ollama_remove(name: Annotated[str, typer.Argument(help="Model, such as reviews:v1.")]) -> None:
    """Take a model off the Ollama server."""
    server().delete(name)
    typer.echo(f"removed {name}")


def server() -> Any:
    from trainer.export.ollama import Ollama
    from ui.home import home
    from ui.i18n import screen_lang

    return Ollama(home().settings().ollama_host, screen_lang())


def register(app: typer.Typer) -> None:
    for name, command in {
        "export": export,
        "verify": verify,
        "push": push,
        "combine": combine,
        "votes": vote_list,
    }.items():
        app.command(name)(command)
    app.add_typer(ollama_app, name="ollama")
