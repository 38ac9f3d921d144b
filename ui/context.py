"""What the tabs share: the home folder, the index, the job queue, the loaded models."""

from __future__ import annotations

import logging
import threading
import time
from functools import cached_property
from typing import Any

from trainer.jobs import Jobs
from ui.chat import Engines
from ui.home import Home
from ui.streams import Streams

QUEUE_SECONDS = 2.0


class Context:
    """One for the app; made before the first page. Opens things when they are first needed."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.jobs = Jobs(home.path)
        self.engines = Engines()
        self.streams = Streams()

    @cached_property
    def index(self) -> Any:
        from ingest.index import Index

        return Index.open(self.home.index, **self.home.stores())

    @cached_property
    def dashboard(self) -> Any:
        """trackio's dashboard; it ends with the app."""
        import atexit

        from trainer.trackers import Dashboard

        made = Dashboard(self.home.path)
        atexit.register(made.close)
        return made

    @cached_property
    def hardware(self) -> Any:
        from trainer.hardware import probe

        return probe()

    def keep_queue_moving(self) -> None:
        """A daemon thread that notices dead workers and starts queued runs."""

        def loop() -> None:
            while True:
                try:
                    self.jobs.reap()
                    self.jobs.dispatch()
                except Exception:  # the queue must go on moving after a full disk or a locked file
                    logging.getLogger("tunesmith").exception("the job queue stumbled")
                time.sleep(QUEUE_SECONDS)

        threading.Thread(target=loop, daemon=True, name="job-queue").start()
