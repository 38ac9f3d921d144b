"""The Plan tab: three plans, values of the person's own, and what is kept with the run."""

from types import SimpleNamespace

import yaml

from assistant import recommend
from trainer import runs
from trainer.config import RunConfig
from ui import render, render_plan
from ui.i18n import translator
from ui.tabs import plan as tab

EN, ZH = translator("en"), translator("zh-TW")


def planned(lang="en", **have):
    given = {"task": "chat", "rows": 5000, "language": "en", "gpu_name": "RTX 4090", **have}
    return recommend.recommend(recommend.situation(given), lang=lang)


def test_the_three_plans_stand_side_by_side_with_what_they_cost():
    html = render.plan(planned("zh-TW"), ZH)
    assert all(ZH("plan.preset." + name) in html for name in recommend.PLANS)
    assert html.count("GB</td>") >= 3 and "plan-safe" in html and "plan-best-sft" in html


def test_a_value_of_the_persons_own_is_marked_and_warned_of_and_kept(tmp_path):
    plan = planned()
    wanted = RunConfig(**{**plan.run, "learning_rate": 0.01, "epochs": 3, "train_file": "mine.jsonl"})
    reasons = tab.reasons_for(plan, wanted, "en")
    assert reasons["learning_rate"]["rule"] == "yours" and "outside" in reasons["learning_rate"]["warning"]
    assert reasons["epochs"]["rule"] == "yours" and reasons["epochs"]["warning"] is None
    assert reasons["r"]["rule"] != "yours" and reasons["train_file"]["rule"] != "yours"
    shown = render.yours(reasons, EN)
    assert "learning_rate" in shown and "outside" in shown and "train_file" not in shown
    folder = runs.create(tmp_path / "tasks", wanted, reasons=reasons)
    kept = yaml.safe_load((folder.path / "lineage.yaml").read_text(encoding="utf-8"))["reasons"]
    assert kept["learning_rate"]["advised"] == plan.run["learning_rate"] and kept["learning_rate"]["warning"]


def test_nothing_is_marked_where_nothing_was_changed():
    plan = planned()
    assert render.yours(tab.reasons_for(plan, RunConfig(**plan.run), "en"), EN) == ""
    assert tab.reasons_for(None, RunConfig(**plan.run), "en") == {}


def test_the_values_of_the_best_plan_are_the_plans_and_not_the_persons():
    plan = planned()
    best = next(item for item in plan.plans if item["name"] == "best")
    reasons = tab.reasons_for(plan, RunConfig(**best["run"]), "en")
    assert reasons["r"]["rule"] == "plan-best-sft" and not render.yours(reasons, EN)


def test_a_question_stands_under_the_plan_card_until_it_was_asked():
    plan = planned("zh-TW", task="domain-knowledge")
    assert plan.ask["slot"] == "knowledge_update" and plan.ask["question"] in render.plan_card(plan, ZH)
    assert planned(task="domain-knowledge", asked=["knowledge_update"]).ask is None


def test_a_rehearsal_is_shown_check_by_check_with_the_page_of_what_failed():
    checks = [
        {"check": "data", "state": "ok", "said": {"en": "fine", "zh-TW": "好"}, "page": "a#b", "mistake": False},
        {"check": "length", "state": "failed", "said": {"en": "<cut>", "zh-TW": "截"}, "page": "c#d", "mistake": True},
    ]  # fmt: skip
    html = render_plan.rehearsal({"checks": checks, "ready": False}, "en", EN)
    assert "&lt;cut&gt;" in html and "c#d" in html and "a#b" not in html and EN("rehearsal.failed") in html


def test_the_rehearsal_of_the_page_tells_its_stages_and_then_its_report(tmp_path, monkeypatch):
    stages = iter(["data", "train"])
    folder = SimpleNamespace(
        status=lambda: (
            {"state": "running", "stage": stage} if (stage := next(stages, "")) else {"state": "done"}
        )
    )
    monkeypatch.setattr(tab.rehearse, "begin", lambda home, wanted: folder)
    monkeypatch.setattr(tab.rehearse, "report", lambda folder: {"ready": True})
    monkeypatch.setattr(tab, "POLL_SECONDS", 0)
    context = SimpleNamespace(home=SimpleNamespace(path=tmp_path))
    assert list(tab.rehearsal(context, None)) == [("data", None), ("train", None), ("", {"ready": True})]
