"""A run before the run: the same worker, data, template and longest rows through a tiny random model, on the CPU.

`begin()` makes the folder and queues it, `perform()` is what the worker does, `report()` what was found. A rehearsal
is a run folder under HOME/rehearsals/tasks/TASK/runs, which is laid out like a home of its own: no version of the
task counts it, and its queue waits for no training. `tunesmith train RUN.yaml --rehearse`; about a minute.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer import config as run_config
from trainer import runs
from trainer.config import STARTER, RunConfig, UserError, write_atomic
from trainer.data.convert import Row, contents
from trainer.jobs import Jobs
from trainer.methods import KINDS, METHODS
from trainer.methods import check as check_methods
from trainer.runs import RunFolder, Superseded

STEPS = 3
TOKENS = 4096  # of one step on the CPU, rows counted as long as max_length
MEASURED = 1000  # longest rows, and as many of the others, whose tokens are counted
HELD_OUT = 6  # rows of each held-out part
ROOM = 16  # tokens of an answer
PLAN, REPORT = "rehearsal.json", "report.json"

# check: what it is called, and the page that says what to do where it fails
CHECKS: dict[str, tuple[str, str, str]] = {
    "data": ("Data file", "資料檔", "datasets/formats#which"),
    "model": ("Base model", "基底模型", "models/choosing#by-memory"),
    "template": ("Chat template", "對話範本", "methods/chat-templates#what-it-is"),
    "length": ("Row lengths", "資料長度", "methods/packing-and-length#truncation"),
    "train": ("Training steps", "訓練步驟", "troubleshooting/loss-not-falling#signs"),
    "evaluate": ("Scoring", "評分", "guides/evaluation-and-metrics#metrics-by-task"),
    "merge": ("Merging", "合併權重", "methods/qlora#merging"),
    "gguf": ("GGUF file", "GGUF 檔", "troubleshooting/export-talks-nonsense#template"),
    "parity": ("Same answers in llama.cpp", "與 llama.cpp 一致", "guides/evaluation-and-metrics#parity-after-export"),
    "chat": ("One chat", "對話一次", "methods/chat-templates#serving"),
}  # fmt: skip
SAID: dict[str, tuple[str, str]] = {
    "data": ("{format}: {train} rows to train on, {eval} to evaluate, {test} to test; left out or mended: {faults}",
             "{format}：訓練 {train} 筆、評估 {eval} 筆、測試 {test} 筆；略過或修正：{faults}"),
    "model_whole": ("{architecture}, {weights:,} weights, the model itself", "{architecture}，{weights:,} 個參數，即模型本身"),
    "model_small": ("{architecture} shrunk to {weights:,} random weights, with its own tokenizer and template",
                    "{architecture} 縮小為 {weights:,} 個隨機參數，使用原本的分詞器與範本"),
    "model_far": ("{architecture} shrunk to {weights:,} random weights. NOT checked: its own tokenizer, template and lengths, which cannot be had here (the starter's stand in), and the download that the run will need",
                  "{architecture} 縮小為 {weights:,} 個隨機參數。未檢查：模型自己的分詞器、範本與長度（這裡拿不到，以起步模型的代替），以及正式訓練所需的下載"),
    "template": ("{rows} rows render; each ends with {end}", "{rows} 筆皆可套用；每筆以 {end} 結尾"),
    "template_no_end": ("{rows} rows render, but not one ends with {end}: the model would not learn to stop",
                        "{rows} 筆皆可套用，但結尾都不是 {end}：模型學不會停止"),
    "template_fails": ("the template refuses the row that begins with {row!r}: {error}",
                       "範本無法套用於這筆資料（開頭為 {row!r}）：{error}"),
    "length": ("median {p50}, longest {longest} of {max_length} tokens; user's text shortened in {cut} rows; {loss:.0%} of the tokens carry loss",
               "中位數 {p50}、最長 {longest}，上限 {max_length} 個詞元；{cut} 筆的使用者文字被截短；{loss:.0%} 的詞元計算損失"),
    "length_turns": ("median {p50}, longest {longest} of {max_length} tokens; user's text shortened in {cut} rows",
                     "中位數 {p50}、最長 {longest}，上限 {max_length} 個詞元；{cut} 筆的使用者文字被截短"),
    "answer_cut": ("{rows} of the {of} rows measured lose the end of their answer: the longest answer needs {longest} tokens, max_length is {max_length}. Raise max_length or shorten those answers",
                   "量測的 {of} 筆中有 {rows} 筆的回答會被截斷：最長需要 {longest} 個詞元，max_length 為 {max_length}。請提高 max_length 或縮短回答"),
    "train": ("{steps} updates on the longest rows, loss {loss:.3f}; rows of a batch: {batch}", "以最長的資料更新 {steps} 次，損失 {loss:.3f}；每批 {batch} 筆"),
    "not_finite": ("the loss became NaN or infinite", "損失變成 NaN 或無限大"),
    "evaluate": ("{task}: {rows} test rows scored, trained and untrained", "{task}：評分 {rows} 筆測試資料，訓練前後各一次"),
    "no_test": ("no test rows: the run will not be scored", "沒有測試資料：正式訓練將沒有成績"),
    "merge": ("merged, and equal to base + adapter", "已合併，且等同基底＋適配器"),
    "gguf": ("written, {mb:.1f} MB", "已寫出，{mb:.1f} MB"),
    "parity": ("the prompt and {same} of {rows} answers are the same", "提示相同，{rows} 筆中有 {same} 筆回答相同"),
    "parity_bad": ("only {same} of {rows} answers are the same. {cause}", "只有 {same}／{rows} 筆回答相同。{cause}"),
    "chat": ("llama.cpp answers: {text!r} (from a random model)", "llama.cpp 有回應：{text!r}（來自隨機模型）"),
    "not_merged": ("virtual tokens ({peft}) stay beside the base: no GGUF file, no Ollama", "虛擬 token（{peft}）只能放在基礎模型旁：沒有 GGUF，也不能用 Ollama"),
    "no_words": ("a model that gives labels or scores, not words: it stays in transformers", "輸出標籤或分數、而非文字的模型：只在 transformers 中使用"),
    "no_chat": ("no question in this data to ask", "這份資料沒有可問的問題"),
    "error": ("{error}", "{error}"),
    "skipped": ("not reached", "未執行"),
    "replaced": ("NOT checked: {what}", "未檢查：{what}"),
}  # fmt: skip


def begin(home: Path, config: RunConfig) -> RunFolder:
    """Queue a rehearsal of `config`; its folder. Earlier rehearsals of the task that have ended are removed."""
    root = home / "rehearsals"
    for old in runs.all_runs(root / "tasks"):
        if old.task == config.task and old.status()["state"] in runs.ENDED:
            shutil.rmtree(old.path, ignore_errors=True)
    folder = runs.create(root / "tasks", config)
    write_atomic(folder.path / PLAN, json.dumps(config.model_dump(), ensure_ascii=False))
    run_config.save(rehearsed(config, folder.path), folder.path / "run.yaml")
    Jobs(root).submit(folder)
    return folder


def rehearsed(config: RunConfig, folder: Path) -> RunConfig:
    """The run with the smallest changes that let a CPU do it in a minute; what changes nothing in the path stays."""
    least = 4 if config.method == "kto" else 1  # its KL term compares the rows of a batch
    changes: dict[str, Any] = {
        "device": "cpu",
        "processes": 1,
        "machines": 1,
        "parallel": "ddp",
        "report_to": [],
        "smoke": False,  # its memory is another model's
        "time_limit_hours": 0.0,
        "max_steps": STEPS,
        "logging_steps": 1,
        "batch_size": min(config.batch_size, max(least, TOKENS // config.max_length)),
        "gradient_accumulation": min(config.gradient_accumulation, 2),
        "eval_steps": min(config.eval_steps, 2),
        "save_steps": min(config.save_steps, 2),
        "max_new_tokens": min(config.max_new_tokens, ROOM),
    }
    if config.base_model != STARTER:
        changes["base_model"] = str(folder / "base")
    if (
        METHODS[config.method].shape == "prompts"
    ):  # whole groups of answers, and a teacher of the same vocabulary
        changes |= {"num_generations": 2, "batch_size": 2, "teacher_model": str(folder / "base")}
    if "8bit" in config.optim:  # bitsandbytes has its optimizers on a GPU only
        changes["optim"] = "adamw_torch"
    return config.model_copy(update=changes)


def report(folder: RunFolder) -> dict[str, Any]:
    """{"id", "folder", "ready", "exit", "seconds", "checks": [{"check", "state", "said": {en, zh-TW}, "page"}]}.

    `state`: ok, attention, failed or skipped. `exit`: 0 ready; 2 the input is wrong; 1 the work failed, which is
    also what a rehearsal that was killed gets.
    """
    try:
        found = json.loads((folder.path / REPORT).read_bytes())
    except (OSError, ValueError):
        found = {"checks": [], "seconds": None}
    checks = found["checks"]
    failed = [check for check in checks if check["state"] == "failed"]
    whole = {check["check"] for check in checks} >= CHECKS.keys()
    code = (2 if failed[0]["mistake"] else 1) if failed else 0 if whole else 1
    return {"id": folder.id, "folder": str(folder.path), "ready": code == 0, "exit": code, **found}


class Findings:
    """The checks as they are made, on disk after each."""

    def __init__(self, folder: RunFolder) -> None:
        self.path, self.began, self.checks = folder.path / REPORT, time.monotonic(), []

    def add(self, check: str, state: str, code: str, mistake: bool = False, **values: Any) -> None:
        english, chinese = (text.format(**values) for text in SAID[code])
        row = {"check": check, "state": state, "said": {"en": english, "zh-TW": chinese}, "mistake": mistake}
        self.checks.append({**row, "page": CHECKS[check][2]})
        text = {"seconds": round(time.monotonic() - self.began, 1), "checks": self.checks}
        write_atomic(self.path, json.dumps(text, ensure_ascii=False, indent=1))
        print(f"rehearsal: {check} {state}: {english}", flush=True)

    @contextlib.contextmanager
    def step(self, check: str | Callable[[], str]) -> Iterator[None]:
        """What is raised inside is the check's failure, and ends the rehearsal."""
        from trainer.worker import explain

        try:
            yield
        except (Ended, Superseded):
            raise
        except Exception as error:
            name = check if isinstance(check, str) else check()
            mistake = isinstance(error, UserError)
            if mistake:
                text = " ".join(str(error).split())
            else:
                traceback.print_exc()
                text = explain(error, RunFolder(self.path.parent))["message"]
            self.add(name, "failed", "error", mistake=mistake, error=text)
            raise Ended from None

    def skip_the_rest(self) -> None:
        done = {row["check"] for row in self.checks}
        for check in CHECKS:
            if check not in done:
                self.add(check, "skipped", "skipped")


