"""The advice against what any expert would accept, and what must hold for every situation there is."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import judge
import pytest

from assistant import recommend as advice
from assistant.facts import DERIVED
from assistant.recommend import recommend, situation, situation_from_text, to_json
from assistant.rules import COLLECTED, names_in
from assistant.types import Situation
from assistant.yours import beyond_advice, yours
from kb.facts import by_id, table
from kb.pages import pages
from trainer.config import RunConfig, UserError
from trainer.hardware import GpuInfo, Hardware

ROOT = Path(__file__).resolve().parents[2]
CASES = [case for name in judge.LISTS for case in judge.cases(name)]
ANCHORS = {f"{page.id}#{section.anchor}" for page in pages("zh-TW") for section in page.sections()}


def advise(**have):
    return to_json(recommend(situation(have)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_an_expert_would_accept(case):
    assert judge.faults(case, advise(**judge.request(case))) == []


def test_a_number_of_things_that_no_list_names_is_rows_or_documents():
    read = {
        "We have 2,200 press releases in our tone": ("rows", 2200),
        "Ask questions over 12,000 statutes and see the source": ("docs", 12000),
        "規格書有 450 份，想問機器人並附出處": ("docs", 450),
        "2 萬本書的簡介，館員都分好類了，要自動分類到 40 個主題": ("rows", 20000),
    }
    for text, (key, count) in read.items():
        assert getattr(situation_from_text(text), key) == count, text
    for text in (
        "Can I fine-tune on RTX 4090 with transformers?",
        "We have 24 GB and 40 departments",
        "a context of 8192 works",
        "每份合約 30 頁，顯卡 24GB",
        "I have 4090 cards",
        "We have 500 users a day",
    ):
        found = situation_from_text(text)
        assert (found.rows, found.docs) == (None, None), text


def test_no_words_break_the_reading_or_hold_it_up():
    pick = random.Random(3)
    parts = [
        "rank 0", "r=0", "0 GB", "0B", "0 tokens each", "average 0 tokens", "0:5 imbalanced", "99% are", "0% are", "4x", "零筆", "億",
        "Qwen3-", "70B", "每天", "更新", "9" * 400, "一" * 400, "a ", "1 a ", "\n", "{r}", "%s", "😀", "GPU", "A100", "no GPU", "1.5.2",
    ]  # fmt: skip
    for _ in range(60):
        text = pick.choice(["", " "]).join(pick.choices(parts, k=pick.randint(1, 30)))
        start = time.process_time()
        recommend(situation({"goal": text}))
        assert time.process_time() - start < 2, text
    situation_from_text("9" * 100000 + " rows")


def random_situations(count: int, seed: int = 7) -> list[Situation]:
    pick = random.Random(seed)
    some = lambda *values: pick.choice([None, *values])
    tasks = Situation.model_fields["task"].annotation.__args__[0].__args__
    result = []
    for _ in range(count):
        values = {
            "task": some(*tasks),
            "language": some("zh", "zh-TW", "zh-CN", "en", "mixed", "de", "th", "klingon"),
            "rows": some(0, 1, 49, 80, 150, 499, 3000, 60000, 10**6, 10**8),
            "preference_pairs": some(0, 30, 800, 50000),
            "thumbs_up": some(0, 500, 9000),
            "thumbs_down": some(0, 100, 20000),
            "verifier_prompts": some(0, 5000),
            "docs": some(0, 1, 500, 10**6),
            "knowledge_update": some("static", "weekly", "daily"),
            "avg_tokens": some(1, 60, 700, 9000, 500000),
            "avg_completion_tokens": some(1, 200, 5000),
            "class_ratio": some(1, 4.9, 90),
            "has_cot": some(True, False),
            "sft_done": some(True, False),
            "sensitive": some(True, False),
            "gpus": some(0, 1, 8),
            "gpu_vram_gb": some(0, 1, 4, 11, 24, 80, 141),
            "gpu_name": some("RTX 4090", "T4", "a card of the future", "A100"),
            "bf16": some(True, False),
            "base_model": some("starter", "Qwen/Qwen3-8B", "/models/{mine}", "mistral-7b"),
            "base_model_b": some(0.05, 7, 400),
            "wanted_model": some("Qwen3-30B-A3B", "gpt-oss-20b", "Llama-2-13b-hf", "nonsense", "starter"),
            "wanted_model_b": some(0.01, 33, 671),
            "wanted_r": some(1, 16, 5000),
            "goal": some("", "微調一個客服", "distil a teacher", "{r} %s \\ {unknown}", "每天更新 9千筆"),
        }
        thin = {key: value for key, value in values.items() if value is not None and pick.random() < 0.5}
        result.append(situation(thin))
    return result


def test_every_situation_gets_a_run_that_validates_and_cites():
    keys = by_id("sources")
    names = {source.name for source in keys.values()}
    for number, given in enumerate(random_situations(300)):
        for lang in (("en", "zh-TW")[number % 2],):
            result = to_json(recommend(given, lang=lang))
            assert (result["run"] is not None) == ("finetune" in result["decision"]), given
            if result["run"]:
                run = RunConfig(**result["run"])
                assert set(result["run"]) <= set(result["reasons"]), given
                assert run.batch_size * run.gradient_accumulation >= 1
                fits = result["estimate"]["fits"]
                assert fits or any(re.search("fit|放不下", w) for w in result["warnings"]), given
                assert not fits or result["memory_gb"] <= 0.97 * result["estimate"]["available_gb"] + 0.01, (
                    given
                )
                assert abs(result["memory_gb"] - result["estimate"]["total_gb"]) < 0.02, given
            for field, reason in result["reasons"].items():
                cited = reason["citation"]
                assert f"{cited['page']}#{cited['anchor']}" in ANCHORS, (field, cited)
                assert cited["sources"] and {s["name"] for s in cited["sources"]} <= names
                assert reason["because"] and "{" not in reason["because"].replace("{mine}", ""), (
                    field,
                    reason["because"],
                )
            assert not any("{" in w.replace("{mine}", "") or "None" in w for w in result["warnings"]), result[
                "warnings"
            ]
            json.dumps(result)


GRID = [
    {"task": task, "language": language}
    for task in ("classification", "chat", "code", "summarization")
    for language in ("zh", "en")
]


@pytest.mark.parametrize("base", GRID, ids=lambda base: "-".join(base.values()))
def test_more_data_never_lowers_the_rank(base):
    for tokens in (100, 1500):
        ranks = [
            advise(**base, gpu_vram_gb=24, rows=rows, avg_tokens=tokens)["r"] or 0
            for rows in (0, 60, 300, 1000, 5000, 20001, 10**5, 10**6, 10**7)
        ]
        assert ranks == sorted(ranks), ranks


@pytest.mark.parametrize(
    "base", [*GRID, {"preference_pairs": 5000}, {"task": "chat", "wanted_model_b": 32}], ids=str
)
def test_less_memory_never_raises_what_the_plan_uses(base):
    sizes = [
        advise(**{"rows": 5000, **base}, gpus=1, gpu_vram_gb=gb)["memory_gb"]
        for gb in (200, 141, 96, 80, 48, 40, 32, 24, 20, 16, 12, 11, 10, 8, 7, 6, 5, 4, 3, 2, 1)
    ]
    assert sizes == sorted(sizes, reverse=True), sizes


def test_less_memory_never_raises_it_for_any_situation():
    for given in random_situations(60, seed=11):
        have = {**given.model_dump(exclude={"gpu_name", "gpus"}), "gpus": 1}
        sizes = [
            recommend(Situation(**{**have, "gpu_vram_gb": gb})).memory_gb for gb in (141, 48, 24, 16, 8, 4, 1)
        ]
        assert sizes == sorted(sizes, key=lambda size: -(size or 0)), (given, sizes)


def test_a_value_of_the_persons_own_keeps_the_advised_one_beside_it():
    reason = advise(task="chat", rows=5000, gpu_vram_gb=24, wanted_r=256)["reasons"]["r"]
    assert reason["value"] == 256 and reason["rule"] == "rank-yours"
    assert {key: reason["overruled"][0][key] for key in ("rule", "value")} == {"rule": "rank-16", "value": 16}


def test_a_changed_value_outside_the_rules_range_is_told():
    plan = recommend(situation({"task": "chat", "rows": 5000, "gpu_vram_gb": 24}))
    assert beyond_advice(plan.run, plan) == {}
    told = beyond_advice({**plan.run, "learning_rate": 1e-5, "epochs": 30}, plan, "zh-TW")
    assert set(told) == {"learning_rate", "epochs"} and "超出" in told["epochs"]


def test_reasons_are_in_the_readers_language():
    given = situation({"task": "classification", "rows": 80})
    assert re.search(r"[\u4e00-\u9fff]", recommend(given, lang="zh-TW").reasons["decision"].because)
    assert not re.search(r"[\u4e00-\u9fff]", recommend(given, lang="en").reasons["decision"].because)


def test_what_a_person_gives_outweighs_the_words_and_the_machine():
    machine = Hardware([GpuInfo("NVIDIA A100 80GB PCIe", 80, 80, True)])
    assert recommend(situation({"task": "chat", "rows": 5000}), machine).estimate["available_gb"] == 80
    told = recommend(situation({"task": "chat", "rows": 5000, "gpu_vram_gb": 8}), machine)
    assert told.estimate["available_gb"] == 8 and told.memory_gb <= 8
    words = recommend(situation({"goal": "9千筆 24GB 顯卡", "gpu_vram_gb": 8, "task": "chat"}))
    assert words.estimate["available_gb"] == 8


def test_the_machine_without_a_gpu_is_planned_for_its_ram():
    result = recommend(
        situation({"task": "classification", "rows": 5000, "language": "zh"}), Hardware([], 2, 8.0)
    )
    assert result.estimate["available_gb"] == 8.0 and result.memory_gb <= 8 and result.model_b < 1


@pytest.mark.parametrize(
    ("values", "word"),
    [({"row": 5}, "'row'"), ({"rows": -1}, "rows"), ({"task": "poetry"}, "task"), ({"rows": "many"}, "rows"), ([1], "object")],
)  # fmt: skip
def test_a_wrong_situation_is_named_in_one_line(values, word):
    with pytest.raises(UserError) as error:
        situation(values)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_rules_speak_only_of_facts_that_exist():
    known = set(DERIVED) | set(Situation.model_fields) | set(RunConfig.model_fields)
    known |= {key for rule in table("rules") for key in rule.set}
    known |= {
        f"{side}_{name}"
        for side in ("larger", "smaller")
        for name in ("model_hub", "model_b", "peft", "memory_gb")
    }
    known |= {"r_low", "r_high", "r_advised"} | {
        f"assumed_{name}" for name in (*advice.ASSUMED_MACHINE, *advice.ASSUMED_DATA)
    }
    for rule in table("rules"):
        used = set(rule.when) | names_in(rule.when) | names_in(rule.set)
        used |= set(re.findall(r"\{(\w+)", rule.because.en + rule.because.zh_TW))
        assert used <= known, (rule.id, used - known)
        assert rule.page in ANCHORS, rule.id
        assert len(rule.set) == 1 or not set(rule.set) & set(COLLECTED), rule.id


def test_the_two_languages_of_a_rule_tell_the_same_facts():
    for rule in table("rules"):
        english, chinese = (
            set(re.findall(r"\{(\w+)", text)) for text in (rule.because.en, rule.because.zh_TW)
        )
        assert english == chinese, rule.id


def test_a_recommendation_takes_under_300_ms_and_no_torch():
    code = (
        "import sys, time\n"
        "from assistant.recommend import recommend, situation, to_json\n"
        "s = situation({'task': 'chat', 'rows': 5000, 'goal': '用 24GB 微調客服'})\n"
        "recommend(s)\n"
        "start = time.process_time()\n"
        "for _ in range(10): to_json(recommend(s))\n"
        "print((time.process_time() - start) / 10, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, torch = done.stdout.split()
    assert float(seconds) < 0.3 and torch == "False"


def test_a_data_file_is_measured_and_its_lengths_and_labels_used(shared_data):
    path = shared_data / "chnsenticorp" / "train.tsv"
    start = time.monotonic()
    result = advice.from_inputs({"base_model": "starter", "gpus": 0}, data=path, lang="zh-TW")
    assert result.run["train_file"] == str(path) and result.run["base_model"] == "starter"
    assert result.run["epochs"] <= 3 and result.run["batch_size"] == 16
    assert time.monotonic() - start < 10
    pretrained = advice.from_inputs({"gpu_vram_gb": 24}, data=path)
    assert pretrained.reasons["max_length"].rule.startswith("length-measured")
    assert "0" in pretrained.run["instruction"] and "1" in pretrained.run["instruction"]


@pytest.mark.parametrize(
    ("file", "accepted"),
    [
        ("llamafactory_demo/alpaca_zh_demo.json", {("finetune", "sft")}),
        ("llamafactory_demo/dpo_zh_demo.json", {("finetune", "dpo")}),
        ("llamafactory_demo/kto_en_demo.json", {("finetune", "kto")}),
        ("llamafactory_demo/wiki_demo.txt", {("rag", None), ("finetune", "cpt")}),
        ("llamafactory_demo/identity.json", {("collect_data", None), ("prompt", None)}),
        ("banking77/banking_data__train.csv", {("finetune", "sft")}),
    ],
)
def test_the_files_kind_of_rows_decides_the_method(shared_data, file, accepted):
    path = shared_data / file
    if not path.exists():
        pytest.skip(f"{file} is not in shared/data")
    result = to_json(advice.from_inputs({"gpu_vram_gb": 24}, data=path))
    assert (result["decision"], result["method"]) in accepted, result["warnings"]


def test_every_plan_validates_cites_and_costs():
    sources = {source.name for source in table("sources")}
    for number, given in enumerate(random_situations(120, seed=5)):
        result = to_json(recommend(given, lang=("en", "zh-TW")[number % 2]))
        assert [plan["name"] for plan in result["plans"]] == (list(advice.PLANS) if result["run"] else [])
        for plan in result["plans"]:
            RunConfig(**plan["run"])
            assert plan["memory_gb"] > 0 and "{" not in plan["because"], plan
            for reason in (plan, *plan["changes"].values()):
                cited = reason["citation"]
                assert f"{cited['page']}#{cited['anchor']}" in ANCHORS
                assert {source["name"] for source in cited["sources"]} <= sources
            same = {**result["run"], **{name: reason["value"] for name, reason in plan["changes"].items()}}
            assert {name: same[name] for name in plan["run"]} == plan["run"]
            if plan["name"] == "recommended":
                assert plan["run"] == result["run"] and not plan["changes"]


def test_the_safe_plan_asks_for_less_and_the_best_for_no_smaller_a_model():
    for base in (*GRID, {"task": "chat", "language": "zh", "gpu_vram_gb": 12}, {"preference_pairs": 5000}):
        plans = {plan["name"]: plan for plan in advise(**{"rows": 5000, "gpu_vram_gb": 24, **base})["plans"]}
        safe, middle, best = (plans[name] for name in advice.PLANS)
        assert safe["memory_gb"] <= middle["memory_gb"] and safe["seconds"] < middle["seconds"], base
        assert (
            safe["model_b"] <= middle["model_b"] <= best["model_b"] and best["seconds"] >= middle["seconds"]
        )
        assert safe["fits"] and best["fits"]


def test_a_rank_that_the_person_asked_for_stays_in_every_plan():
    plans = advise(task="chat", rows=5000, gpu_vram_gb=24, wanted_r=48)["plans"]
    assert {plan["r"] for plan in plans} == {48}


def test_no_question_is_asked_twice_and_questions_end():
    for given in random_situations(80, seed=3):
        asked: list[str] = []
        while question := recommend(given.model_copy(update={"asked": asked})).ask:
            assert question["slot"] not in asked and question["question"], given
            assert question["slot"] in Situation.model_fields
            asked.append(question["slot"])
        assert len(asked) <= 5


def test_a_question_is_in_the_readers_language():
    given = situation({"task": "classification"})
    assert re.search(r"[\u4e00-\u9fff]", recommend(given, lang="zh-TW").ask["question"])
    assert not re.search(r"[\u4e00-\u9fff]", recommend(given, lang="en").ask["question"])


def test_the_baseline_comes_first_with_its_command_except_for_the_starter():
    first = advise(task="chat", rows=5000, gpu_vram_gb=24)["baseline"]
    assert first["command"] == "tunesmith baseline RUN.yaml" and first["citation"]["sources"]
    assert advise(task="classification", rows=5000, base_model="starter")["baseline"] is None
    assert advise(task="classification", rows=20)["baseline"] is None


def test_values_of_the_persons_own_are_marked_with_the_advised_one_and_the_warning():
    plan = recommend(situation({"task": "chat", "rows": 5000, "gpu_vram_gb": 24}))
    assert yours(plan.run, plan) == {}
    own = yours({**plan.run, "learning_rate": 0.1, "epochs": 3}, plan, "zh-TW")
    assert set(own) == {"learning_rate", "epochs"} and own["epochs"]["warning"] is None
    assert (
        own["learning_rate"]["advised"] == plan.run["learning_rate"]
        and "超出" in own["learning_rate"]["warning"]
    )
    assert own["learning_rate"]["rule"] == "yours" and own["learning_rate"]["citation"]["sources"]


def test_a_full_disk_and_a_small_memory_are_told_before_the_start():
    given = situation({"task": "chat", "rows": 5000, "language": "en"})
    card = GpuInfo("NVIDIA GeForce RTX 4090", 24, 24, True)
    told = "\n".join(recommend(given, Hardware([card], 8, 16.0, 20.0)).warnings)
    assert "Disk:" in told and "Main memory:" in told
    silent = "\n".join(recommend(given, Hardware([card], 8, 128.0, 900.0)).warnings)
    assert "Disk:" not in silent and "Main memory:" not in silent


def test_runs_measured_here_move_the_interval():
    from trainer.calibration import Pair

    given = situation({"task": "chat", "rows": 5000, "language": "en"})
    here = Hardware([GpuInfo("NVIDIA GeForce RTX 4090", 24, 24, True)], 8, 64.0, 900.0)
    first = recommend(given, here).estimate
    name = "GeForce RTX 4090"
    pairs = [Pair(name, "lora", 10.0, 10.0, 100.0, 100.0)] * 12
    later = recommend(given, here, pairs=pairs).estimate
    assert later["high_gb"] - later["low_gb"] < first["high_gb"] - first["low_gb"] and later["runs"] == 12


def test_every_field_of_every_proposed_run_of_every_case_has_a_citation_that_resolves():
    known = {source.name: source for source in table("sources")}
    fields = 0
    for number, case in enumerate(CASES):
        result = to_json(recommend(situation(judge.request(case)), lang=("en", "zh-TW")[number % 2]))
        for plan in result["plans"]:
            for name in plan["run"]:
                reason = plan["changes"].get(name) or result["reasons"][name]
                cited = reason["citation"]
                assert f"{cited['page']}#{cited['anchor']}" in ANCHORS, (case["name"], name)
                assert cited["evidence"] in ("measured", "primary", "secondary", "heuristic")
                assert cited["sources"] and all(
                    known[one["name"]].url == one["url"] for one in cited["sources"]
                )
                assert reason["because"].strip() and reason["value"] == plan["run"][name], (
                    case["name"],
                    name,
                )
                fields += 1
    assert fields > 10_000


def test_a_saved_run_keeps_its_reasons_and_a_value_changed_by_hand_becomes_the_persons(tmp_path):
    from trainer import config, runs
    from ui.cli import save_run
    from ui.cli_runs import reasons_of

    plan = recommend(situation({"task": "chat", "rows": 5000, "gpu_vram_gb": 24}))
    path = tmp_path / "run.yaml"
    save_run(plan.run, path, to_json(plan)["reasons"])
    kept = config.reasons_in(path)
    assert set(plan.run) <= set(kept) and kept["r"] == to_json(plan)["reasons"]["r"]
    path.write_text(
        path.read_text(encoding="utf-8").replace("learning_rate: 0.0002\n", "learning_rate: 0.5\n", 1),
        encoding="utf-8",
    )
    wanted = config.load(path)
    reasons = reasons_of(str(path), wanted)
    assert reasons["learning_rate"]["rule"] == "yours" and reasons["learning_rate"]["warning"]
    assert reasons["learning_rate"]["advised"] == 0.0002 and reasons["r"]["rule"] == "rank-16"
    folder = runs.create(tmp_path / "tasks", wanted, reasons=reasons)
    assert folder.reasons()["r"]["citation"]["sources"] and folder.config() == wanted
    assert config.reasons_in(folder.path / "run.yaml") == folder.reasons()
    assert config.load(folder.path / "run.yaml") == wanted  # the reasons are no values
