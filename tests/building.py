"""The trainer of a RunConfig on a few made-up rows of its method's shape."""

from trainer import base
from trainer.data.tokens import fit
from trainer.methods import check


def message(role, content):
    return {"role": role, "content": content}


def turns(count=16):
    return [
        {
            "prompt": [message("user", f"was the room {'good' if i % 2 else 'bad'} number {i}")],
            "completion": [message("assistant", "yes" if i % 2 else "no")],
        }
        for i in range(count)
    ]


ROWS = {
    "turns": turns(),
    "text": [{"text": f"the room was good and the food number {i} was cold"} for i in range(16)],
    "pairs": [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [message("assistant", "what")]}
        for row in turns()
    ],
    "verdicts": [{**row, "label": bool(i % 3)} for i, row in enumerate(turns())],
    "prompts": turns(),
}


def build(config, folder, evaluation=4):
    entry = check(config)
    path = base.locate(config, folder)
    tokenizer = base.load_tokenizer(path)
    rows, _ = fit(ROWS[entry.shape], tokenizer, config.max_length)
    labels = {"labels": ["no", "yes"], "score": ("score",)}.get(entry.output)
    model = base.load_model(path, config, "cpu", labels=labels)
    return entry.build(config, model, tokenizer, rows, rows[:evaluation], folder / "out", "cpu", [])
