"""Memory and time before the run: against published points, and what must hold for every shape."""

import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kb.facts import by_id
from trainer import base, calibration, runs
from trainer.calibration import Pair, interval
from trainer.config import RunConfig
from trainer.estimate import Stack, adapter_params, estimate, memory
from trainer.hardware import GpuInfo, Hardware, gpu_row, parse_nvidia_smi, probe

CARDS = by_id("models")
RTX = Hardware([GpuInfo("NVIDIA GeForce RTX 4090", 24.0, 23.5, True)], 16, 64.0, 500.0)


def config(**values):
    return RunConfig(**{"task": "t", "base_model": "Qwen/Qwen3-8B", "train_file": "x.jsonl", **values})


def bench():
    path = Path(__file__).resolve().parents[1] / "bench" / "estimate.py"
    spec = importlib.util.spec_from_file_location("bench_estimate", path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["bench_estimate"] = module
    spec.loader.exec_module(module)
    return module


def test_published_measurements_are_met():
    summary = bench().measure()["summary"]
    assert summary["points"] >= 55
    assert summary["within_15_percent"] == 1, summary
    assert summary["within_8_percent"] >= 0.8, summary


@pytest.mark.parametrize(
    ("model", "r", "trained"),
    [("qwen3-4b", 16, 33.0e6), ("qwen3-4b", 32, 66.06e6), ("qwen3-8b", 16, 43.6e6), ("llama3.1-8b-instruct", 64, 167.8e6)],
)  # fmt: skip
def test_adapters_have_the_measured_number_of_weights(model, r, trained):
    assert adapter_params(CARDS[model], r) == pytest.approx(trained, rel=0.003)


@pytest.mark.parametrize(
    ("model", "peft", "gb", "fits"),
    [
        ("llama3.3-70b-instruct", "qlora", 24, False),
        ("llama3.3-70b-instruct", "qlora", 48, True),
        ("qwen3-30b-a3b", "qlora", 24, False),  # the experts stay in 16 bits
        ("qwen3-8b", "lora", 24, True),
        ("qwen3-8b", "full", 80, False),  # 16 bytes a weight
        ("qwen3-4b", "qlora", 8, True),
    ],
)
def test_what_fits_a_card(model, peft, gb, fits):
    machine = Hardware([GpuInfo("", gb, gb, True)], 8, 64.0)
    plan = config(peft=peft, batch_size=1, gradient_accumulation=16, max_length=512)
    assert estimate(plan, CARDS[model], hardware=machine).fits is fits


def test_more_of_anything_never_takes_less_memory():
    base = {"peft": "lora", "r": 16, "batch": 2, "length": 512}
    size = lambda **change: sum(memory(CARDS["qwen3-8b"], **{**base, **change}).values())
    assert size() < size(length=4096) < size(length=4096, batch=4)
    assert size() < size(r=256) and size(peft="qlora") < size() < size(peft="full")
    assert size() < size(checkpointing=False) and size(batch=1) < size(batch=1, sequences=2)
    assert size(peft="full") < size(peft="full", reference=True) and size(reference=True) == size()
    assert size(peft="full", eight_bit=True) < size(peft="full")


def test_an_untied_head_and_experts_are_not_quantized():
    card = CARDS["qwen3-30b-a3b"]
    weights = memory(card, peft="qlora")["weights"]
    experts = card.layers * card.experts * 3 * card.hidden * card.expert_ffn * 2 / 2**30
    assert weights > experts
    dense = memory(CARDS["qwen3-8b"], peft="qlora")["weights"]
    assert dense == pytest.approx((6.945e9 * 0.516 + 1.246e9 * 2) / 2**30, rel=0.01)


def test_the_fused_head_spares_the_logits():
    card = CARDS["qwen3-4b"]
    whole = sum(memory(card, peft="qlora", length=4096, stack=Stack(fused_head=False)).values())
    tiles = sum(memory(card, peft="qlora", length=4096).values())
    assert whole - tiles > 4


def test_realised_lengths_count_not_max_length():
    lengths = SimpleNamespace(p50=100, p95=200, max=256)
    long, real = (estimate(config(max_length=8192), CARDS["qwen3-8b"], tokens) for tokens in (None, lengths))
    assert real.total_gb < long.total_gb


def test_preference_methods_hold_two_answers():
    sft, dpo = (estimate(config(method=method), CARDS["qwen3-8b"]).total_gb for method in ("sft", "dpo"))
    assert sft < dpo


def test_an_interval_surrounds_the_total_and_the_terms_add_up():
    guess = estimate(config(), CARDS["qwen3-8b"], hardware=RTX)
    assert guess.low_gb < guess.total_gb < guess.high_gb
    assert sum(guess.terms.values()) == pytest.approx(guess.total_gb, abs=0.05)
    chinese = estimate(config(), CARDS["qwen3-8b"], hardware=RTX, lang="zh-TW").terms
    assert list(chinese.values()) == list(guess.terms.values()) and not set(chinese) & set(guess.terms)


def test_time_follows_tokens_and_device():
    lengths = SimpleNamespace(p50=200, p95=400, max=500)
    fast = Hardware([GpuInfo("NVIDIA H100 80GB HBM3", 80, 79, True)], 8, 64.0)
    short, long = (estimate(config(), CARDS["qwen3-8b"], lengths, RTX, rows=n).seconds for n in (1000, 10000))
    assert long == pytest.approx(10 * short, rel=0.01)
    assert estimate(config(), CARDS["qwen3-8b"], lengths, fast, rows=1000).seconds < short
    assert estimate(config(), CARDS["qwen3-8b"], lengths, RTX).seconds is None
    unknown = Hardware([GpuInfo("Mystery 9000", 24, 24, True)])
    assert estimate(config(), CARDS["qwen3-8b"], lengths, unknown, rows=1000).seconds is None
    measured = estimate(config(), CARDS["qwen3-8b"], lengths, unknown, rows=1000, rate=1e14)
    assert measured.seconds and measured.rate == 1e14
    faster = estimate(config(), CARDS["qwen3-8b"], lengths, unknown, rows=1000, rate=2e14)
    assert faster.seconds == pytest.approx(measured.seconds / 2, rel=0.01)


def test_evaluations_scoring_and_export_are_part_of_the_time():
    lengths = SimpleNamespace(p50=200, p95=400, max=500, mean=260.0)
    often, never = (
        estimate(config(eval_steps=5, eval_fraction=share), CARDS["qwen3-8b"], lengths, RTX, rows=2000)
        for share in (0.2, 0.0)
    )
    assert often.seconds > never.seconds
    assert often.total_seconds == round(sum(stage.seconds or 0 for stage in often.stages))
    assert often.total_seconds > often.seconds and often.total_seconds_high > often.total_seconds
    shorter = estimate(
        config(), CARDS["qwen3-8b"], SimpleNamespace(**{**vars(lengths), "mean": 130.0}), RTX, rows=2000
    )
    assert shorter.seconds < 0.6 * often.seconds  # the mean counts, not the median


def test_the_starter_model_takes_minutes_and_a_gigabyte_on_a_cpu():
    plan = config(
        base_model="starter", peft="full", epochs=1, batch_size=16, gradient_accumulation=1, max_length=64
    )
    guess = estimate(plan, None, None, Hardware([], 2, 8.0), rows=8160)
    assert guess.fits and guess.total_gb < 2 and 30 < guess.seconds < 300


def test_without_bf16_what_is_not_quantized_takes_twice():
    old = replace(RTX, gpus=[GpuInfo("Tesla T4", 24, 24, False)])
    assert estimate(config(), CARDS["qwen3-4b"], hardware=old).total_gb > 1.5 * estimate(config(), CARDS["qwen3-4b"], hardware=RTX).total_gb  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("單張 4090", "rtx-4090"),
        ("RTX4060Ti", "rtx-4060-ti-16gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx-4070-ti-super"),
        ("RTX 4080 Super", "rtx-4080-super"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA GB10", "gb10"),
        ("DGX Spark", "gb10"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("rtx 3060 ti", None),
        ("GTX 1000", None),
    ],
)
def test_cards_are_known_by_the_names_that_drivers_and_people_use(name, row):
    found = gpu_row(name)
    assert (found.id if found else None) == row


def test_nvidia_smi_is_read_and_odd_lines_left_out():
    text = "NVIDIA GeForce RTX 3090, 24576, 23000, 8.6\nTesla T4, 15360, 15000, 7.5\nMIG, [N/A], [N/A], 8.0\nerror\n"
    cards = parse_nvidia_smi(text)
    assert [(card.memory_gb, card.bf16) for card in cards] == [(24.0, True), (15.0, False)]


def test_a_probe_is_quick_and_finds_this_machine():
    probe()
    start = time.process_time()
    here = probe()
    assert time.process_time() - start < 0.2
    assert here.cpu_cores >= 1 and here.ram_gb > 0.5 and here.disk_free_gb > 0


def test_each_stage_is_estimated_with_ram_and_disk():
    guess = estimate(config(batch_size=1), CARDS["qwen3-8b"], hardware=RTX, rows=1000)
    stage = {item.name: item for item in guess.stages}
    assert list(stage) == ["training", "evaluation", "merging", "gguf", "serving f16", "serving q4_k_m"]
    assert stage["training"].device_gb == guess.total_gb and stage["merging"].device_gb is None
    assert 15 < stage["merging"].host_gb < 21  # 8.19 B weights in bf16
    assert 30 < stage["gguf"].disk_gb < 32  # model.gguf and base.gguf
    assert stage["serving q4_k_m"].device_gb < 6 < 15 < stage["serving f16"].device_gb < 17
    assert guess.host_gb == max(item.host_gb for item in guess.stages) and guess.disk_gb > 45
    assert stage["training"].seconds == guess.seconds and stage["evaluation"].seconds > 0


def test_a_quantized_base_is_scored_in_four_bits_and_merged_in_sixteen():
    lora, qlora = (
        {item.name: item for item in estimate(config(peft=peft), CARDS["qwen3-8b"], hardware=RTX).stages}
        for peft in ("lora", "qlora")
    )
    assert qlora["evaluation"].device_gb < lora["evaluation"].device_gb - 8
    assert qlora["merging"].host_gb == lora["merging"].host_gb


def test_on_a_cpu_every_stage_is_in_main_memory():
    guess = estimate(config(), CARDS["qwen3-0.6b"], hardware=Hardware([], 8, 32.0))
    assert all(item.device_gb is None for item in guess.stages) and guess.stages[0].host_gb == guess.total_gb


def pair(ratio, device="NVIDIA GeForce RTX 4090", kind="lora"):
    return Pair(device, kind, 10.0, 10.0 * ratio, 100.0, 100.0 * ratio)


def test_runs_that_were_as_predicted_narrow_the_interval_and_others_widen_it():
    bounds = lambda pairs: (
        (guess := estimate(config(), CARDS["qwen3-8b"], hardware=RTX, rows=500, pairs=pairs)),
        guess.high_gb - guess.low_gb,
    )
    first, width = bounds([])
    good, narrow = bounds([pair(1.0)] * 12)
    _, wide = bounds([pair(ratio) for ratio in (0.6, 1.5, 0.7, 1.4)])
    assert narrow < width / 1.5 < width < wide and good.runs == 12
    assert good.total_gb == first.total_gb and good.low_gb < good.total_gb < good.high_gb
    assert good.seconds_high - good.seconds_low < first.seconds_high - first.seconds_low


def test_runs_of_another_device_or_kind_say_nothing():
    other = [pair(3.0, device="cpu"), pair(3.0, kind="full")]
    guess, alone = (estimate(config(), CARDS["qwen3-8b"], hardware=RTX, pairs=pairs) for pairs in (other, []))
    assert (guess.low_gb, guess.high_gb, guess.runs) == (alone.low_gb, alone.high_gb, 0)


def test_one_odd_run_does_not_rule_the_interval():
    low, high = interval(10.0, [3.0], 0.12, 0.15)
    assert low < 10 < high < 30


def test_pairs_are_kept_in_the_home_and_torn_lines_skipped(tmp_path):
    calibration.note(tmp_path, tmp_path, pair(1.1), {"weights": 1.0})
    with (tmp_path / calibration.FILE).open("a") as file:
        file.write('{"device": "cp\n[]\n{"odd": 1}\n')
    calibration.note(tmp_path, tmp_path, pair(0.9), {})
    assert [round(found.measured_gb) for found in calibration.load(tmp_path)] == [11, 9]
    assert calibration.load(tmp_path / "elsewhere") == []


def test_a_finished_run_adds_its_pair(tmp_path, config_of, tiny_base):
    from trainer.train import train

    folder = runs.create(tmp_path / "home" / "tasks", config_of(max_steps=2))
    assert train(folder) == "done"
    (found,) = calibration.load(tmp_path / "home")
    assert (found.device, found.kind, found.run) == ("cpu", "full", "reviews/v1")
    assert found.measured_gb > 0.1 and found.measured_seconds > 0
    assert (folder.path / "estimate.json").is_file()
    shape = base.shape_of(tiny_base)
    assert (shape.layers, shape.hidden) == (2, 32) and 30_000 < shape.params_b * 1e9 < 60_000
