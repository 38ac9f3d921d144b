"""The documents of a project: README, integration guide, annotation guide, and the model's card. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import yaml

from trainer.config import STARTER, RunConfig
from trainer.export import terms
from trainer.runs import RunFolder

Card = dict[str, Any]
Rows = list[dict[str, Any]]
PATHS = ("train_file", "eval_file", "test_file", "base_model")  # of this machine, or told above the table


def readme(run: RunFolder, config: RunConfig, card: Card, lang: str) -> str:
    rows = card["rows"]
    if lang == "en":
        return f"""# {run.task}

A training project that runs by itself: plain transformers, TRL and PEFT. Newest version: {run.version}
({config.method}, {config.peft}, base model {_base(config)}; {rows["train"]} rows to train on, {rows["test"]} to score on).

```bash
python3 -m venv .venv
.venv/bin/pip install -r requirements.txt
PYTHON=.venv/bin/python scripts/run_pipeline.sh
```

| step | does | writes |
| --- | --- | --- |
| `scripts/01_validate_data.py` | checks every row of `data/{run.version}/source` | status 1 on a fault |
| `scripts/02_convert_format.py` | puts rows into chat form | `data/{run.version}/*.jsonl` |
| `scripts/03_train.py` | trains | `models/{run.version}` |
| `scripts/04_evaluate.py` | scores on the held-out test rows | `benchmarks/{run.version}.json` |
| `scripts/05_upload_hf.py OWNER/NAME` | shows what it would upload; `--yes` uploads, private | the Hub |

Every value is in `configs/{run.version}.yaml`, with its reason above it. `--config configs/v1.yaml` chooses a version.
`docs/` says how to put the model to use and how to label more rows. For a better version: copy the config to the next
number, change values or `data`, and run the pipeline; or let Tunesmith propose one and call `tunesmith project {run.task}`
again, which adds the new version and leaves alone what you edited.
"""
    return f"""# {run.task}

可以獨立執行的訓練專案：只用 transformers、TRL 與 PEFT。最新版本：{run.version}
（{config.method}、{config.peft}，基礎模型 {_base(config)}；訓練 {rows["train"]} 筆，測試 {rows["test"]} 筆）。

```bash
python3 -m venv .venv
.venv/bin/pip install -r requirements.txt
PYTHON=.venv/bin/python scripts/run_pipeline.sh
```

| 步驟 | 做什麼 | 寫到哪裡 |
| --- | --- | --- |
| `scripts/01_validate_data.py` | 檢查 `data/{run.version}/source` 的每一筆 | 有錯時結束狀態為 1 |
| `scripts/02_convert_format.py` | 把資料轉成對話格式 | `data/{run.version}/*.jsonl` |
| `scripts/03_train.py` | 訓練 | `models/{run.version}` |
| `scripts/04_evaluate.py` | 用保留的測試資料評分 | `benchmarks/{run.version}.json` |
| `scripts/05_upload_hf.py OWNER/NAME` | 列出會上傳的檔案；加 `--yes` 才上傳，預設不公開 | Hub |

