"""Settings from the environment: as typed as the file's, and a wrong one told in a line."""

import pytest

from kb.errors import UserError
from ui.home import Home


def test_variables_become_typed_settings(tmp_path, monkeypatch):
    for name, value in {
        "TUNESMITH_NUM_CTX": "16384",
        "TUNESMITH_THINK": "low",
        "TUNESMITH_KEEP_ALIVE": "-1",
        "TUNESMITH_RERANKER": "some/model",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Home(tmp_path).settings()
    assert (settings.num_ctx, settings.think, settings.keep_alive) == (16384, "low", "-1")
    assert settings.reranker == "some/model"


def test_the_file_may_hold_them_too(tmp_path):
    (tmp_path / "settings.yaml").write_text("num_ctx: 4096\nthink: true\nkeep_alive: 10m\n", encoding="utf-8")
    settings = Home(tmp_path).settings()
    assert (settings.num_ctx, settings.think, settings.keep_alive) == (4096, True, "10m")


@pytest.mark.parametrize(
    ("name", "value"),
    [("TUNESMITH_NUM_CTX", "many"), ("TUNESMITH_NUM_CTX", "12"), ("TUNESMITH_THINK", "hard")],
)
def test_a_value_that_cannot_be_is_one_line(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name):
        Home(tmp_path).settings()