class Ended(Exception):
    """A check failed, and those after it stand on it."""


def perform(folder: RunFolder, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Every stage of the run in its order, each a check. Returns `report()`; raises only what stops a worker."""
    findings = Findings(folder)
    config = RunConfig(**json.loads((folder.path / PLAN).read_text(encoding="utf-8")))
    with contextlib.suppress(Ended):
        _prepare(folder, config, findings)
        _train(folder, findings, should_stop)
        if not should_stop():
            _export(folder, findings)
            _chat(folder, findings)
    if not should_stop():
        findings.skip_the_rest()
    return report(folder)


def _prepare(folder: RunFolder, config: RunConfig, findings: Findings) -> None:
    """Data, model, template and lengths; leaves RUN/base and the longest rows frozen in RUN/data."""
    from trainer import base
    from trainer.data.stage import freeze, stage
    from trainer.data.tokens import fit
    from trainer.miniature import describe, make_miniature
    from trainer.train import prepare

    folder.set_status(stage="data", message="")
    with findings.step("data"):
        check_methods(config)
        staged = stage(config)
    parts = {name: getattr(staged.splits, name) for name in ("train", "eval", "test")}
    faults = ", ".join(f"{kind} {count}" for kind, count in staged.card["faults"].items() if count) or "0"
    counts = {name: len(rows) for name, rows in parts.items()}
    findings.add("data", "ok", "data", format=staged.card["format"], faults=faults, **counts)

    folder.set_status(stage="shrink")
    texts = (text for row in parts["train"] for text in contents(row))
    with findings.step("model"):
        if config.base_model == STARTER:
            # `prepare` is what the run itself calls: it makes the starter, from rows of which none is cut yet.
            few = config.model_copy(update={"device": "cpu"})
            path, tokenizer = prepare(folder, few, staged)
            made = describe(path)
            staged.splits.train, staged.splits.eval, staged.splits.test = parts.values()
        else:
            path = folder.path / "base"
            made = make_miniature(config, texts, path)
            tokenizer = base.load_tokenizer(path)
    code = "model_whole" if made.whole else "model_small" if made.own_tokenizer else "model_far"
    state = "ok" if made.own_tokenizer else "attention"
    findings.add("model", state, code, architecture=made.architecture, weights=made.weights)
    if "8bit" in config.optim:
        findings.add("model", "attention", "replaced", what=f"optim {config.optim}")

    with findings.step("template"):
        sample = {name: _longest(rows, MEASURED) for name, rows in parts.items()}
        _check_template([row for rows in sample.values() for row in rows], tokenizer, findings)
    with findings.step("length"):
        fitted = {name: fit(rows, tokenizer, config.max_length) for name, rows in sample.items()}
        _check_lengths(sample, fitted, tokenizer, config, findings)
    need = STEPS * (small := folder.config()).batch_size * small.gradient_accumulation
    staged.splits.train = _both_verdicts(fitted["train"][0], need)
    for name in ("eval", "test"):
        setattr(staged.splits, name, _both_verdicts(fitted[name][0], HELD_OUT))
    freeze(staged, folder.path / "data")


def _longest(rows: list[Row], count: int) -> list[Row]:
    """The `count` longest rows by characters, longest first, then as many of the others as they come."""
    sizes = [sum(map(len, contents(row))) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: -sizes[index])
    long = order[:count]
    others = sorted(order[count:])[:count]
    return [rows[index] for index in long + others]


def _both_verdicts(rows: list[Row], count: int) -> list[Row]:
    """The first rows (the longest), half of each verdict where rows carry one; repeated where there are too few."""
    good = [row for row in rows if row.get("label") is True]
    bad = [row for row in rows if row.get("label") is False]
    if good and bad:
        rows = [row for pair in zip(good, bad, strict=False) for row in pair]
    return rows[:count]


def _check_template(rows: list[Row], tokenizer: Any, findings: Findings) -> None:
    """Every row renders, and the answer's end mark is there to be learnt."""
    from trainer.data.tokens import endings, render

    conversations = [row for row in rows if "prompt" in row]
    ends = 0
    for row in conversations:
        try:
            text = render(row, row["prompt"] + endings(row)[0], tokenizer)
        except Exception as error:  # a template is a program of its own: it may raise anything
            first = contents(row)[0][:60] if contents(row) else ""
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            findings.add("template", "failed", "template_fails", mistake=True, row=first, error=reason)
            raise Ended from None
        ends += text.rstrip().endswith(tokenizer.eos_token or "")
    said = {"rows": len(conversations), "end": tokenizer.eos_token}
    if conversations and not ends:
        findings.add("template", "attention", "template_no_end", **said)
    else:
        findings.add("template", "ok", "template", **said)


def _check_lengths(
    sample: dict[str, list[Row]],
    fitted: dict[str, Any],
    tokenizer: Any,
    config: RunConfig,
    findings: Findings,
) -> None:
    """No answer loses its end; how long the rows are, and how much of them is learnt."""
    from trainer.data.tokens import lengths, prompt_lengths

    rows = [row for part in sample.values() for row in part if "prompt" in row]
    sizes = lengths(rows, tokenizer) or [config.max_length]  # plain text is divided into full rows
    values = {"max_length": config.max_length, "of": len(rows)}
    if cut := sum(found["answer_cut"] for _, found in fitted.values()):
        left = [row for part, _ in fitted.values() for row in part]
        longest = max(lengths(left, tokenizer))
        findings.add("length", "failed", "answer_cut", mistake=True, rows=cut, longest=longest, **values)
        raise Ended
    loss = 1.0
    if rows and config.loss_on == "completion":
        loss -= sum(prompt_lengths(rows, tokenizer)) / sum(sizes)
    code = "length_turns" if config.loss_on == "assistant" else "length"
    shortened = sum(found["cut"] for _, found in fitted.values())
    middle = sorted(sizes)[len(sizes) // 2]
    findings.add("length", "ok", code, p50=middle, longest=max(sizes), cut=shortened, loss=loss, **values)


def _train(folder: RunFolder, findings: Findings, should_stop: Callable[[], bool]) -> None:
    """The run's own `train`: updates, a checkpoint, the weights, then scores of the trained and the untrained model."""
    from trainer.train import train

    with findings.step(lambda: "evaluate" if folder.status()["stage"] == "evaluate" else "train"):
        train(folder, should_stop)
    if should_stop():
        return
    losses = [row["loss"] for row in folder.metrics() if "loss" in row]
    if not losses or any(loss is None or not math.isfinite(loss) for loss in losses):
        findings.add("train", "failed", "not_finite")
        raise Ended
    config = folder.config()
    batch = config.batch_size * config.gradient_accumulation
    findings.add("train", "ok", "train", steps=folder.status()["step"], loss=losses[-1], batch=batch)
    scores = folder.scores()
    if scores.get("n"):
        findings.add("evaluate", "ok", "evaluate", task=scores["task"], rows=scores["n"])
    else:
        findings.add("evaluate", "attention", "no_test")


def _export(folder: RunFolder, findings: Findings) -> None:
    from trainer.export import export

    config = folder.config()
    if not KINDS[config.peft].merges:
        for check in ("merge", "gguf", "parity", "chat"):
            findings.add(check, "attention", "not_merged", peft=config.peft)
        raise Ended
    words = METHODS[config.method].output == "text"
    with findings.step(lambda: {"gguf": "gguf", "parity": "parity"}.get(folder.status()["stage"], "merge")):
        made = export(folder, "gguf" if words else "merged")
    if not words:
        findings.add("merge", "ok", "merge")
        for check in ("gguf", "parity", "chat"):
            findings.add(check, "ok", "no_words")
        raise Ended
    findings.add("merge", "ok", "merge")
    findings.add("gguf", "ok", "gguf", mb=made["gguf"].stat().st_size / 1e6)
    parity = made["parity"]
    said = {"same": parity["same"], "rows": parity["rows"]}
    if parity["ready"]:
        findings.add("parity", "ok", "parity", **said)
    else:
        findings.add("parity", "failed", "parity_bad", cause=parity["cause"]["en"], **said)
        raise Ended


def _chat(folder: RunFolder, findings: Findings) -> None:
    from trainer.data.stage import read_rows
    from trainer.export.llamacpp import LlamaCpp

    parts = [folder.path / "data" / f"{name}.jsonl" for name in ("test", "train")]
    row = next((row for path in parts for row in read_rows(path) if "prompt" in row), None)
    if row is None:
        findings.add("chat", "ok", "no_chat")
        return
    folder.set_status(stage="chat", step=0, total_steps=None)
    with findings.step("chat"):
        engine = LlamaCpp(folder.path / "export" / "model.gguf")
        try:
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["prompt"]]
            text = "".join(engine.chat(messages, max_tokens=ROOM))
        finally:
            engine.close()
    findings.add("chat", "ok", "chat", text=text[:60])
