"""A run on one machine behind ssh: its checks, its environment, its worker."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.hardware import QUERY, parse_nvidia_smi
from trainer.launch.host import Failed, Host, Unreachable
from trainer.launch.keeper import home_mark
from trainer.launch.places import Remote
from trainer.runs import RunFolder

LEAST_DISK_GB = 10.0
INSTALL_SECONDS = 3600.0
ROOMS = ("kb", "trainer")  # the worker imports no others
# What a worker imports; installed there in the versions that are installed here.
PACKAGES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "safetensors",
    "pydantic", "PyYAML", "psutil", "scikit-learn", "scipy", "ftfy", "opencc", "jinja2", "jsonschema", "pyarrow",
    "openpyxl", "pypdfium2",
)  # fmt: skip
_PROBE = """
import json, os, shutil, sys
folder = os.path.abspath(sys.argv[1])
os.makedirs(folder, exist_ok=True)
print(json.dumps([list(sys.version_info[:2]), shutil.disk_usage(folder).free / 2**30, folder]))
"""


class Ssh:
    """The place `ssh:HOST`."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.host = remote, Host(remote)
        self.root, self.python, self.source = Path(), "", Path()

    def prepare(self, folder: RunFolder) -> Path:
        """Check the machine and install what it lacks. Raises UserError."""
        self.check(folder.config().device, folder.config().processes)
        self.install()
        return self.root / home_mark(folder)

    def check(self, device: str = "auto", processes: int = 1) -> dict[str, Any]:
        """{"python", "disk_gb", "gpus", "folder"} of the machine. Raises UserError with the way out."""
        import json

        name, python = self.host.name, self.remote.environment or self.remote.python
        try:
            said = self.host.run([python, "-c", _PROBE, self.remote.path.removeprefix("~/")])
            found, disk, root = json.loads(said.splitlines()[-1])
        except Unreachable as error:
            raise _refused(str(error), name) from None
        except Failed as error:
            raise UserError(
                f"{name}: {python} does not run there ({error.text[:120]}); set remote: {{python: …}} in task_definition.yaml"
            ) from None
        if tuple(found) < (3, 11):
            raise UserError(
                f"{name}: {python} is Python {found[0]}.{found[1]}, 3.11 or newer is needed; set remote: {{python: …}}"
            )
        if disk < LEAST_DISK_GB:
            raise UserError(
                f"{name}: {disk:.1f} GiB are free in {root}, {LEAST_DISK_GB:.0f} are needed; clear some"
            )
        self.root = Path(root)
        gpus = self.gpus()
        if device == "cuda" and not gpus:
            raise UserError(
                f"device = 'cuda': {name} shows no NVIDIA GPU (nvidia-smi); set device to auto or cpu"
            )
        cards = len([card for card in self.remote.cuda_devices.split(",") if card]) or len(gpus)
        if gpus and processes > cards:
            raise UserError(
                f"processes = {processes}: {name} has {cards} GPUs for this run; set processes to {cards}"
            )
        return {"python": f"{found[0]}.{found[1]}", "disk_gb": round(disk, 1), "gpus": gpus, "folder": root}

    def gpus(self) -> list[Any]:
        """The machine's GPUs by its nvidia-smi; none where that is missing."""
        try:
            return parse_nvidia_smi(
                self.host.run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"])
            )
        except Failed:
            return []

    def install(self) -> None:
        """Send the worker's source, and make its environment: once for each set of versions."""
        self.source = send_source(self.host, self.root)
        self.python = self.remote.environment or self.environment(requirements())

    def environment(self, wanted: list[str], option: str = "--clear") -> str:
        """The python of a virtual environment there with `wanted` installed; made if it is not there whole."""
        mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
        folder = self.root / f"env-{mark}"
        script = """
set -e
[ -f "$1/.ready" ] && exit 0
folder=$1; python=$2; option=$3; shift 3
rm -rf -- "$folder"
"$python" -m venv "$option" "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
touch "$folder/.ready"
"""
        try:
            self.host.shell(script, str(folder), self.remote.python, option, *wanted, timeout=INSTALL_SECONDS)
        except Failed as error:
            raise UserError(
                f"{self.host.name}: the environment cannot be made ({error.text[:200]}); mend that, or set remote: "
                f"{{environment: PYTHON}} to one that has torch, transformers, trl and peft"
            ) from None
        return str(folder / "bin" / "python")

    def start(self, there: Path, attempt: int) -> str:
        """Start the worker in a session of its own, which outlives the connection. Its pid."""
        settings = [f"PYTHONPATH={self.source}", "HF_HUB_DISABLE_TELEMETRY=1"]
        if self.remote.cuda_devices:
            settings.append(f"CUDA_VISIBLE_DEVICES={self.remote.cuda_devices}")
        worker = [self.python, "-P", "-u", "-X", "faulthandler", "-m", "trainer.worker"]
        worker += [str(there), "--alone", "--attempt", str(attempt)]
        script = 'cd "$1" && log="$2" && shift 2 && { setsid "$@" >>"$log" 2>&1 </dev/null & } && echo $!'
        said = self.host.shell(
            script, str(there.parents[1]), str(there / "log.txt"), "env", *settings, *worker
        )
        return f"{said.strip()} {there}"

    def lives(self, handle: str, status: dict[str, Any]) -> bool:
        """Whether the worker's process is there."""
        pid, there = handle.split(" ", 1)
        # Its command line names the run: a pid alone may be another process's by now.
        script = '[ -d "/proc/$1" ] && tr "\\0" " " <"/proc/$1/cmdline" | grep -qF -- "$2"'
        try:
            self.host.shell(script, str(status["pid"] or pid), there)
        except Failed:
            return False
        return True

    def kill(self, handle: str, status: dict[str, Any]) -> None:
        if self.lives(handle, status):
            pid = str(status["pid"] or handle.split(" ", 1)[0])
            self.host.shell('kill -KILL -- "-$1" || true', pid)

    def log(self, handle: str) -> str:
        return self.host.run(["tail", "-n", "5", str(Path(handle.split(" ", 1)[1]) / "log.txt")])