所有的值都在 `configs/{run.version}.yaml`，上方註解是理由。`--config configs/v1.yaml` 可以選版本。
`docs/` 說明怎麼使用模型、怎麼標註更多資料。要做更好的版本：把設定檔複製成下一號，改值或改 `data` 後重跑；
或讓 Tunesmith 提議新的訓練，再執行一次 `tunesmith project {run.task}`，新版本會加進來，你改過的檔案不會被覆蓋。
"""


def integration_guide(run: RunFolder, config: RunConfig, card: Card, rows: Rows, lang: str) -> str:
    """How a program asks the trained model, with the very messages that it was trained on."""
    asked = next((row["prompt"] for row in rows if "prompt" in row), [{"role": "user", "content": "…"}])
    messages = json.dumps(asked, ensure_ascii=False, indent=1)
    weights = f"models/{run.version}/{'model' if config.peft == 'full' else 'adapter'}"
    name = f"{run.task}:{run.version}".lower()
    load = (
        f'model = AutoModelForCausalLM.from_pretrained("{weights}")'
        if config.peft == "full"
        else f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{_base(config)}"), "{weights}")'
    )
    body = json.dumps({"model": name, "messages": asked, "stream": False}, ensure_ascii=False)
    en, zh = lang == "en", lang != "en"
    answers = "、".join(card["labels"]) if card["labels"] and zh else ", ".join(card["labels"] or [])
    parts = [
        f"# {run.task}: integration" if en else f"# {run.task}：整合指南",
        "The model was trained on messages of exactly this form; other wording before or after them costs accuracy."
        if en
        else "模型是用下面這種形式的訊息訓練的；在前後加上別的文字會降低準確率。",
        f"```json\n{messages}\n```",
    ]
    if answers:
        parts.append(
            f"It answers with one of: {answers}. Take anything else as no answer, and count it."
            if en
            else f"它會回答以下其中之一：{answers}。其他輸出都當作沒有回答，並記下次數。"
        )
    parts += [
        "## Python",
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{weights}")\n{load}\n'
        'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)\n'
        f"out = model.generate(**ids, max_new_tokens={config.max_new_tokens}, do_sample=False)\n"
        'print(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))\n```',
        "## Ollama",
        f"`tunesmith export {run.id} --to ollama` proves that the imported model answers as it did in training."
        if en
        else f"`tunesmith export {run.id} --to ollama` 會匯入並證明它的回答與訓練時相同。",
        f"```bash\ncurl http://127.0.0.1:11434/api/chat -d '{body.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'\n```",
        "## vLLM",
        f"```bash\nvllm serve {_base(config) if config.peft != 'full' else weights} --max-model-len {config.max_length}"
        + ("" if config.peft == "full" else f" --enable-lora --lora-modules {run.task}={weights}")
        + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def annotation_guide(run: RunFolder, config: RunConfig, card: Card, rows: Rows, lang: str) -> str:
    """What each label looks like in the rows that there are, and how to label more alike."""
    en = lang == "en"
    parts = [f"# {run.task}: annotation" if en else f"# {run.task}：標註指南"]
    if card["labels"]:
        counts = Counter(row["completion"][-1]["content"] for row in rows)
        parts.append(
            f"Labels, with their share of the first {len(rows)} training rows and examples:"
            if en
            else f"標籤、在前 {len(rows)} 筆訓練資料中的比例，以及例子："
        )
        for label in card["labels"]:
            of = [row for row in rows if row["completion"][-1]["content"] == label]
            share = f"{100 * counts[label] / max(len(rows), 1):.0f} %"
            examples = "\n".join(f"> {_short(row['prompt'][-1]['content'])}\n" for row in of[:3])
            parts.append(f"## {label} ({share})\n\n{examples}")
    else:
        examples = [row for row in rows if "prompt" in row][:3]
        for row in examples:
            ending = next(name for name in ("completion", "chosen") if name in row)
            parts.append(
                f"> {_short(row['prompt'][-1]['content'])}\n\n→ {_short(row[ending][-1]['content'])}"
            )
    parts.append(
        """## Rules

1. Write down what each label means, and its border to the next one, before the first row.
2. Two people label the same 100 rows apart; where they differ, the guide is unclear: mend it, then go on.
3. Report Cohen's kappa. Below .6 the labels are not ready to train on.
4. A row that fits no label, or two, goes on a list of its own; do not guess.
5. Test rows are labelled twice and never change afterwards."""
        if en
        else """## 規則

