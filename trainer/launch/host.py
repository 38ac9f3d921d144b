"""Commands and files on another machine, by the system's own ssh and rsync, or on this one.

The user's ~/.ssh/config counts. Argument lists everywhere: what ssh hands to the shell there is quoted word by
word. BatchMode: nothing ever waits for a password; an unknown host key is refused and the way out told.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from trainer.config import UserError
from trainer.launch.places import Remote

CONNECT_SECONDS = 10
LOST = (255,)  # ssh's own exit status
RSYNC_LOST = (10, 12, 30, 35, 255)  # socket, protocol stream, timeouts (rsync(1), EXIT VALUES)


class Unreachable(Exception):
    """The machine did not answer; it may do so later."""


class Failed(Exception):
    """A command ended with another status than 0. `text` is what it said last."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"exit status {status}: {text}")
        self.status, self.text = status, text


@dataclass(frozen=True)
class Host:
    """A machine: one behind ssh, or this one where `remote` is None."""

    remote: Remote | None = None
    extra: list[str] = field(default_factory=list)  # options before all others, such as -F FILE

    @property
    def name(self) -> str:
        return self.remote.host if self.remote else "localhost"

    def ssh(self) -> list[str]:
        """The ssh command up to the host's name."""
        assert self.remote is not None
        options = {
            "BatchMode": "yes", "ConnectTimeout": str(CONNECT_SECONDS), "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4", "ControlMaster": "no", **self.remote.ssh_options,
        }  # fmt: skip
        command = ["ssh", *self.extra]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        command += ["-p", str(self.remote.port)] if self.remote.port else []
        command += ["-l", self.remote.user] if self.remote.user else []
        if self.remote.ssh_key:
            command += ["-i", str(Path(self.remote.ssh_key).expanduser()), "-o", "IdentitiesOnly=yes"]
        return command

    def run(self, argv: list[str], timeout: float = 60, text: str | None = None) -> str:
        """Run a command there; its standard output. Raises Unreachable, Failed."""
        command = [*self.ssh(), "--", self.remote.host, shlex.join(argv)] if self.remote else argv
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, check=False,
                **({"input": text} if text is not None else {"stdin": subprocess.DEVNULL}),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self.name} did not answer within {timeout:.0f} s") from None
        except FileNotFoundError:
            raise UserError(f"{command[0]}: not installed on this machine; install it") from None
        if self.remote and done.returncode in LOST:
            raise Unreachable(_last_line(done.stderr) or "ssh ended with status 255")
        if done.returncode:
            raise Failed(done.returncode, _last_line(done.stderr) or _last_line(done.stdout))
        return done.stdout

    def shell(self, script: str, *arguments: str, timeout: float = 60) -> str:
        """Run a fixed sh script there with arguments as $1, $2, …"""
        return self.run(["sh", "-c", script, "sh", *arguments], timeout)

    def at(self, path: Path | str) -> str:
        """A path there as rsync names it."""
        return f"{self.remote.host}:{path}" if self.remote else str(path)

    def rsync(self, *arguments: str, timeout: float = 24 * 3600) -> None:
        """Copy with rsync; paths there are written with `at`. Raises Unreachable, Failed."""
        if shutil.which("rsync") is None:
            raise UserError(
                "rsync: not installed on this machine; install it (apt install rsync, brew install rsync)"
            )
        command = ["rsync", "-a", "-s", "--timeout=60", "--partial"]
        command += ["-e", _quoted(self.ssh())] if self.remote else []
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
        )  # fmt: skip
        if self.remote and done.returncode in RSYNC_LOST:
            raise Unreachable(_last_line(done.stderr) or f"rsync ended with status {done.returncode}")
        if done.returncode and done.returncode != 24:  # 24: a file vanished while it was copied
            raise Failed(done.returncode, _last_line(done.stderr))


def _quoted(command: list[str]) -> str:
    """rsync's -e: it splits at blanks and knows quotes, but no backslashes."""
    return " ".join(f"'{word}'" if " " in word else word for word in command)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # rsync and pip close with a line of their own that says less than the one before it.
    said = [line for line in lines if not line.startswith(("rsync error:", "hint:"))] or lines
    return said[-1][:300] if said else ""
