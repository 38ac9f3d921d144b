"""A run on another machine, against a real sshd on this one: own keys, own port, own folder."""

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import yaml

from trainer import runs
from trainer.config import RunConfig, UserError
from trainer.jobs import Jobs
from trainer.launch import host as host_module
from trainer.launch import places
from trainer.launch.host import Failed, Host, Unreachable
from trainer.launch.places import Remote
from trainer.launch.ssh import Ssh, requirements

SSHD = "/usr/sbin/sshd"
NEEDED = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
NEEDED += [] if Path(SSHD).is_file() else ["sshd"]
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"not installed here: {', '.join(NEEDED)}")
SLOW = Path(__file__).parent / "slow_there.py"


class Machine:
    """An sshd that can be switched off and on."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        key = (folder / "host_key.pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {' '.join(key)}\n")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            f"PermitRootLogin prohibit-password\nMaxStartups 50\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, which its package makes at boot

    def on(self):
        log = (self.folder / "sshd.log").open("ab")
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        pytest.fail((self.folder / "sshd.log").read_text())

    def off(self):
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if "sshd" in child.name():  # open connections break; what was started over them lives
                child.kill()
        self.process.kill()
        self.process.wait()

    def remote(self, **changes):
        options = {"UserKnownHostsFile": str(self.folder / "known_hosts")}
        return {
            "host": "127.0.0.1", "port": self.port, "user": getpass.getuser(), "ssh_options": options,
            "ssh_key": str(self.folder / "user_key"), "path": str(self.folder / "there"),
            "environment": sys.executable, **changes,
        }  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = Machine(folder)
    machine.on()
    yield machine
    machine.off()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in part for part in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def new_run(home, config, remote):
    folder = runs.create(home / "tasks", config)
    definition = {"name": "reviews", "remote": remote}
    (home / "tasks" / "reviews" / "task_definition.yaml").write_text(yaml.safe_dump(definition))
    return folder


def until(condition, what, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.3)


def test_a_run_is_trained_there_found_again_after_both_ends_went_away_and_comes_back_whole(
    machine, tmp_path, config_of
):
    home = tmp_path / "home"
    run = new_run(home, config_of(max_steps=40, save_steps=20), machine.remote())
    jobs = Jobs(home)
    jobs.submit(run, where="ssh:127.0.0.1")
    until(lambda: run.status()["stage"] in ("data", "train"), run.status)

    os.kill(run.status()["pid"], signal.SIGKILL)  # the laptop is closed …
    machine.off()  # … and the connection is gone
    until(lambda: jobs.dispatch() or run.status()["code"] == "unreachable", run.status)
    assert run.status()["state"] == "running" and run.status()["attempt"] == 2

    machine.on()
    until(lambda: jobs.dispatch() or run.status()["state"] in runs.ENDED, run.status)
    status = run.status()
    assert (status["state"], status["step"]) == ("done", 40), (status, run.log_tail())
    assert {row["attempt"] for row in run.metrics()} == {1}  # the worker there was never disturbed
    assert len([row for row in run.metrics() if "loss" in row]) == 40
    assert [path.name for path in run.checkpoints()] == ["checkpoint-20", "checkpoint-40"]
    assert (run.path / "model" / "model.safetensors").is_file() and "tuned" in run.scores()
    assert run.config().base_model == config_of().base_model  # the frozen values stay this machine's
    assert "step 40/40" in run.log_tail()
    card = json.loads((run.path / "data" / "card.json").read_text())
    assert list(card["files"]) == ["runs/v1/inputs/train_file.csv"]


def slow_machine(machine):
    """A python there that runs the slow worker instead of the real one."""
    path = machine.folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SLOW}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return machine.remote(environment=str(path))


def test_cancel_reaches_the_worker_there_which_saves_and_a_resume_goes_on(machine, tmp_path, review_file):
    home = tmp_path / "home"
    values = {"task": "reviews", "base_model": "starter", "train_file": str(review_file), "device": "cpu"}
    run = new_run(home, RunConfig(**values, max_steps=5000, save_steps=1000), slow_machine(machine))
    jobs = Jobs(home)
    jobs.submit(run, where="ssh")
    until(lambda: run.status()["step"] > 0, run.status)
    assert jobs.cancel(run.id, wait=60) == "cancelled"
    saved = run.saved_step()
    assert 0 < saved < 1000 and run.status()["code"] == "cancelled"  # with a checkpoint, and it is here

    jobs.resume(run.id)
    until(lambda: run.status()["step"] > saved, run.status)
    trace = (machine.folder / "there").rglob("trace")
    assert f"begin reviews/v1 {saved}" in next(trace).read_text()
    pid = json.loads(next((machine.folder / "there").rglob("runs/v1/status.json")).read_text())["pid"]
    os.killpg(pid, signal.SIGKILL)  # the worker there dies without a word
    until(lambda: jobs.dispatch() or run.status()["state"] in runs.ENDED, run.status)
    assert run.status()["state"] == "lost" and str(run.saved_step()) in run.status()["message"]


def test_what_is_wrong_with_the_machine_is_told_before_anything_is_sent(machine):
    found = Ssh(Remote(**machine.remote())).check()
    assert found["python"].startswith("3.") and found["disk_gb"] > 0
    with pytest.raises(UserError, match="no NVIDIA GPU") if not found["gpus"] else contextlib.nullcontext():
        Ssh(Remote(**machine.remote())).check("cuda")
    with pytest.raises(UserError, match="does not run there"):
        Ssh(Remote(**machine.remote(environment="/no/python"))).check()
    (machine.folder / "known_hosts").write_text("")
    with pytest.raises(UserError, match="host key is not known"):
        Ssh(Remote(**machine.remote())).check()
    shutil.copy(machine.folder / "host_key", machine.folder / "other_key")
    with pytest.raises(UserError, match="cannot be reached"):
        Ssh(Remote(**machine.remote(port=1))).check()


def test_words_reach_the_other_side_as_they_are(machine, tmp_path):
    host = Host(Remote(**machine.remote()))
    odd = ["a b", "$HOME", "`id`", "'", '"', ";", "--x", "長"]
    assert host.run(["printf", "%s\\n", *odd]).splitlines() == odd
    with pytest.raises(Failed) as failed:
        host.run(["sh", "-c", "echo why >&2; exit 3"])
    assert (failed.value.status, failed.value.text) == (3, "why")
    with pytest.raises(Unreachable):
        host.run(["sleep", "5"], timeout=0.5)
    source, target = tmp_path / "a file", machine.folder / "it's there"
    source.write_text("x")
    host.rsync(str(source), host.at(target))
    assert target.read_text() == "x"


@pytest.mark.parametrize("bad", ["-oProxyCommand=id", "a b", "me@-x", "$(id)", ""])
def test_a_host_that_is_an_option_is_refused(bad):
    with pytest.raises(ValueError) if bad else pytest.raises(UserError):
        Remote(host=bad) if bad else places.remote_of("ssh", places.Places())
    with pytest.raises(UserError):
        places.kind_of(f"ssh:{bad}x;") if bad else places.kind_of("ssh x")


def test_host_keys_stay_checked(tmp_path):
    for options in ({"StrictHostKeyChecking": "no"}, {"userknownhostsfile": "/dev/null"}):
        with pytest.raises(ValueError, match="trust any machine"):
            Remote(host="box", ssh_options=options)
    command = Host(Remote(host="box")).ssh()
    assert "BatchMode=yes" in command and not any("HostKey" in word for word in command)


def test_an_environment_is_made_once_for_a_set_of_versions(tmp_path, monkeypatch):
    wheel = tmp_path / "little_worker-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("little_worker.py", "SAID = 'there'\n")
        about = "little_worker-1.0.dist-info/"
        file.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: little-worker\nVersion: 1.0\n")
        file.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(about + "RECORD", "")
    place = Ssh(Remote(host="this", python=sys.executable))
    place.host, place.root = Host(), tmp_path  # the same commands, without the way over ssh
    wanted = ["--no-index", str(wheel)]
    python = place.environment(wanted, "--system-site-packages")
    assert Host().run([python, "-c", "import little_worker; print(little_worker.SAID)"]).strip() == "there"
    before = Path(python).stat().st_mtime_ns, time.monotonic()
    assert place.environment(wanted, "--system-site-packages") == python
    assert Path(python).stat().st_mtime_ns == before[0] and time.monotonic() - before[1] < 5
    with pytest.raises(UserError, match="cannot be made"):
        place.environment(["--no-index", "no-such-package"], "--system-site-packages")
    assert all("==" in line for line in requirements())


def test_the_first_machine_of_a_task_is_kept_in_its_definition(tmp_path):
    task = tmp_path / "reviews"
    task.mkdir()
    (task / "task_definition.yaml").write_text("name: reviews\nlanguage: zh\n")
    places.remember(task, "ssh:me@box")
    places.remember(task, "ssh:other")
    assert yaml.safe_load((task / "task_definition.yaml").read_text()) == {
        "name": "reviews", "language": "zh", "remote": {"host": "me@box"},
    }  # fmt: skip
    assert places.remote_of("ssh", places.load(task)).host == "me@box"
    (task / "task_definition.yaml").write_text("remote: {hots: box}\n")
    with pytest.raises(UserError, match="hots"):
        places.load(task)
    assert host_module.CONNECT_SECONDS < 60
