"""What a quantized export loses: perplexity and task score before and after, as numbers of this run's own rows.

`cost_of_q8_0(folder)` writes RUN/export/model-q8_0.gguf and measures it: perplexity in transformers with the weights
rounded as the file rounds them, the score in llama.cpp with the file itself. Writes RUN/export/quantized.json.
Needs torch. Four-bit files are Ollama's to make at import; served.py scores them there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer import base
from trainer.config import write_atomic
from trainer.evaluate import perplexity
from trainer.export.gguf import Progress, write_gguf
from trainer.export.llamacpp import LlamaCpp
from trainer.export.merge import load_model
from trainer.export.parity import SCORED, rows_of, sides_of
from trainer.export.steps import right, score_step
from trainer.generate import logprobs
from trainer.runs import RunFolder

BLOCK = 32  # values that share a scale in q8_0
ROUTER = "mlp.gate.weight"  # kept in full


def cost_of_q8_0(folder: RunFolder, progress: Progress | None = None) -> dict[str, Any]:
    """{"q8_0": {bytes, perplexity: {before, after}, score: {metric, before, after, interval, n}, holds}}.

    score is None for rows without one right answer. holds: the score after lies in the 95 % interval of the one
    before. Raises UserError where the run is not exported.
    """
    out = folder.path / "export"
    full, small = out / "model.gguf", out / "model-q8_0.gguf"
    if not small.is_file() or small.stat().st_mtime < full.stat().st_mtime:
        write_gguf(out / "merged", small, "q8_0", progress)
    cost = {"bytes": {"before": full.stat().st_size, "after": small.stat().st_size}}
    cost |= {"perplexity": _perplexities(folder, out / "merged"), **_scores(folder, full, small)}
    write_atomic(out / "quantized.json", json.dumps({"q8_0": cost}, indent=1))
    return {"q8_0": cost}


def _perplexities(folder: RunFolder, merged: Path) -> dict[str, float | None]:
    """Of the rows' own answers, with the weights as they are and as the file has them."""
    _, rows, _ = rows_of(folder, SCORED)
    ending = next(name for name in ("text", "completion", "chosen") if name in rows[0])
    tokenizer = base.load_tokenizer(merged)
    model = load_model(merged, "float32")
    before = perplexity(logprobs(model, tokenizer, rows, ending))["perplexity"]
    round_weights(model)
    return {"before": before, "after": perplexity(logprobs(model, tokenizer, rows, ending))["perplexity"]}


def round_weights(model: Any) -> None:
    """Round a model's weights in place as q8_0 does. Llama's reordered rows do not matter: a block lies in a row."""
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType.Q8_0
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and weight.shape[-1] % BLOCK == 0 and not name.endswith(ROUTER):
            rounded = dequantize(quantize(weight.detach().float().numpy(), kind), kind)
            weight.data = torch.from_numpy(rounded).reshape(weight.shape).to(weight.dtype)


def _scores(folder: RunFolder, full: Path, small: Path) -> dict[str, Any]:
    sides = sides_of(folder, folder.path / "export" / "merged", SCORED)
    if None in sides.gold:
        return {"score": None, "holds": True}
    room = sides.room if sides.labels else sides.config.max_new_tokens
    context = max(len(case.ids) for case in sides.cases) + room + 8
    scored = []
    for path in (full, small):
        with LlamaCpp(path, n_ctx=context, threads=sides.config.threads or None) as engine:
            texts = [engine.generate(case.ids, max_tokens=room).text.strip() for case in sides.cases]
        scored.append(right(texts, sides))
    step = score_step("llama.cpp", "accuracy" if sides.labels else "exact_match", scored[1], scored[0])
    values = step.values
    score = {"metric": values["metric"], "before": values["transformers"], "after": values["served"]}
    score |= {"interval": values["interval"], "n": step.compared}
    return {"score": score, "holds": step.state == "ok"}
