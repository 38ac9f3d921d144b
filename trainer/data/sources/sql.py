"""Rows of a SQL query, by SQLAlchemy: read-only, streamed. Source name: `sql:SELECT …` or `sql:FILE.sql`.

The database's URL, which holds the password, comes from an environment variable and is neither stored nor shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trainer.config import UserError
from trainer.data.documents import plain
from trainer.data.sources.incoming import Environ, Incoming, Item, Options, Part, note

CHUNK = 1000  # rows that are fetched at a time
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
READING = re.compile(r"(select|with|values|table)\b", re.IGNORECASE)
DRIVERS = {
    "postgresql": "psycopg[binary]", "mysql": "pymysql", "mariadb": "pymysql", "mssql": "pyodbc", "oracle": "oracledb",
    "duckdb": "duckdb-engine",
}  # fmt: skip


class SqlOptions(Options):
    """url_env: variable that holds the database's URL. params: values of the query's :names."""

    url_env: str = "TUNESMITH_SQL_URL"
    params: dict[str, str | int | float | None] = Field(default_factory=dict)


def open_sql(target: str, options: SqlOptions, environ: Environ) -> Incoming:
    """Open a query without running it. Raises UserError where it does not only read, or no URL is set."""
    query = _query(target)
    url = environ.get(options.url_env, "").strip()
    if not url:
        raise UserError(
            f"sql: no database: set {options.url_env} to its URL, as postgresql+psycopg://user:password@host/name "
            f"or sqlite:////folder/file.db (another variable: --set url_env=NAME)"
        )
    name = target.strip()
    incoming = Incoming(f"sql:{Path(name).expanduser().resolve() if _is_file(name) else name}", [])
    if not re.search(r"\border\s+by\b", query, re.IGNORECASE):
        incoming.notes.append(note("order"))
    incoming.parts = [Part("query", lambda: _rows(query, url, options))]
    return incoming


def _is_file(text: str) -> bool:
    return text.lower().endswith(".sql") and "\n" not in text


def _query(target: str) -> str:
    text = target.strip()
    if _is_file(text):
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"sql:{target}: cannot be read: {error}; give a query or a .sql file") from None
    bare = COMMENT.sub(" ", text).strip().rstrip(";").strip()
    if not READING.match(bare):
        raise UserError(f"sql: {bare[:60]!r} does not read; give one SELECT, or a .sql file that holds one")
    return text.strip().rstrip(";")


def _rows(query: str, url: str, options: SqlOptions) -> Iterator[Item]:
    import sqlalchemy

    engine = None
    try:
        engine = sqlalchemy.create_engine(_read_only(url), hide_parameters=True)
        with engine.connect() as connection:
            _forbid_writing(connection)
            found = connection.execution_options(stream_results=True, yield_per=CHUNK).execute(
                sqlalchemy.text(query), options.params
            )
            if not found.returns_rows:
                raise UserError("sql: the statement gives no rows; give one SELECT")
            names = list(found.keys())
            if len(set(names)) < len(names):
                raise UserError(
                    f"sql: two columns have one name ({', '.join(names)}); rename one: SELECT a AS b"
                )
            for number, row in enumerate(found, start=1):
                yield f"row {number}", {name: plain(value) for name, value in zip(names, row, strict=True)}
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise UserError(f"sql: {_without_secret(error, url)}; see the URL in {options.url_env}") from None
    except ModuleNotFoundError as error:
        package = DRIVERS.get(url.partition(":")[0].partition("+")[0], error.name)
        raise UserError(f"sql: the driver {error.name} is missing; pip install '{package}'") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise UserError(f"sql: {_without_secret(cause, url)}; see the query and {options.url_env}") from None
    finally:
        if engine is not None:
            engine.dispose()


def _read_only(url: str) -> Any:
    """The URL, for SQLite with the file opened so that it is neither changed nor made."""
    import sqlalchemy

    made = sqlalchemy.make_url(url)
    if made.get_backend_name() != "sqlite" or not made.database or made.database == ":memory:":
        return made
    if made.database.startswith("file:"):
        return made.update_query_dict({"mode": "ro", "uri": "true"})
    path = Path(made.database).expanduser()
    if not path.is_file():
        raise UserError(f"sql: {path}: no such SQLite file")
    return made.set(database=path.resolve().as_uri()).update_query_dict({"mode": "ro", "uri": "true"})


def _forbid_writing(connection: Any) -> None:
    """What the database itself offers against writing; what was begun is never committed."""
    import sqlalchemy

    said = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET TRANSACTION READ ONLY",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
        "mariadb": "SET SESSION TRANSACTION READ ONLY",
    }.get(connection.dialect.name)
    if said:
        connection.execute(sqlalchemy.text(said))


def _without_secret(error: Exception, url: str) -> str:
    """The first line of an error without the URL or its password."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].replace(url, "the URL")
    password = re.search(r"://[^:/@]*:([^@]+)@", url)
    return text.replace(password.group(1), "***") if password else text
