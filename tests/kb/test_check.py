"""kb check: every kind of fault, planted in a copy of the shipped knowledge base, is told with its line."""

import shutil
import subprocess
import sys
import time
from datetime import date

import pytest

from kb.check import check, notes
from kb.pages import KB_DIR
from kb.render import render

ROOT = KB_DIR.parent
TODAY = date(2026, 12, 1)
PAGE = "pages/methods/lora.en.md"
TWIN = "pages/methods/lora.zh-TW.md"


@pytest.fixture
def kb(tmp_path):
    """A copy of the knowledge base beside the two sources whose fields it names."""
    root = tmp_path / "kb"
    for part in ("facts", "pages", "asked"):
        shutil.copytree(KB_DIR / part, root / part)
    for source in ("trainer/config.py", "assistant/types.py", "trainer/methods/__init__.py"):
        (tmp_path / source).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / source, tmp_path / source)
    return root


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Faults that the shipped files have already (none, once test_the_shipped… passes)."""
    return set(check(today=TODAY))


def plant(kb, name: str, old: str, new: str, marker: str | None = None) -> str:
    """Replace the first `old`; "file:line" of the place, or of the first line that holds `marker` afterwards."""
    path = kb / name
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{name} no longer holds {old!r}"
    at = text.index(old)
    text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    return f"kb/{name}:{text[: text.index(marker) if marker else at].count(chr(10)) + 1}"


def new_faults(kb, before) -> list[str]:
    return [fault for fault in check(kb, TODAY) if fault not in before]


def test_the_shipped_knowledge_base_is_sound():
    assert check() == []


def test_a_check_takes_less_than_one_and_a_half_seconds():
    start = time.process_time()
    check()
    assert time.process_time() - start < 1.5


def test_it_runs_as_a_module_and_imports_no_other_room():
    code = "import sys, kb.check; kb.check.check(); print([m for m in sys.modules if m.split('.')[0] in ('trainer', 'assistant', 'ingest', 'ui', 'torch')])"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        == "[]"
    )
    done = subprocess.run([sys.executable, "-m", "kb.check"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (int(bool(done.stdout)), "")


# (name of the fault, file, what is replaced, by what, marker of the line if not the new text, words of the message)
ROW_FAULTS = [
    ("broken yaml", "facts/gpus.yaml", "{id: t4,", "{id: t4,,", None, "not valid YAML"),
    ("unknown key", "facts/gpus.yaml", "name: Tesla T4", "nam: Tesla T4", None, "nam: Extra inputs"),
    ("missing key", "facts/models.yaml", "  hub_id: Qwen/Qwen3-4B\n", "", "- id: qwen3-4b\n", "hub_id: Field required"),
    ("wrong type", "facts/models.yaml", "  layers: 28\n", "  layers: many\n", None, "layers: Input should be a valid integer"),
    ("unknown choice", "facts/methods.yaml", "  status: stable", "  status: good", None, "'stable' or 'experimental'"),
    ("one language missing", "facts/methods.yaml", 'needs: {en: "Plain', 'needs: {fr: "Plain', None, "needs.en: Field required"),
    ("id twice", "facts/models.yaml", "- id: qwen3-8b\n", "- id: qwen3-4b\n", None, "'qwen3-4b' is already in line"),
    ("term twice", "facts/glossary.yaml", "{en: retrieval,", "{en: RECALL,", None, "is already in line"),
    ("hub id twice", "facts/models.yaml", "  hub_id: Qwen/Qwen3-8B\n", "  hub_id: Qwen/Qwen3-4B\n", None, "hub_id 'Qwen/Qwen3-4B' is already in line"),
    ("unknown source", "facts/symptoms.yaml", "sources: [unsloth, lora-learns-less]", "sources: [unsloth, nobody]", None, "unknown source 'nobody'"),
    ("no source", "facts/methods.yaml", "  sources: [trl, dpo]", "  sources: []", None, "'dpo' has no source"),
    ("source without url", "facts/sources.yaml", 'url: "https://pypi.org/project/trl/", ', "", "{key: trl,", "url: Field required"),
    ("source with bad url", "facts/sources.yaml", '"https://pypi.org/project/trl/"', '"pypi trl"', None, "is not an address"),
    ("source without date", "facts/sources.yaml", '"https://pypi.org/project/trl/", date: 2026-11-22', '"https://pypi.org/project/trl/"', "{key: trl,", "date: Field required"),
    ("source of the future", "facts/sources.yaml", '"https://pypi.org/project/trl/", date: 2026', '"https://pypi.org/project/trl/", date: 2027', None, "is in the future"),
    ("model of the future", "facts/models.yaml", "released: 2026-03-02", "released: 2031-03-02", None, "released 2031-03-02 is in the future"),
    ("unknown successor", "facts/models.yaml", "superseded_by: qwen3-0.6b", "superseded_by: qwen9", None, "unknown model 'qwen9'"),
    ("page unknown", "facts/symptoms.yaml", "page: methods/dpo#pitfalls", "page: methods/dop#pitfalls", None, "no page 'methods/dop'"),
    ("section unknown", "facts/methods.yaml", "page: methods/dpo#when", "page: methods/dpo#whenever", None, "no section 'whenever' in zh-TW"),
    ("section left out", "facts/methods.yaml", "page: methods/dpo#when", "page: methods/dpo", "page: methods/dpo\n", "names no section"),
    ("remedy names no field", "facts/symptoms.yaml", "change: {early_stopping_patience: 2}", "change: {early_stop: 2}", None, "'early_stop' is no field of RunConfig"),
    ("remedy reads no field", "facts/symptoms.yaml", '"=learning_rate / 2"', '"=lr / 2"', None, "'lr' in '=lr / 2' is no field"),
    ("signal of no measure", "facts/symptoms.yaml", "when: {eval_loss_rise:", "when: {eval_loss_rize:", None, "unknown measure 'eval_loss_rize'"),
    ("remedy is no expression", "facts/symptoms.yaml", '"=learning_rate / 2"', '"=learning_rate /"', None, "is not an expression"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "marker", "what"),
    [row[1:] for row in ROW_FAULTS],
    ids=[row[0] for row in ROW_FAULTS],
)
def test_a_fault_in_a_table_is_told_with_its_line(kb, before, file, old, new, marker, what):
    where = plant(kb, file, old, new, marker)
    faults = new_faults(kb, before)
    assert any(fault.startswith(f"{where}:") and what in fault for fault in faults), "\n".join(
        [where, *faults]
    )


def test_a_rule_may_set_only_what_somebody_reads(kb, before):
    with (kb / "facts" / "rules.yaml").open("a", encoding="utf-8") as file:
        file.write(
            "- id: planted\n  when: {task: chat}\n  set:\n    learning_rate: 1.0e-4\n    learning_rat: 1.0e-4\n"
            "    epochs: '=rows +'\n  range: {r: [1, 2], epochs: [5, 1]}\n"
            "  because: {en: x, zh-TW: x}\n  page: methods/sft#when\n  sources: [trl]\n  evidence: heuristic\n"
        )
    first = (kb / "facts" / "rules.yaml").read_text(encoding="utf-8").split("\n").index("- id: planted") + 1
    faults = new_faults(kb, before)
    for line, what in [
        (first + 4, "'learning_rat' is no field"),
        (first + 5, "'=rows +' is not an expression"),
        (first + 6, "range of 'r', which the rule does not set"),
        (first + 6, "range of 'epochs' must be [low, high]"),
    ]:
        assert any(fault.startswith(f"kb/facts/rules.yaml:{line}:") and what in fault for fault in faults), (
            faults
        )
    assert not any("'learning_rate' is no field" in fault for fault in faults)


PAGE_FAULTS = [
    ("related page unknown", PAGE, "related: [", "related: [methods/none, ", "related: [", "unknown related page 'methods/none'"),
    ("updated in the future", PAGE, "updated: 2026", "updated: 2027", None, "is in the future"),
    ("source unknown", PAGE, "sources: [", "sources: [nobody, ", "sources: [", "unknown source 'nobody'"),
    ("no anchor", PAGE, "{#rank}", "", None, "has no anchor"),
    ("anchor twice", PAGE, "{#alpha}", "{#rank}", None, "anchor 'rank' is there twice"),
    ("title in the body", PAGE, "\n## ", "\n# ", "\n# ", "the title stands in the front matter"),
    ("footnote not listed", PAGE, "{#rank}\n", "{#rank}\n\nSo[^fitcheck].\n", "So[^fitcheck]", "[^fitcheck] is not among the sources"),
    ("footnote unknown", PAGE, "{#rank}\n", "{#rank}\n\nSo[^nobody].\n", "So[^nobody]", "[^nobody] is not among the sources"),
    ("footnote defined", PAGE, "{#rank}\n", "{#rank}\n\n[^peft]: it\n", "[^peft]: it", "a footnote is defined"),
    ("table unknown", PAGE, "{#rank}\n", "{#rank}\n\n<!-- facts: modles -->\n<!-- /facts -->\n", "<!-- facts: modles", "unknown table 'modles'"),
    ("argument unknown", PAGE, "{#rank}\n", "{#rank}\n\n<!-- facts: gpus max=3 -->\n<!-- /facts -->\n", "<!-- facts: gpus max", "unknown argument 'max'"),
    ("argument missing", PAGE, "{#rank}\n", "{#rank}\n\n<!-- facts: symptom -->\n<!-- /facts -->\n", "<!-- facts: symptom", "id= is missing"),
    ("block not closed", PAGE, "{#rank}\n", "{#rank}\n\n<!-- facts: methods -->\n", "<!-- facts: methods", "is not closed"),
    ("link to no page", PAGE, "{#rank}\n", "{#rank}\n\nSee [it](methods/lorra#rank).\n", "See [it]", "no page 'methods/lorra'"),
    ("link to no section", PAGE, "{#rank}\n", "{#rank}\n\nSee [it](methods/qlora#rang).\n", "See [it]", "no section 'rang'"),
    ("link to no section here", PAGE, "{#rank}\n", "{#rank}\n\nSee [it](#rang).\n", "See [it]", "no section 'rang'"),
    ("mainland word", TWIN, "{#rank}\n", "{#rank}\n\n內存不足。\n", "內存不足", "the glossary writes '記憶體'"),
    ("other hyphens", PAGE, "{#rank}\n", "{#rank}\n\nFinetuning works.\n", "Finetuning works", "the glossary writes 'fine-tuning'"),
    ("asked of no section", "asked/methods/lora.yaml", "rank:\n", "rang:\n", "rang:", "the page has no section 'rang'"),
    ("asked in one language", "asked/methods/lora.yaml", "rank:\n  en:", "rank:\n  fr:", "rank:", "give questions in en and zh-TW"),
    ("table differs", "pages/methods/choosing.en.md", "`trl.DPOTrainer`", "`trl.PPOTrainer`", "<!-- facts: methods", "differs from its rows"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "marker", "what"),
    [row[1:] for row in PAGE_FAULTS],
    ids=[row[0] for row in PAGE_FAULTS],
)
def test_a_fault_in_a_page_is_told_with_its_line(kb, before, file, old, new, marker, what):
    where = plant(kb, file, old, new, marker)
    if marker and marker.startswith("\n"):  # the marker opens with the end of the line before
        where = f"kb/{file}:{int(where.rpartition(':')[2]) + 1}"
    faults = new_faults(kb, before)
    assert any(fault.startswith(f"{where}:") and what in fault for fault in faults), "\n".join(
        [where, *faults]
    )


def test_a_page_without_its_twin_is_told(kb, before):
    (kb / TWIN).unlink()
    assert any(fault == f"kb/{PAGE}:1: no twin in zh-TW; write kb/{TWIN}" for fault in new_faults(kb, before))


def test_anchors_that_differ_between_the_languages_are_told_on_both_sides(kb, before):
    english = plant(kb, PAGE, "{#alpha}", "{#scale}")
    chinese = plant(kb, TWIN, "{#alpha}", "{#alpha}")
    faults = new_faults(kb, before)
    assert f"{english}: anchor 'scale' is not in lora.zh-TW.md" in faults
    assert f"{chinese}: anchor 'alpha' is not in lora.en.md" in faults


def test_sections_in_another_order_than_in_the_twin_are_told(kb, before):
    text = (kb / TWIN).read_text(encoding="utf-8")
    text = text.replace("{#rank}", "{#swap}").replace("{#alpha}", "{#rank}").replace("{#swap}", "{#alpha}")
    (kb / TWIN).write_text(text, encoding="utf-8")
    line = text[: text.index("{#alpha}")].count("\n") + 1
    assert f"kb/{TWIN}:{line}: anchor 'alpha' stands where lora.en.md has 'rank'" in new_faults(kb, before)


def test_words_in_code_and_quotation_are_anothers(kb, before):
    plant(kb, PAGE, "{#rank}\n", '{#rank}\n\nOften said, but "finetuning" and `finetuning` are fine.\n')
    plant(kb, TWIN, "{#rank}\n", "{#rank}\n\n「內存」是對岸用語。\n")
    assert not [fault for fault in new_faults(kb, before) if "glossary" in fault]


def test_a_setting_or_method_that_no_page_tells_of_is_told(kb, before):
    config = kb.parent / "trainer" / "config.py"
    text = config.read_text(encoding="utf-8")
    new = '    sharpness: float = _field(1.0, en="x", zh="x")\n'
    config.write_text(text.replace("    seed: int", new + "    seed: int", 1), encoding="utf-8")
    line = text[: text.index("    seed: int")].count("\n") + 1
    methods = kb.parent / "trainer" / "methods" / "__init__.py"
    methods.write_text(
        methods.read_text("utf-8").replace('    "sft": ', '    "sharp": None,\n    "sft": ', 1), "utf-8"
    )
    faults = new_faults(kb, before)
    for lang in ("en", "zh-TW"):
        assert f"trainer/config.py:{line}: no page in {lang} tells of `sharpness`" in faults
    assert any("method 'sharp' has no row in kb/facts/methods.yaml" in fault for fault in faults)


def test_what_is_old_is_noted_and_no_fault(kb):
    where = plant(
        kb,
        PAGE,
        "updated: 2026-11-24" if "2026-11-24" in (kb / PAGE).read_text() else "updated: 2026-11-22",
        "updated: 2026-01-02",
    )
    later = date(2026, 12, 1)
    assert f"kb/{PAGE}:1: updated 2026-01-02; read it again" in notes(kb, later), where
    assert any("'alignment-handbook' was read on 2025-07-29" in note for note in notes(kb, later))
    assert not any("'lora-paper'" in note for note in notes(kb, later)), "a paper does not age"
    assert not any("read it again" in fault for fault in check(kb, later))


def test_questions_for_a_page_that_is_not_there_are_told(kb, before):
    (kb / "asked" / "methods" / "lorra.yaml").write_text("{}", encoding="utf-8")
    assert "kb/asked/methods/lorra.yaml:1: there is no page 'methods/lorra'" in new_faults(kb, before)


def test_a_missing_table_is_told(kb):
    (kb / "facts" / "gpus.yaml").unlink()
    assert check(kb, TODAY) == ["kb/facts/gpus.yaml:1: no such file"]


def test_render_rewrites_a_stale_table_once_and_leaves_the_rest_of_the_page(kb):
    render(True, kb)
    file = "pages/methods/choosing.zh-TW.md"
    fresh = (kb / file).read_text(encoding="utf-8")
    plant(kb, file, "`trl.DPOTrainer`", "`trl.PPOTrainer`")
    assert render(False, kb) == [f"kb/{file}"]
    assert "trl.PPOTrainer" in (kb / file).read_text(encoding="utf-8")
    assert render(True, kb) == [f"kb/{file}"]
    assert (kb / file).read_text(encoding="utf-8") == fresh
    assert render(True, kb) == []
