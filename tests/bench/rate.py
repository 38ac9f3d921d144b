"""What share of its matrix-product rate a device reaches in training: what `probe_share_…` in rules.yaml rests on.

Run `python tests/bench/rate.py` (about a minute on a CPU); a random Qwen3 of 97M parameters, 1,024 tokens a step, without
and with recomputing. Prints JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from trainer import rate
from trainer.hardware import probe

STEPS = 3


def main() -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    machine = probe()
    with tempfile.TemporaryDirectory() as home:
        products = rate.measure(Path(home), machine)
    device = "cuda" if machine.gpus and torch.cuda.is_available() else "cpu"
    config = Qwen3Config(
        vocab_size=16000, hidden_size=768, intermediate_size=2304, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=6, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(device).train()
    weights = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = torch.randint(0, 16000, (4, 256), device=device)
    found = {"device": rate.key_of(machine), "products_gflops": round(products / 1e9, 1)}
    for recompute in (False, True):
        if recompute:
            model.gradient_checkpointing_enable()
        best = float("inf")
        for _ in range(STEPS):
            start = time.perf_counter()
            model(batch, labels=batch, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            best = min(best, time.perf_counter() - start)
        reached = batch.numel() * (8 if recompute else 6) * weights / best
        found["share_recomputing" if recompute else "share"] = round(reached / products, 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
