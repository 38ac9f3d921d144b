"""How many situations get advice that an expert would accept, by `tunesmith recommend --batch` as other programs call it.

Run `python tests/bench/advice.py [cases_heldout.yaml]` (seconds); prints JSON, with --table the faults as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    from judge import LISTS, cases, faults, request

    names = [name for name in sys.argv[1:] if not name.startswith("-")] or LISTS
    for name in names:
        listed = cases(name)
        lines = "\n".join(json.dumps(request(case), ensure_ascii=False) for case in listed)
        command = [sys.executable, "-m", "ui.cli", "recommend", "--batch"]
        start = time.monotonic()
        done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT)
        seconds = time.monotonic() - start
        results = [json.loads(line) for line in done.stdout.splitlines()]
        failed = {
            case["name"]: found
            for case, result in zip(listed, results, strict=True)
            if (found := faults(case, result))
        }
        if "--table" in sys.argv:
            for case, found in failed.items():
                print(f"{case}: {'; '.join(text[:200] for text in found)}")
        passed = len(listed) - len(failed)
        print(
            json.dumps(
                {
                    "list": name,
                    "cases": len(listed),
                    "passed": passed,
                    "share": round(passed / len(listed), 3),
                    "seconds_a_case": round(seconds / len(listed), 3),
                }
            )
        )


if __name__ == "__main__":
    main()
