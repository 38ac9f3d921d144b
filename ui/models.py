"""The choice of who answers: the models that are there as a menu, a choice as settings. Used by the Ask tab."""

from __future__ import annotations

from dataclasses import replace

from assistant import llm
from assistant.llm import Settings
from kb.errors import UserError
from ui.home import Home
from ui.i18n import Translate
from ui.render_chat import model

AUTO, EXTRACT = "auto", "extract"
NAMED = {"ollama": "ollama_model", "openai": "openai_model"}  # backend: the setting that names its model


def choices(home: Home, chosen: str, t: Translate) -> list[tuple[str, str]]:
    """(label, value) pairs, a value being "auto", "extract" or "backend:name". The chosen one stays in the menu
    while its server is away: asking then says what is wrong, and nobody's choice is changed in silence."""
    try:
        found = llm.models(replace(home.settings(), backend=AUTO))
    except UserError:
        found = []  # a wrong setting is told when a question is asked
    menu = [(model(item), f"{item.backend}:{item.name}") for item in found]
    away = [pair for pair in at_once(chosen, t)[1:-1] if pair[1] not in [value for _, value in menu]]
    return [(t("ask.model_auto"), AUTO), *menu, *((t("ask.model_away", name=name), value) for name, value in away),
            (t("ask.model_extract"), EXTRACT)]  # fmt: skip


def at_once(chosen: str, t: Translate) -> list[tuple[str, str]]:
    """The menu before any server was asked: automatic, what was chosen last, quotes."""
    named = [(chosen.partition(":")[2], chosen)] if ":" in (chosen or "") else []
    return [(t("ask.model_auto"), AUTO), *named, (t("ask.model_extract"), EXTRACT)]


def settings(home: Home, chosen: str) -> Settings:
    """The settings under which the next question is answered. "auto" leaves them as they are."""
    configured = home.settings()
    backend, _, name = (chosen or AUTO).partition(":")
    if backend == AUTO or backend not in llm.BACKENDS:
        return configured
    named = {NAMED[backend]: name} if name and backend in NAMED else {}
    return replace(configured, backend=backend, **named)


def pulled(menu: list[tuple[str, str]], name: str) -> str:
    """The menu's value for a model just downloaded; Ollama writes qwen3 as qwen3:latest."""
    wanted = {f"ollama:{name.strip()}", f"ollama:{name.strip()}:latest"}
    return next((value for _, value in menu if value in wanted), AUTO)
