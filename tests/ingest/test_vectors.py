"""Vectors follow the manifest: found as they were put in, through filters too, and made good after a kill."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from ingest import index as index_module
from ingest import vectors
from ingest.index import Index
from ingest.server import Server
from ingest.sync import add_paths, remove, sync_places
from kb.errors import UserError


class Counting:
    """The embedder, and how many texts it was given."""

    def __init__(self, real):
        self._real, self.texts = real, 0
        self.name, self.dim, self.unknown_share = real.name, real.dim, real.unknown_share

    def embed(self, texts):
        self.texts += len(texts)
        return self._real.embed(texts)


class Killed(BaseException):
    pass


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts"
    (folder / "old").mkdir(parents=True)
    (folder / "zebra.md").write_text("# Zebra\n\nThe zebra enclosure opens at nine in the morning.")
    (folder / "menu.txt").write_text("The cafeteria serves dumplings on Wednesday.")
    (folder / "old" / "parcel.txt").write_text("Your parcel left the depot on Friday.")
    (folder / "old" / "garden.txt").write_text("The badger sleeps in the garden.")
    for name in ("parcel.txt", "garden.txt"):
        os.utime(folder / "old" / name, (1_500_000_000, 1_500_000_000))  # July 2017
    return folder


def names(index: Index, found: list[tuple[str, float]]) -> list[str]:
    return [Path(chunk.page).name for chunk in index.get([i for i, _ in found])]


def test_the_reading_engine_and_the_client_find_the_same(built_home, embedder):
    vector = embedder.embed(["which rank for LoRA"])[0]
    with closing(Index.open(built_home / "index", embedder)) as index, index._vectors.client() as client:
        collection = client.get_collection("chunks", embedding_function=None)
        reply = collection.query(query_embeddings=vector[None], n_results=20, include=["distances"])
        ours = index.dense(vector, 20)
        assert [i for i, _ in ours] == reply["ids"][0]
        assert [1 - score for _, score in ours] == pytest.approx(reply["distances"][0])


def test_the_nearest_vectors_are_the_nearest(built_home, embedder):
    vector = embedder.embed(["which rank for LoRA"])[0]
    with closing(Index.open(built_home / "index", embedder)) as index:
        (_, stored), *more = index.manifest.all_vectors(100_000)
        assert not more and len(stored) > 500
        exact = sorted(stored @ vector, reverse=True)[:10]
        assert [score for _, score in index.dense(vector, 10)] == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("compared", [5000, 0], ids=["few pass", "many pass"])
def test_filters_by_file_folder_and_day_hold_for_words_and_vectors(
    texts, tmp_path, embedder, monkeypatch, compared
):
    monkeypatch.setattr(index_module, "COMPARED", compared)
    add_paths(tmp_path / "index", [texts], embedder=embedder)
    vector = embedder.embed(["zebra, parcel and badger"])[0]
    everything = {"zebra.md", "menu.txt", "parcel.txt", "garden.txt"}
    with closing(Index.open(tmp_path / "index", embedder)) as index:
        for source, since, pages in [
            (None, None, everything),
            (str(texts), None, everything),
            (str(texts / "old"), None, {"parcel.txt", "garden.txt"}),
            (str(texts / "zebra.md"), None, {"zebra.md"}),
            (str(texts)[:-1], None, set()),
            ("kb", None, set()),
            (None, date(2017, 7, 10), everything),
            (None, date(2020, 1, 1), {"zebra.md", "menu.txt"}),
            (str(texts / "old"), date(2020, 1, 1), set()),
        ]:
            view = index.within(source, since)
            words = view.lexical(dict.fromkeys(("zebra", "dumpl", "parcel", "badger"), 1.0))
            assert set(names(index, words)) == set(names(index, view.dense(vector))) == pages
            assert len(view.dense(vector, 1)) == min(1, len(pages))


def test_only_new_passages_are_embedded(texts, tmp_path, embedder):
    counting = Counting(embedder)
    add_paths(tmp_path / "index", [texts], embedder=counting)
    assert counting.texts == 4
    with (texts / "zebra.md").open("a") as file:
        file.write("\n\n## Feeding\n\nThe zebra is fed with hay at noon.")
    assert add_paths(tmp_path / "index", [texts], embedder=counting).changed == 1
    assert counting.texts == 5


def test_a_reader_need_not_insert_what_was_added(built_home):
    assert vectors.Vectors(built_home / "index" / "vectors")._unwritten() <= vectors.REPLAYED


@pytest.mark.parametrize("threshold", [2, 5000], ids=["adding", "finishing"])
def test_files_torn_by_a_kill_while_chroma_rewrites_them_are_made_good(
    texts, tmp_path, embedder, monkeypatch, threshold
):
    folder, counting = tmp_path / "index", Counting(embedder)
    monkeypatch.setattr(vectors, "SYNC_THRESHOLD", threshold)
    monkeypatch.setattr(vectors, "REPLAYED", 0)
    add_paths(folder, [texts], embedder=counting)
    vector = embedder.embed(["When are dumplings served?"])[0]
    (texts / "more.txt").write_text("A marten crosses the road.")

    rewriting = vectors.Vectors._rewriting

    @contextmanager
    def killed(self):
        with rewriting(self):
            yield
            for file in (folder / "vectors").rglob("index_metadata.pickle"):
                file.write_bytes(file.read_bytes()[:40])
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(vectors.Vectors, "_rewriting", killed)
        with pytest.raises(Killed):
            add_paths(folder, [texts], embedder=counting)
    before = counting.texts
    with closing(Index(folder, counting)) as reader:  # nobody has mended it yet: words alone answer
        assert reader.dense(vector) == [] and names(reader, reader.lexical({"dumpl": 1.0})) == ["menu.txt"]
    with closing(Index.open(folder, counting)) as index:
        assert names(index, index.dense(vector, 5))[0] == "menu.txt" and len(index.dense(vector, 9)) == 5
        assert index._vectors.count() == index.manifest.vector_count() == 5 and not index.unsettled
    assert counting.texts == before  # from the manifest, not from the embedder


def test_a_lost_vector_store_comes_back_with_the_next_sync(texts, tmp_path, embedder):
    folder = tmp_path / "index"
    add_paths(folder, [texts], embedder=embedder)
    shutil.rmtree(folder / "vectors")
    sync_places(folder, embedder=embedder)
    with closing(Index.open(folder, embedder)) as index:
        assert len(index.dense(np.ones(embedder.dim, np.float32), 9)) == 4


# A Chroma server, started here on loopback.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    binary = Path(sys.executable).with_name("chroma")
    if not binary.exists():
        pytest.skip("the `chroma` command is not installed beside this Python")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("chroma")
    command = [binary, "run", "--host", "127.0.0.1", "--port", str(port), "--path", folder / "data"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def test_vectors_live_on_a_server_by_setting_and_come_back_without_embedding(
    texts, tmp_path, embedder, server
):
    folder, counting = tmp_path / "index", Counting(embedder)
    vector = embedder.embed(["When are dumplings served?"])[0]
    add_paths(folder, [texts], embedder=counting)
    with closing(Index.open(folder, counting)) as index:
        at_home = index.dense(vector, 9)
    with closing(Index.open(folder, counting, server)) as index:  # moves them there
        there = index.dense(vector, 9)
    assert [i for i, _ in there] == [i for i, _ in at_home]
    assert [s for _, s in there] == pytest.approx([s for _, s in at_home], abs=1e-4)
    (texts / "more.txt").write_text("Dumplings are sold out on Thursday.")
    assert add_paths(folder, [texts], embedder=counting, server=server).added == 1
    assert remove(folder, [str(texts / "zebra.md")], server=server).removed == 1
    with closing(Index.open(folder, counting, server)) as index:
        found = names(index, index.dense(vector, 9))
        assert set(found[:2]) == {"menu.txt", "more.txt"} and len(found) == 4 and "zebra.md" not in found
        assert names(index, index.within(str(texts / "old")).dense(vector, 9))
    with closing(Index.open(folder, counting)) as index:  # and back again
        assert names(index, index.dense(vector, 9)) == found
    assert counting.texts == 5


def test_what_a_server_lost_comes_back_with_the_next_sync(texts, tmp_path, embedder, server):
    folder = tmp_path / "index"
    add_paths(folder, [texts], embedder=embedder, server=server)
    with closing(Index.open(folder, embedder, server)) as index:
        client = server.client()
        client.delete_collection(f"tunesmith-{index.manifest.meta('id')}")
        with pytest.raises(UserError, match="library sync"):
            index.dense(embedder.embed(["zebra"])[0])
    sync_places(folder, embedder=embedder, server=server)
    with closing(Index.open(folder, embedder, server)) as index:
        assert len(index.dense(embedder.embed(["zebra"])[0], 9)) == 4


def test_a_server_that_is_not_there_is_told_in_one_line(texts, tmp_path, embedder):
    nobody = Server("http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"Chroma at http://127.0.0.1:9: .*TUNESMITH_CHROMA_URL") as told:
        add_paths(tmp_path / "index", [texts], embedder=embedder, server=nobody)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("https://chroma.example.org", False),
        ("http://192.168.1.7:8000", True),
        ("http://chroma.example.org", True),
        ("http://0.0.0.0:8000", True),
    ],
)
def test_a_server_in_the_open_is_warned_of(url, warned):
    assert bool(Server(url).warning) is warned


def test_an_incomplete_setting_is_refused_and_keys_are_not_shown():
    for url in ("chroma.example.org", "ftp://host", "http://host:port", "http://host/path"):
        with pytest.raises(UserError, match="not an address"):
            Server(url)
    with pytest.raises(UserError, match="database, api_key not set"):
        Server("cloud", tenant="t")
    secret = Server("cloud", "token-1", "t", "d", "key-1")
    assert "key-1" not in repr(secret) + secret.place and "token-1" not in repr(secret)