1. 標第一筆之前，先寫下每個標籤的意思，以及與相鄰標籤的界線。
2. 兩個人各自標同樣的 100 筆；不一致的地方就是規則不清楚，先改規則再繼續。
3. 報告 Cohen's kappa。低於 0.6 的標註還不能拿來訓練。
4. 不屬於任何標籤、或同時屬於兩個的，另外列出，不要猜。
5. 測試資料由兩人標註，之後不再更動。"""
    )
    return "\n\n".join(parts) + "\n"


def model_card(
    run: RunFolder, config: RunConfig, card: Card, what: str = "", held: terms.Terms | None = None
) -> str:
    """The card of the trained model in Hugging Face's format: base, data, method, values with reasons, scores with
    intervals, limits, licence. `what` is the form of the weights, adapter, merged or gguf, where it is uploaded;
    `held` its terms, where a person has said more than the files do.
    """
    held = held or terms.of_run(run, config)
    front: dict[str, Any] = terms.front(held)
    front["library_name"] = "gguf" if what == "gguf" else "transformers" if _whole(config, what) else "peft"
    if config.base_model not in (STARTER, "") and held.base == config.base_model:
        front["base_model"] = config.base_model
        front["base_model_relation"] = {"gguf": "quantized"}.get(what, "finetune" if _whole(config, what) else "adapter")  # fmt: skip
    front |= {"pipeline_tag": "text-generation", "tags": ["tunesmith", config.method, config.peft]}
    scores, rows = run.scores(), card["rows"]
    tuned = scores.get("tuned") or {}
    files = ", ".join(f"sha256 {digest[:16]}" for digest in (card.get("files") or {}).values())
    lines = [
        f"# {run.task} {run.version}",
        *([f"**{line}**"] if (line := terms.shown(held)) else []),
        f"{_base(config, held.base)} trained with {config.method} ({config.peft}), by Tunesmith.",
        f"## Data\n\n{rows['train']} rows to train on, {rows['eval']} for evaluation, {rows['test']} held out."
        + (f" Labels: {', '.join(card['labels'])}." if card["labels"] else "")
        + (f" Files: {files}." if files else ""),
        "## Scores on the held-out rows\n\n" + (_scores(scores, tuned) or "Not scored yet."),
        "## Values\n\n| value | | why |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| `{name}` | {_cell(getattr(config, name, ''))} | {_cell(reason['because'])} |"
            for name, reason in run.reasons().items()
            if hasattr(config, name) and name not in PATHS
        ),
        "## Prompt\n\n" + _prompt(config),
        "## Limits\n\n" + " ".join(_limits(config, scores, tuned)),
        "## Licence\n\n" + terms.section(held),
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(lines) + "\n"


def _whole(config: RunConfig, what: str) -> bool:
    return config.keeps_whole_model or what == "merged"


def _prompt(config: RunConfig) -> str:
    """What stood around every text in training, without which the scores do not hold."""
    parts = [f"{name}:\n\n```text\n{text}\n```" for name, text in
             (("System message", config.system_prompt), ("Before each text, on a line of its own", config.instruction)) if text]  # fmt: skip
    return (
        "\n\n".join(parts) or "The texts were given as they are, through the tokenizer's own chat template."
    )


def _limits(config: RunConfig, scores: Card, tuned: Card) -> list[str]:
    found = ["Scores are of rows like those above; on other texts they may be lower."]
    low, high = tuned.get("interval") or (0, 0)
    if high - low > 0.1:
        found.append(f"With {scores.get('n', 0)} test rows the score is known to {high - low:.2f} only.")
    if tuned.get("parse_failures"):
        found.append(f"{tuned['parse_failures']} answers to the test rows were none of the labels.")
    found.append(
        f"Trained on at most {config.max_length} tokens a row. Nothing was measured about bias or safety."
    )
    return found


def _scores(scores: dict[str, Any], tuned: dict[str, Any]) -> str:
    head = "| | " + " | ".join(n for n in ("accuracy", "macro_f1", "exact_match", "perplexity") if n in tuned)
    names = [name.strip() for name in head.split("|")[2:]]
    lines = [head + " |", "| --- |" + " --- |" * len(names)]
    for which in ("base", "majority", "tuned"):
        if of := scores.get(which):
            lines.append(f"| {which} | " + " | ".join(_number(of, name) for name in names) + " |")
    return "\n".join(lines) if names else ""


def _number(of: dict[str, Any], name: str) -> str:
    if name not in of:
        return ""
    low, high = of.get("interval") or (None, None)
    spread = f" ({low:.3f}–{high:.3f})" if name in ("accuracy", "exact_match") and low is not None else ""
    return f"{of[name]:.3f}{spread}"


def _base(config: RunConfig, public: str = "") -> str:
    """The base model's name: inside a project by its folder, on a card as others may know it."""
    if public:
        return "A small model made from scratch," if public == STARTER else public
    return "base_model" if config.base_model == STARTER else config.base_model


def _short(text: str, most: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
