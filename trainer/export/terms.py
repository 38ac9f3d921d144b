"""What licences ask of a trained model that is handed on: the base's (kb/facts/licences.yaml) and the rows' own.

`of_run(folder, config)` finds them, `check` refuses in one line a name or a publication that will not do, `section` is
the model card's chapter. Pure but for reading licence files beside the base and the rows. No legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kb.facts import Licence, table
from trainer import base
from trainer.config import STARTER, RunConfig, UserError
from trainer.data.licence import RESTRICTED, licence_of
from trainer.runs import RunFolder

NO_DERIVATIVES = re.compile(r"\bnd\b|no-?deriv|no redistribution|ldc", re.IGNORECASE)


@dataclass(frozen=True)
class Terms:
    """Licences of a run: `said` is the base's as written (or the person's own word), "" where nobody says it.

    rows: what is known of it, the stricter last. data: the training rows' licence, "" where unknown. files: licence
    and notice files found beside the base's weights. base: the base model as the card names it.
    """

    base: str
    said: str
    rows: list[Licence] = field(default_factory=list)
    data: str = ""
    files: list[Path] = field(default_factory=list)

    @property
    def scratch(self) -> bool:
        """Whether the base is the starter model, made from the person's own rows: no other licence holds."""
        return self.base == STARTER


def of_run(folder: RunFolder, config: RunConfig, stated: str = "") -> Terms:
    """The terms of a run. `stated` is what the person says the base's licence is; it counts where nothing else says it."""
    rows_file = Path(config.train_file).expanduser()
    data = licence_of(rows_file, [])[0] if rows_file.is_file() else ""
    if config.base_model == STARTER:
        return Terms(STARTER, stated, known(stated), data)
    place = _place(folder, config)
    said = _listed(config.base_model) or (licence_of(place / "config.json", [])[0] if place else "") or stated
    files = sorted({file for pattern in base.LICENCE_FILES for file in place.glob(pattern)}) if place else []
    return Terms(_public_name(config.base_model), said, known(said), data, files)


def known(said: str) -> list[Licence]:
    """The table's rows that a licence text names ("MIT, on Llama 3.1 …" names two), the one that asks most last."""
    text = _plain(said)
    found: dict[str, Licence] = {}  # by the name that was read
    for row in table("licences"):
        names = [row.id, row.name, *row.also, *([row.hub] if row.hub != "other" else [])]
        for name in sorted(map(_plain, names), key=len, reverse=True):
            if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\d)", text):
                found[name] = row
                break
    rows = [row for name, row in found.items() if not any(name != other and name in other for other in found)]
    return sorted(rows, key=lambda row: (bool(row.name_begins), row.passes_on, not row.commercial))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[-_]", " ", text.lower()).split())


def check(terms: Terms, repo: str, public: bool, what: str) -> None:
    """Raise UserError where a licence forbids the push, or its name; nothing where none does."""
    owner, _, name = repo.rpartition("/")
    if what == "dataset":
        if NO_DERIVATIVES.search(_plain(terms.data)):
            raise UserError(
                f"{repo}: the rows' licence ({terms.data}) forbids handing on changed copies; push the model without them"
            )
        if public and not terms.data:
            raise UserError(
                f"{repo}: nothing says under which licence the rows are, so they may not be published; write it in the README.md beside them, or leave --public away"
            )
        return
    for row in terms.rows:
        begins = (row.name_begins or "").replace(" ", "-")
        if not name.lower().startswith(begins.lower()):
            raise UserError(
                f"{repo}: the {row.name} asks for a name that begins with {row.name_begins}; push to {owner}/{begins}-{name}"
            )
    if public and not terms.said and not terms.scratch:
        raise UserError(
            f"{repo}: the licence of {terms.base} is not known here, so it may not be published; say it with --licence, or leave --public away"
        )


def front(terms: Terms) -> dict[str, Any]:
    """The card's front matter about the licence, in the Hub's words."""
    if not terms.said:
        return {}
    if not terms.rows:
        return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", terms.said.lower()).strip("-")[:80]}  # fmt: skip
    row = terms.rows[-1]
    if row.hub != "other":
        return {"license": row.hub}
    return {"license": "other", "license_name": row.id, "license_link": row.url}


def notice(terms: Terms) -> str:
    """The text of the NOTICE file; "" where no licence asks for one, or the base's own is there."""
    if any(file.name.upper().startswith("NOTICE") for file in terms.files):
        return ""
    lines = [row.notice for row in terms.rows if row.notice]
    return "\n".join(lines) + "\n" if lines else ""


def shown(terms: Terms) -> str:
    """The line that must be seen on the card, such as "Built with Llama"; "" for none."""
    return "; ".join(row.shows for row in terms.rows if row.shows)


def section(terms: Terms) -> str:
    """The chapter "Licence" of a model card."""
    if terms.scratch:
        text = terms.said or "Not stated."
        lines = [f"The base was made from scratch, so no other model's licence holds. Licence: {text}"]
    elif terms.rows:
        link = ", ".join(f"[{row.name}]({row.url})" for row in terms.rows)
        lines = [f"Made from {terms.base}, whose licence goes on applying to this model: {link}."]
    else:
        known_as = f"written as {terms.said!r}" if terms.said else "not known to whoever made this card"
        lines = [f"Made from {terms.base}, whose licence goes on applying to this model; it is {known_as}."]
    lines += [f"{row.notice}" for row in terms.rows if row.notice]
    if any(row.passes_on for row in terms.rows):
        lines.append("Its restrictions of use bind you as well, and whoever gets the model from you.")
    if any(not row.commercial for row in terms.rows):
        lines.append("It allows research and evaluation, no commercial use.")
    if terms.data:
        limits = " It restricts what may be done with the rows; whether that holds for the model is not settled." if RESTRICTED.search(_plain(terms.data)) else ""  # fmt: skip
        lines.append(f"Licence of the training rows: {terms.data}.{limits}")
    else:
        lines.append("Licence of the training rows: not stated.")
    return "\n\n".join(lines)


def _listed(base_model: str) -> str:
    """The licence that kb/facts/models.yaml has for a Hub id, or for a folder that is called like one."""
    own = base_model.rstrip("/").rpartition("/")[2].lower()
    whole = base_model.count("/") == 1 and not base_model.startswith((".", "~", "/"))
    for model in table("models"):
        if base_model.lower() == model.hub_id.lower() or (not whole and own == model.hub_id.rpartition("/")[2].lower()):  # fmt: skip
            return model.licence
    return ""


def _place(folder: RunFolder, config: RunConfig) -> Path | None:
    """The base's folder, where it is on this machine; nothing is fetched."""
    for name in (config.base_model, (folder.lineage().get("base_model") or {}).get("path", "")):
        if name and (path := Path(name).expanduser()).is_dir():
            return path
    return None


def _public_name(base_model: str) -> str:
    """A base as a card may name it: a Hub id, or the last part of a path of this machine."""
    local = base_model.startswith(("/", ".", "~")) or Path(base_model).expanduser().is_dir()
    return Path(base_model).name if local else base_model
