"""The README says what is there: every file in the tree, every command that it names, pictures that exist."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = re.search(r"```\n(kb/ .*?)```", README, re.S)[1]


def test_every_file_has_its_place_in_the_tree():
    room, named = "", {}
    for line in TREE.splitlines():
        if re.match(r"\w+/", line):
            room = line.split("/")[0]
        named.setdefault(room, []).extend(re.findall(r"[\w*]+\.(?:py|css)", line))
    for room in ("kb", "ingest", "trainer", "assistant", "ui"):
        for path in (ROOT / room).rglob("*.py"):
            whole_folder = path.parent.name in ("launch", "sources", "scripts")
            if path.name != "__init__.py" and not whole_folder:
                assert any(fnmatch(path.name, name) for name in named[room]), (
                    f"{path.relative_to(ROOT)} is not in the tree"
                )


def test_every_file_that_the_tree_names_is_there():
    present = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"[\w]+\.py", TREE):
        assert name in present, name


def test_every_command_named_is_there():
    commands = set(re.findall(r"^tunesmith (\w+)", README, re.M))
    assert len(commands) >= 6
    shown = subprocess.run(
        [sys.executable, "-m", "ui.cli", "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    for command in commands:
        assert re.search(rf"│ {command}\b", shown), command


def test_pictures_and_length():
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / name).is_file(), name
    assert len(README.splitlines()) < 250
