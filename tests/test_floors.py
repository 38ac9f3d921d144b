"""The house stands: imports go down, heavy libraries wait, files stay small enough to live in."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOOR = {"kb": 0, "ingest": 1, "trainer": 1, "assistant": 2, "ui": 3}
FILES = [path for room in FLOOR for path in sorted((ROOT / room).rglob("*.py"))]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        rooms |= {name.split(".")[0] for name in names} & set(FLOOR)
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    room = path.relative_to(ROOT).parts[0]
    upward = {other for other in imported_rooms(path) if other != room and FLOOR[other] >= FLOOR[room]}
    assert not upward, f"{path.name} in {room} imports {upward}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_holds_one_idea(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path} has {lines} lines; split the idea"


def test_a_function_can_be_read_at_once():
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno - node.lineno >= 60
            ):
                long.append(
                    f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {node.end_lineno - node.lineno + 1}"
                )
    assert not long, long


def test_no_shell_no_remote_code_no_unsafe_yaml():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for banned in ("shell=True", "trust_remote_code=True", "yaml.load(", "pickle.load", "os.system("):
            if banned == "yaml.load(" and "SafeLoader" in text:
                continue
            assert banned not in text, f"{path}: {banned}"


def loaded_modules(tmp_path, code: str) -> set[str]:
    environment = {**os.environ, "TUNESMITH_HOME": str(tmp_path), "TUNESMITH_BACKEND": "extract"}
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print('\\nMODULES', *sys.modules)"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\nMODULES ")[-1].split())


CALL = """
import sys
from ui import cli
sys.argv = ["tunesmith", *{arguments!r}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "sentence_transformers"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["search", "LoRA learning rate", "--json"],
        ["ask", "LoRA 的學習率該設多少？", "--json"],
        ["recommend", "--task", "classification", "--rows", "9000", "--json"],
        ["data", "check", "DATA", "--json"],
        ["data", "import", "DATA", "--look"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_torch_before_it_is_needed(built_home, tmp_path, arguments):
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"row number {n},{n % 2}\n" for n in range(20)))
    arguments = [str(data) if argument == "DATA" else argument for argument in arguments]
    assert not loaded_modules(built_home, CALL.format(arguments=arguments)) & HEAVY


def test_the_first_page_loads_no_torch(built_home):
    code = "from ui.page import build\nfrom ui.home import home\nbuild(home())"
    assert not loaded_modules(built_home, code) & HEAVY