def send_source(host: Host, root: Path) -> Path:
    """Send what the worker imports to a folder of its own for each version of it, so that runs at work keep theirs."""
    here = Path(__file__).resolve().parents[2]
    mark = _digest(sorted(path for room in ROOMS for path in (here / room).rglob("*.py")), here)
    source = root / f"source-{mark}"
    host.run(["mkdir", "-p", "--", str(source)])
    host.rsync(
        "--exclude=__pycache__", "--exclude=/kb/pages", "--exclude=/kb/vectors", "--exclude=/kb/asked",
        *(str(here / room) for room in ROOMS), host.at(f"{source}/"),
    )  # fmt: skip
    return source


def requirements() -> list[str]:
    """PACKAGES pinned to the versions here; a local build ("+cpu") is installed there as its plain version."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            found.append(name)
    return found


def _digest(paths: list[Path], base: Path) -> str:
    found = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in paths:
        found.update(str(path.relative_to(base)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def _refused(error: str, name: str) -> UserError:
    """What ssh said, with the way out."""
    text, said = error.lower(), error[:160]
    if "host key verification failed" in text or "remote host identification has changed" in text:
        return UserError(
            f"ssh {name}: its host key is not known, or has changed: connect once by hand (ssh {name}), compare the key, "
            "and try again"
        )
    if "permission denied" in text:
        return UserError(
            f"ssh {name}: the key is not accepted ({said}); set remote: {{ssh_key: …}}, or load it with ssh-add: no "
            "password is asked for here"
        )
    return UserError(f"ssh {name}: cannot be reached ({said}); try `ssh {name}` by hand")
