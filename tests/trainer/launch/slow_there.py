"""Stands for `python` on another machine: its worker's training is slow_worker's loop, all else is real."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if "trainer.worker" not in sys.argv:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

from slow_worker import work

from trainer import worker

sys.argv = sys.argv[sys.argv.index("trainer.worker") :]
worker.work_of = lambda kind: work
sys.exit(worker.main())
