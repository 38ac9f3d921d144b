"""The device's rate: measured once for a device and a torch version, read without torch."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer import progress, rate
from trainer.config import UserError
from trainer.hardware import GpuInfo, Hardware
from trainer.stages import Stage

CPU, CARD = Hardware([], 2, 8.0), Hardware([GpuInfo("NVIDIA L4", 22, 22, True)], 8, 32.0)


def test_a_device_is_measured_once_and_its_rate_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(rate, "SECONDS", 0.1)
    assert rate.known(tmp_path, CPU) is None
    found = rate.measure(tmp_path, CPU)
    assert 1e8 < found < 1e14 and rate.known(tmp_path, CPU) == found
    assert rate.known(tmp_path, CARD) is None  # another device says nothing
    assert rate.known(tmp_path, Hardware([], 64, 8.0)) is None


def test_a_torn_file_is_no_rate(tmp_path):
    for text in ("{", "[]", json.dumps({rate.key_of(CPU): 5})):
        (tmp_path / rate.FILE).write_text(text)
        assert rate.known(tmp_path, CPU) is None


def test_a_probe_that_fails_is_one_line(tmp_path, monkeypatch):
    broken = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nRuntimeError: no kernel")
    monkeypatch.setattr(rate.subprocess, "run", lambda *args, **kwargs: broken)
    with pytest.raises(UserError, match="no kernel"):
        rate.measure_apart(tmp_path)


def test_reading_a_rate_imports_no_torch():
    code = "import sys; from pathlib import Path; from trainer import rate; from trainer.hardware import Hardware; rate.known(Path('.'), Hardware()); print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout.strip()
        == "False"
    )


FOLDER = SimpleNamespace(config=lambda: SimpleNamespace(save_total_limit=1))


def test_the_time_left_counts_from_the_second_step_and_holds_the_scoring():
    guess = SimpleNamespace(
        seconds=100.0, stages=[Stage("training", 1, 1, 1, 100.0), Stage("evaluation", 1, 1, 0, 50.0)]
    )
    seen = progress.Progress(FOLDER, lambda: False, guess)
    state = SimpleNamespace(global_step=3, max_steps=10)
    seen.first_step, seen.began, seen.warm = 0, 0.0, 30.0  # the first step took 30 s
    # two steps in 40 s: 20 a step, twice the 10 that were predicted, so the scoring takes twice its 50
    assert seen._left(state, 70.0) == 7 * 20 + 2 * 50
    plain = progress.Progress(FOLDER, lambda: False)
    plain.first_step, plain.began, plain.warm = 0, 0.0, 0.0
    assert plain._left(SimpleNamespace(global_step=1, max_steps=4), 5.0) == 15
