"""Work on a data file that is stopped, by Ctrl-C, a kill or the page's button, leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kb.errors import UserError
from trainer.data.history import RECORD, run, writers
from trainer.data.imports import bring_in

ROOT = Path(__file__).resolve().parents[2]


def rows_file(path: Path, count: int) -> Path:
    row = {"prompt": "How is the room? " * 40, "completion": "Clean. " * 40}
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({**row, "prompt": f"{number} {row['prompt']}"}) + "\n")
    return path


def started(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ui.cli", "data", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def until(wanted, seconds: float = 90):
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_check_that_is_stopped_leaves_no_process(tmp_path, how):
    file = rows_file(tmp_path / "rows.jsonl", 27_000)  # 25 MB: two processes measure it
    work = started("check", str(file))
    me = psutil.Process(work.pid)
    workers = until(lambda: len(found := me.children(recursive=True)) >= 3 and found)
    if how == signal.SIGINT:
        os.killpg(work.pid, how)  # as a terminal does it
    else:
        work.kill()
    _, errors = work.communicate(timeout=60)
    until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    assert work.returncode == (130 if how == signal.SIGINT else -9)
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_import_that_is_interrupted_leaves_the_earlier_file_and_nothing_else(tmp_path):
    source, out = rows_file(tmp_path / "rows.jsonl", 20_000), tmp_path / "data" / "kept.jsonl"
    bring_in(str(source), out, {}, {}, {}, limit=3)
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    work = started("import", str(source), str(out))
    until(lambda: any(path.stat().st_size for path in out.parent.glob(".*.part")))
    os.killpg(work.pid, signal.SIGINT)
    _, errors = work.communicate(timeout=60)
    assert work.returncode == 130 and "Traceback" not in errors
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before


def test_what_a_killed_process_had_begun_is_swept_by_the_next_one(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom trainer.data.history import writers\n"
        "with writers(Path(sys.argv[1]), ('kept.jsonl',)) as write:\n"
        "    write('kept.jsonl', {'text': 'x' * 100_000})\n    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "kept.jsonl").write_text("the earlier one")
    work = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert work.stdout.readline() == "begun\n"
    with writers(tmp_path, ("other.jsonl",)) as write:
        write("other.jsonl", {})
    assert list(tmp_path.glob(".*.part")), "what a living process writes stays"
    work.kill()
    work.wait()
    assert (tmp_path / "kept.jsonl").read_text() == "the earlier one"
    with writers(tmp_path, ("other.jsonl",)) as write:
        write("other.jsonl", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.jsonl", "other.jsonl"]


def test_a_step_that_fails_midway_leaves_nothing(tmp_path, monkeypatch):
    def breaks(path, options, counts):
        yield "", {"text": "one"}
        raise KeyboardInterrupt

    monkeypatch.setitem(__import__("trainer.data.steps", fromlist=["STEPS"]).STEPS, "repair", breaks)
    source = rows_file(tmp_path / "rows.jsonl", 3)
    with pytest.raises(KeyboardInterrupt):
        run("repair", source, tmp_path / "made" / "out.jsonl", {})
    assert list((tmp_path / "made").iterdir()) == [] and not (tmp_path / RECORD).exists()


def test_the_pages_button_ends_a_check_and_an_import(tmp_path):
    from ui.i18n import translator
    from ui.streams import Streams
    from ui.tabs.data import examine
    from ui.tabs.data_import import still_wanted

    source, t, streams = rows_file(tmp_path / "rows.jsonl", 2000), translator("zh-TW"), Streams()
    with streams.begin("data page") as stop:
        seen = []

        def wanted():
            seen.append(1)
            streams.end("data page")
            still_wanted(stop, t)

        with pytest.raises(UserError, match="已停止，沒有寫出任何東西"):
            examine(source, "", None, wanted)
        with pytest.raises(UserError, match="已停止"):
            bring_in(
                str(source), tmp_path / "made" / "o.jsonl", {}, {}, {}, seen=lambda *_: still_wanted(stop, t)
            )
    assert len(seen) == 1 and list((tmp_path / "made").iterdir()) == []
