"""Steps on files: counted, recorded, repeatable to the byte, and nothing half-written; the tokens that carry loss."""

import json

import pytest
import yaml
from huggingface_hub import DatasetCard
from written import lines_of

from trainer.config import UserError
from trainer.data import dedupe_file, make, rebuild, redact_file, repair_file, split_file, write_card
from trainer.data.history import run, writers
from trainer.data.masks import doubles, masked, read_batch


@pytest.fixture
def messy(tmp_path):
    rows = [
        {"text": f"review number {n} of the {'good' if n % 2 else 'bad'} hotel", "label": str(n % 2)}
        for n in range(40)
    ]
    rows += [
        rows[0],
        {"text": "voilÃ  le travail", "label": "1"},
        {"text": "", "label": "1"},
        {"text": "ask a@example.com", "label": "0"},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = tmp_path / "in" / "messy.jsonl"
    path.parent.mkdir()
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "nul\0here", "label": "1"}\n{"text": "half')
    return path


PARTS = {"train": "train", "validation": "eval", "test": "test"}


def test_repair_mends_what_it_can_and_counts_what_it_leaves_out(messy, tmp_path):
    out = tmp_path / "out" / "clean.jsonl"
    report = repair_file(messy, out)
    texts = [row["text"] for row in lines_of(out)]
    assert "voilà le travail" in texts and "nulhere" in texts and len(texts) == 44
    assert (
        "44 rows, of 46 read" in report
        and "1 rows have no text" in report
        and "the last line is cut off" in report
    )
    recorded = yaml.safe_load((out.parent / "data_source.yaml").read_text())["steps"][0]
    assert recorded["counts"]["read"] - recorded["counts"]["written"] == 2


def test_steps_rebuild_to_the_same_bytes_and_a_changed_input_is_refused(messy, tmp_path):
    folder = tmp_path / "out"
    repair_file(messy, folder / "a.jsonl")
    dedupe_file(folder / "a.jsonl", folder / "b.jsonl", near=True, against=None)
    redact_file(folder / "b.jsonl", folder / "c.jsonl")
    split_file(folder / "c.jsonl", folder, 0.2, 0.1, 1, near=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "[EMAIL]" in before["c.jsonl"].decode()
    for name in ("a.jsonl", "b.jsonl", "train.jsonl"):
        (folder / name).unlink()
    assert len(rebuild(folder)) == 4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    messy.write_bytes(messy.read_bytes() + b"\n")
    with pytest.raises(UserError, match="is not the file that repair was run on"):
        rebuild(folder)


def test_near_repeats_and_groups_stay_in_one_part(tmp_path):
    rows = [
        {
            "text": f"{n // 4} is the number of this rather long review of a hotel{'!' * (n % 4)}",
            "label": str(n % 2),
            "guest": n // 8,
        }
        for n in range(80)
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    split_file(path, tmp_path / "parts", 0.2, 0.2, 3, group="guest")
    guest = {row["text"]: row["guest"] for row in rows}
    seen = [
        {guest[row["prompt"][0]["content"]] for row in lines_of(tmp_path / "parts" / f"{n}.jsonl")}
        for n in ("train", "eval", "test")
    ]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    with pytest.raises(UserError, match="no column 'nobody'"):
        split_file(path, tmp_path / "parts", 0.2, 0.2, 3, group="nobody")


def test_what_is_cancelled_leaves_nothing(tmp_path, messy):
    with pytest.raises(KeyboardInterrupt), writers(tmp_path / "out", ("a.jsonl",)) as write:
        write("a.jsonl", {"text": "half"})
        raise KeyboardInterrupt
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UserError, match="would overwrite its own input"):
        repair_file(messy, messy)
    with pytest.raises(UserError, match=r"messy\.jsonl:45: a NUL byte.*data repair"):
        run("redact", messy, tmp_path / "out" / "b.jsonl", {})
    assert not list((tmp_path / "out").iterdir())


def test_the_card_has_front_matter_counts_and_history(messy, tmp_path):
    repair_file(messy, tmp_path / "out" / "a.jsonl")
    split_file(tmp_path / "out" / "a.jsonl", tmp_path / "out", 0.2, 0.1, 1)
    text = write_card(tmp_path / "out", "apache-2.0").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    card = DatasetCard(text)  # as the Hub's own library reads it
    assert card.data.license == "apache-2.0" and card.data.to_dict()["size_categories"] == ["n<1K"]
    counted = {one["name"]: one["num_examples"] for one in card.data.to_dict()["dataset_info"]["splits"]}
    assert counted == {
        name: len(lines_of(tmp_path / "out" / f"{file}.jsonl")) for name, file in PARTS.items()
    }
    assert front["license"] == "apache-2.0" and "text-classification" in front["task_categories"]
    assert [item["split"] for item in front["configs"][0]["data_files"]] == ["train", "validation", "test"]
    assert "| label | train.jsonl |" in text and "repair of messy.jsonl" in text


def test_the_card_loads_with_datasets_and_tells_sources_and_a_licence_of_ones_own(messy, tmp_path):
    from datasets import load_dataset

    repair_file(messy, tmp_path / "out" / "a.jsonl")
    make(
        "merge",
        tmp_path / "out" / "a.jsonl",
        tmp_path / "out" / "b.jsonl",
        {"sources": [], "weights": [2], "seed": 1},
    )
    split_file(tmp_path / "out" / "b.jsonl", tmp_path / "out" / "parts", 0.2, 0.1, 1)
    text = write_card(tmp_path / "out" / "parts", "In-house, ask Mei").read_text(encoding="utf-8")
    data = DatasetCard(text).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "in-house-ask-mei")
    assert "| a.jsonl | " in text
    loaded = load_dataset(str(tmp_path / "out" / "parts"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {
        one["name"]: one["num_examples"] for one in data["dataset_info"]["splits"]
    }


def test_the_preview_shows_the_ids_and_labels_that_the_trainer_feeds(tmp_path, config_of, review_file):
    from trainer import base
    from trainer.data import load_rows
    from trainer.data.tokens import fit
    from trainer.methods import METHODS

    config = config_of(max_length=24)  # so that the users' texts are cut
    shown = masked(review_file, config, 6)["rows"]
    tokenizer = base.load_tokenizer(config.base_model)
    rows, _ = fit(load_rows(review_file, config)[:6], tokenizer, config.max_length)
    model = base.load_model(config.base_model, config, "cpu")
    trainer = METHODS[config.method].build(config, model, tokenizer, rows, [], tmp_path / "out", "cpu", [])
    fed = [
        row
        for batch in trainer.get_train_dataloader()
        for row in read_batch({k: v.cpu() for k, v in batch.items()})
    ]
    pairs = lambda found: sorted((row["ids"], row["labels"]) for row in found)
    assert pairs(shown) == pairs(fed) and len(shown) >= 6
    trained = "".join(text for text, carries in shown[0]["pieces"] if carries)
    assert not any(doubles(row["ids"], tokenizer.bos_token_id, tokenizer.eos_token_id) for row in fed)
    assert doubles([1, 1, 5, 2], 1, 2) and doubles([1, 5, 2, 2], 1, 2) and not doubles([1, 5, 2], 1, 2)
    assert trained == "1<|im_end|>\n"  # the line end that the template puts after the answer carries loss too
