"""Vectors on a Chroma server or in Chroma Cloud, by setting, where one machine's files are not enough.

Chunk ids (which hold file paths) and vectors go there; texts stay here. A Chroma server has no passwords of
its own and has had holes that need none: let it listen on loopback, or behind a proxy with TLS and a token.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ingest.vectors import HNSW, Parts, write
from kb.errors import UserError

CLOUD = "cloud"
MOST = 300  # records in one call and neighbours of one search: what Chroma Cloud allows


@dataclass(frozen=True)
class Server:
    """Where: an http(s) URL, or "cloud" with tenant, database and key. Raises UserError where that is incomplete."""

    url: str
    token: str = field(default="", repr=False)  # with a URL: sent as "Authorization: Bearer"
    tenant: str = ""  # this and the next two: with "cloud"
    database: str = ""
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.url == CLOUD:
            missing = [name for name in ("tenant", "database", "api_key") if not getattr(self, name)]
            if missing:
                raise UserError(f"Chroma Cloud: {', '.join(missing)} not set; copy them from its console")
            return
        parts = urlsplit(self.url)
        try:
            good = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/")
            good = good and parts.port != 0
        except ValueError:  # a port that is no number
            good = False
        if not good:
            raise UserError(
                f'Chroma server {self.url!r}: not an address; give http://127.0.0.1:8000 or "{CLOUD}"'
            )

    @property
    def place(self) -> str:
        """Names the store, without secrets."""
        return " ".join(filter(None, [self.url.rstrip("/"), self.tenant, self.database]))

    @property
    def warning(self) -> str:
        """One line where what is sent can be read, and the server be used, by others on the way; else ""."""
        parts = urlsplit(self.url)
        if self.url == CLOUD or parts.scheme == "https" or _is_loopback(parts.hostname or ""):
            return ""
        return (
            f"Chroma at {self.url} is reached over the network without encryption. Its server has had holes"
            " that need no password: keep it on loopback (an SSH tunnel will do) or behind HTTPS with a token."
        )

    def client(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        quiet = Settings(anonymized_telemetry=False)
        if self.url == CLOUD:
            return chromadb.CloudClient(self.tenant, self.database, self.api_key, quiet)
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        return chromadb.HttpClient(
            parts.hostname,
            parts.port or (443 if secure else 8000),
            ssl=secure,
            headers={"Authorization": f"Bearer {self.token}"} if self.token else None,
            settings=quiet,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServerVectors:
    """One collection on a server; see ingest.vectors.VectorStore. The server answers for crashes of its own."""

    widest = MOST
    torn = False

    def __init__(self, server: Server, name: str):
        self.place, self._server, self._name = server.place, server, name
        self._client: Any = None
        self._known: Any = None  # the collection: to ask for it costs a round trip

    def replace(self, gone: list[str], ids: list[str], vectors: np.ndarray) -> None:
        with self._reached():
            write(self._collection(create=True), gone, ids, vectors, MOST)

    def refill(self, parts: Parts) -> None:
        with self._reached():
            self._collection(create=True)
            self._client.delete_collection(self._name)
            self._known = None
            self._collection(create=True)
            for ids, vectors in parts:
                write(self._known, [], ids, vectors, MOST)

    def finish(self) -> None:
        pass

    def count(self) -> int:
        with self._reached():
            return self._collection(create=True).count()

    def search(self, generation: int, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        with self._reached():
            found = self._collection().query(
                query_embeddings=vector[None], n_results=limit, include=["distances"]
            )
        return [(i, 1 - distance) for i, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._known = None

    def _collection(self, create: bool = False) -> Any:
        if self._client is None:
            try:
                self._client = self._server.client()
            except ValueError as error:  # what chromadb raises when nothing answers there
                raise self._trouble(error) from error
        if self._known is None and create:
            self._known = self._client.get_or_create_collection(
                self._name, embedding_function=None, configuration={"hnsw": HNSW}
            )
        elif self._known is None:
            self._known = self._client.get_collection(self._name, embedding_function=None)
        return self._known

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import httpx
        from chromadb.errors import ChromaError

        try:
            yield
        except (ChromaError, httpx.HTTPError) as error:
            self.close()
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> UserError:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return UserError(
            f"Chroma at {self.place}: {why}; start it and run `tunesmith library sync`,"
            " or unset TUNESMITH_CHROMA_URL to keep vectors on this machine"
        )
