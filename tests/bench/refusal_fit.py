"""Fit the gate of assistant/refusal.py and measure it on questions that were not fitted.

Answerable: tests/assistant/questions.yaml, golden.yaml and near.yaml on the knowledge base; XQuAD (zh, en) and DRCD on a
library with every second of their articles as a user's files. Not answerable: CLINC out-of-scope queries, those of these
files, the questions of articles left out (left_out) and of paragraphs left out of an article that is there (removed).
Half of the questions (by hash; of golden and near their dev part) fit, the rest measure. Prints JSON.
Run: python tests/bench/refusal_fit.py [questions per group, 250]
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from sets import golden_rows

from assistant import refusal
from assistant.answer import found
from ingest.index import Index
from ingest.sync import add_paths, build_kb

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SQUAD = {
    "xquad_en": "xquad/xquad.en.json",
    "xquad_zh": "xquad/xquad.zh.json",
    "drcd": "drcd_dev/DRCD_dev.json",
}
ROWS = {"WITH_MEANING": refusal.WITH_MEANING, "WORDS_ALONE": refusal.WORDS_ALONE}
# how much a group counts in the fit: what people will mostly ask and mostly must not be told, above the rest
SHARE = {"kb": 3.0, "golden": 6.0, "traps": 6.0, "golden_not": 6.0, "near": 6.0, "near_not": 6.0, "left_out": 0.5,
         "removed": 0.5}  # fmt: skip
DEV: dict[str, bool] = {}

Item = tuple[str, int, str, str | None]  # group, answerable, question, language


def main(size: int) -> None:
    rng = random.Random(0)
    own = yaml.safe_load((ROOT / "tests/assistant/questions.yaml").read_text(encoding="utf-8"))
    clinc = json.loads((DATA / "clinc_oos/data_small.json").read_text(encoding="utf-8"))
    strangers = [
        ("clinc", 0, q, None) for part in ("oos_train", "oos_val", "oos_test") for q, _ in clinc[part]
    ]
    common = [("kb", 1, row["q"], row["lang"]) for row in own["inside"]]
    common += [("traps", 0, row["q"], row["lang"]) for row in own["outside"]]
    near = yaml.safe_load((ROOT / "tests/assistant/near.yaml").read_text(encoding="utf-8"))
    for name, those in (("golden", golden_rows()), ("near", near)):
        for row in those:
            DEV[row["q"]] = row["split"] == "dev"
            known = row["kind"] != "unanswerable"
            common.append((name if known else f"{name}_not", int(known), row["q"], row["lang"]))
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, file in SQUAD.items():
            kept, left, removed = halves(
                json.loads((DATA / file).read_text(encoding="utf-8"))["data"], Path(folder) / name
            )
            foreign = [(f"{name}_on_kb", 0, q, None) for q in rng.sample(kept, size)]
            asked = [("files", 1, q, None) for q in rng.sample(kept, size)]
            asked += [("left_out", 0, q, None) for q in rng.sample(left, size)]
            asked += [("removed", 0, q, None) for q in rng.sample(removed, min(size, len(removed)))]
            index = Path(folder) / f"index_{name}"
            build_kb(index)
            rows += measured("kb", index, (common + strangers if not rows else []) + foreign)
            add_paths(index, [Path(folder) / name])
            rows += measured(name, index, common + rng.sample(strangers, size) + asked)
    print(json.dumps(report(rows), indent=1, ensure_ascii=False))


def halves(articles: list[dict], folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Write every second article as a file, its second paragraph left out; return the questions of what is there, of the
    other articles, and of the paragraphs left out: their article is there, the answer is not."""
    folder.mkdir()
    kept, left, removed = [], [], []
    for number, article in enumerate(articles):
        paragraphs = article["paragraphs"]
        questions = [qa["question"] for paragraph in paragraphs for qa in paragraph["qas"]]
        if number % 2:
            left += questions
            continue
        removed += [qa["question"] for paragraph in paragraphs[1:2] for qa in paragraph["qas"]]
        paragraphs = paragraphs[:1] + paragraphs[2:]
        kept += [qa["question"] for paragraph in paragraphs for qa in paragraph["qas"]]
        text = "\n\n".join(paragraph["context"] for paragraph in paragraphs)
        (folder / f"{number:03}.md").write_text(f"# {article['title']}\n\n{text}", encoding="utf-8")
    return kept, left, removed


def measured(library: str, folder: Path, items: list[Item]) -> list[dict]:
    index = Index.open(folder)
    rows = []
    for group, answerable, question, lang in items:
        hits = found(index, question, lang)
        x = refusal.features(question, hits, index) if hits else None
        rows.append({"library": library, "group": group, "y": answerable, "q": question, "x": x})
    index.close()
    return rows


def report(rows: list[dict]) -> dict:
    """Weights fitted on one half; share refused of each group in the other half, with the weights in the code."""
    fitted = {}
    for name, current in ROWS.items():
        names = [key for key in current if key != "bias"]
        half = [
            r
            for r in rows
            if r["x"] and in_fit(r["q"]) and (r["x"]["readable"] > 0.5) == (name == "WITH_MEANING")
        ]
        fitted[name] = fit(half, names)
    return {
        "fitted": fitted,
        "code": {f"threshold {t}": refused(rows, ROWS, t) for t in (0.2, refusal.THRESHOLD, 0.5)},
        "fitted_anew": {f"threshold {t}": refused(rows, fitted, t) for t in (0.1, 0.2, 0.3, 0.4, 0.5)},
    }


def fit(rows: list[dict], names: list[str]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    x = np.array([[row["x"][name] for name in names] for row in rows])
    y = np.array([row["y"] for row in rows])
    keys = [(row["library"], row["group"]) for row in rows]
    weight = np.array([SHARE.get(group, 1.0) / keys.count((library, group)) for library, group in keys])
    weight *= np.array([3.0 if library == "kb" else 1.0 for library, _ in keys])
    for label in (0, 1):
        weight[y == label] *= len(y) / 2 / weight[y == label].sum()
    model = LogisticRegression(C=10, max_iter=5000).fit(x, y, sample_weight=weight)
    found = dict(zip(names, model.coef_[0].tolist(), strict=True))
    return {"bias": round(float(model.intercept_[0]), 2), **{k: round(v, 2) for k, v in found.items()}}


def refused(rows: list[dict], weights: dict[str, dict[str, float]], threshold: float) -> dict[str, str]:
    """Share refused and number of questions of each group, of the half that did not fit."""
    groups: dict[str, list[bool]] = {}
    for row in rows:
        if in_fit(row["q"]):
            continue
        x, said_no = row["x"], True
        if x:
            w = weights["WITH_MEANING" if x["readable"] > 0.5 else "WORDS_ALONE"]
            z = w["bias"] + sum(value * x[name] for name, value in w.items() if name != "bias")
            said_no = 1 / (1 + np.exp(-z)) < threshold
        kind = "answerable" if row["y"] else "not"
        groups.setdefault(f"{kind}: {row['library']}/{row['group']}", []).append(said_no)
    return {key: f"{np.mean(v):.3f} of {len(v)}" for key, v in sorted(groups.items())}


def in_fit(question: str) -> bool:
    if question in DEV:
        return DEV[question]
    return int(hashlib.md5(question.encode()).hexdigest(), 16) % 2 == 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
