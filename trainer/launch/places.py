"""Where a run is trained: `local`, `ssh:HOST`, `ray:ADDRESS` or `slurm`, with what task_definition.yaml says of it.

remote: {host: me@gpu-box, port: 22, ssh_key: ~/.ssh/id_ed25519, cuda_devices: "0,1", path: tunesmith}
ray: {storage: /shared/tunesmith}
slurm: {partition: gpu, time: "04:00:00", gpus: 2, storage: /shared/tunesmith, lines: ["--account=x"]}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trainer.atomic import write_atomic
from trainer.config import RunConfig, UserError, describe

KINDS = ("local", "ssh", "ray", "slurm")
HOST = re.compile(
    r"(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_\[][\w.:\]-]*"
)  # no leading "-": it would be an option


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Remote(_Section):
    """A machine behind ssh. What is empty is left to the user's own ~/.ssh/config."""

    host: str = ""
    user: str = ""
    port: int | None = Field(None, ge=1, le=65535)
    ssh_key: str = ""
    ssh_options: dict[str, str] = {}  # as in ssh_config(5); host keys stay checked whatever stands here
    cuda_devices: str = ""  # CUDA_VISIBLE_DEVICES there; empty: all
    path: str = "tunesmith"  # folder there, from the home folder if relative
    python: str = "python3"  # what makes the environment there
    environment: str = ""  # python of an environment that has the packages; then nothing is installed

    @field_validator("host", "user")
    @classmethod
    def _is_no_option(cls, value: str) -> str:
        if value and not HOST.fullmatch(value):
            raise ValueError(
                "give a host as in `ssh HOST`: letters, digits, '.', '-', '_', and user@ before it"
            )
        return value

    @field_validator("ssh_options")
    @classmethod
    def _keeps_host_keys(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name.lower() in ("stricthostkeychecking", "userknownhostsfile") and value[name].lower() in (
                "no", "off", "accept-new", "/dev/null",
            ):  # fmt: skip
                raise ValueError(f"{name} {value[name]} would trust any machine that answers; leave it away")
        return value

    @field_validator("ssh_key")
    @classmethod
    def _fits_on_a_line(cls, value: str) -> str:
        if "'" in value or '"' in value or "\n" in value:  # rsync splits its -e text at quotes
            raise ValueError("a path without quotes")
        return value

    @field_validator("cuda_devices", mode="before")
    @classmethod
    def _is_a_list_of_cards(cls, value: Any) -> str:
        text = ",".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)
        if not re.fullmatch(r"[\w,.-]*", text):
            raise ValueError("card numbers with commas, such as 0,1")
        return text


class Ray(_Section):
    """A Ray cluster. `storage` is a folder that this machine and every node see under the same path."""

    storage: str = ""
    python: str = ""  # on the nodes; empty: the one of the cluster
    failures: int = Field(3, ge=0, le=100)  # nodes or workers that may die before the run fails


class Slurm(_Section):
    """A SLURM cluster whose login node this is. `storage` must be seen by the compute nodes."""

    storage: str = ""
    partition: str = ""
    time: str = ""
    gpus: int = Field(0, ge=0)  # a node; 0: as many as the run has processes
    lines: list[str] = []  # further lines of the script's head, such as --account=x
    setup: list[str] = []  # shell lines before the work, such as module load cuda


class Places(_Section):
    """What a task's definition says of the places where it may run."""

    remote: Remote = Remote()
    ray: Ray = Ray()
    slurm: Slurm = Slurm()


def kind_of(where: str) -> Literal["local", "ssh", "ray", "slurm"]:
    """The kind of a place as people write it. Raises UserError that lists them."""
    kind, _, rest = where.partition(":")
    sound = {"local": not rest, "slurm": not rest, "ssh": not rest or HOST.fullmatch(rest), "ray": bool(rest)}
    if not sound.get(kind):
        raise UserError(f"--where {where[:80]}: give local, ssh:HOST, ray:ADDRESS or slurm")
    return kind  # type: ignore[return-value]


def load(task: Path) -> Places:
    """The places of tasks/<task>/task_definition.yaml. Raises UserError that names the file and the key."""
    path = task / "task_definition.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return Places()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected `key: value` lines")
    try:
        found = {name: values[name] for name in Places.model_fields if values.get(name) is not None}
        return Places.model_validate(found)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from None


def remote_of(where: str, places: Places) -> Remote:
    """The machine of `ssh:HOST`; "ssh" alone, or the definition's own host, takes what stands there."""
    host, remote = where.partition(":")[2], places.remote
    if not host and not remote.host:
        raise UserError(
            "--where ssh: no machine is known for this task; give --where ssh:HOST, or remote: {host: …} in task_definition.yaml"
        )
    same = not host or host in (remote.host, f"{remote.user}@{remote.host}")
    return remote if same else Remote(host=host)


def remember(task: Path, where: str) -> None:
    """Keep the first machine that a task runs on in its task_definition.yaml, so that `--where ssh` is enough."""
    path, host = task / "task_definition.yaml", where.partition(":")[2]
    if not host or not where.startswith("ssh:") or load(task).remote.host:
        return
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {"name": task.name}
    values["remote"] = {**(values.get("remote") or {}), "host": host}
    write_atomic(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def check(where: str, config: RunConfig, task: Path) -> None:
    """Raise UserError for a place that cannot do this run, before anything is sent anywhere."""
    kind, places = kind_of(where), load(task)
    if kind == "ssh":
        remote_of(where, places)
    if config.machines > 1 and kind in ("local", "ssh"):
        raise UserError(
            f"machines = {config.machines}: {where} is one machine; set machines to 1, or give ray:ADDRESS or slurm"
        )
    if kind == "ray" and config.parallel != "ddp":
        raise UserError(f"parallel = {config.parallel!r}: on Ray only ddp is built; set parallel to ddp")
