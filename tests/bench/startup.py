"""What starting costs: CPU seconds of the commands, and seconds until the page is served a second time.

`python tests/bench/startup.py` prints one JSON. Medians of five runs, each a process of its own, with the
knowledge base already in the index; the first start is told apart.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browser import served  # noqa: E402

RUNS = 5
COMMANDS = {
    "help": ["--help"],
    "search_en": ["search", "what learning rate for LoRA", "--json"],
    "search_zh": ["search", "LoRA 的學習率該設多少", "--json"],
    "ask_zh": ["ask", "LoRA 的學習率該設多少", "--backend", "extract", "--json"],
    "recommend": ["recommend", "--task", "classification", "--rows", "9000", "--json"],
}


def cpu_seconds(arguments: list[str], home: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "ui.cli", *arguments], env={**os.environ, "TUNESMITH_HOME": home},
        cwd=ROOT, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_to_page(home: str) -> float:
    start = time.monotonic()
    with served(Path(home)):
        return time.monotonic() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        figures = {"first_page_first_start_s": round(seconds_to_page(home), 1)}
        starts = [seconds_to_page(home) for _ in range(3)]
        figures["first_page_later_start_s"] = round(statistics.median(starts), 1)
        for name, arguments in COMMANDS.items():
            runs = [cpu_seconds(arguments, home) for _ in range(RUNS + 1)][1:]
            figures[f"{name}_cpu_s"] = round(statistics.median(runs), 2)
    print(json.dumps({"bench": "startup", "cores": os.cpu_count(), **figures}))


if __name__ == "__main__":
    main()
