"""What was added is looked at again by a sync: changes, new and vanished files, over all places at once."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ingest import index as index_module
from ingest.index import Index
from ingest.readers import ReadError
from ingest.sync import add_paths, remove, sync_places


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path]:
    """Two folders and what is in them."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "sub").mkdir(parents=True)
    second.mkdir()
    (first / "a.txt").write_text("企鵝館每天十點開門。", encoding="utf-8")
    (first / "sub" / "b.txt").write_text("水獺住在河邊。", encoding="utf-8")
    (second / "c.txt").write_text("長頸鹿吃樹葉。", encoding="utf-8")
    (second / "d.txt").write_text("斑馬在草原上。", encoding="utf-8")
    return first, second


def listed(folder: Path) -> list[str]:
    with closing(Index.open(folder)) as index:
        return [Path(row.source).name for row in index.documents()]


def test_a_sync_looks_at_every_place_again(places, tmp_path):
    first, second = places
    add_paths(tmp_path / "index", [first])
    add_paths(tmp_path / "index", [second / "c.txt"])
    (first / "a.txt").write_text("企鵝館今天休息。", encoding="utf-8")
    (first / "new.txt").write_text("新來的小熊。", encoding="utf-8")
    (first / "sub" / "b.txt").unlink()
    (second / "c.txt").write_text("長頸鹿睡了。", encoding="utf-8")
    report = sync_places(tmp_path / "index")
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 2, 1, 0)
    assert listed(tmp_path / "index") == ["a.txt", "new.txt", "c.txt"]  # d.txt was never asked for
    assert sync_places(tmp_path / "index").unchanged == 3


def test_what_was_removed_from_a_folder_stays_out_until_it_is_added_again(places, tmp_path):
    first, second = places
    index = tmp_path / "index"
    add_paths(index, [first, second])
    remove(index, [str(first / "sub"), str(second / "d.txt")])
    (first / "sub" / "b2.txt").write_text("又一隻水獺。", encoding="utf-8")
    assert sync_places(index).added == 0 and listed(index) == ["a.txt", "c.txt"]
    add_paths(index, [first / "sub" / "b2.txt"])
    assert sync_places(index).unchanged == 3 and listed(index) == ["a.txt", "b2.txt", "c.txt"]
    add_paths(index, [first])
    assert listed(index) == ["a.txt", "b.txt", "b2.txt", "c.txt"]
    remove(index, [str(first)])
    assert sync_places(index).added == 0 and listed(index) == ["c.txt"]


@pytest.mark.parametrize("away", ["moved", "emptied"])
def test_a_folder_that_is_not_attached_keeps_its_documents_and_is_named(places, tmp_path, away):
    first, second = places
    index = tmp_path / "index"
    add_paths(index, [first, second])
    first.rename(tmp_path / "elsewhere")
    if away == "emptied":
        first.mkdir()
    report = sync_places(index)
    assert report.removed == 0 and [path for path, _ in report.skipped] == [str(first)]
    assert "library remove" in report.skipped[0][1]
    assert listed(index) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    remove(index, [str(first)])
    assert listed(index) == ["c.txt", "d.txt"] and sync_places(index).skipped == []


def test_a_place_without_documents_can_be_removed_and_a_stranger_cannot(places, tmp_path):
    index, empty = tmp_path / "index", tmp_path / "empty"
    empty.mkdir()
    add_paths(index, [empty, places[0]])
    remove(index, [str(empty)])
    with pytest.raises(ReadError, match="not in the library"):
        remove(index, [str(empty)])


def test_a_library_of_the_first_layout_is_read_again_and_its_places_are_known(places, tmp_path):
    first, second = places
    index = tmp_path / "index"
    index.mkdir()
    with closing(sqlite3.connect(index / "manifest.sqlite")) as old, old:
        old.executescript("""
            CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
            CREATE TABLE documents (id TEXT PRIMARY KEY, source TEXT NOT NULL, page TEXT NOT NULL,
                title TEXT NOT NULL, lang TEXT NOT NULL, sha256 TEXT NOT NULL,
                removed INTEGER NOT NULL DEFAULT 0, stale INTEGER NOT NULL DEFAULT 1);
            CREATE TABLE chunks (id TEXT PRIMARY KEY, document TEXT NOT NULL, heading TEXT NOT NULL,
                anchor TEXT NOT NULL, text TEXT NOT NULL, ord INTEGER NOT NULL, sources TEXT NOT NULL);
            CREATE TABLE vectors (chunk TEXT PRIMARY KEY, document TEXT NOT NULL);
            INSERT INTO meta VALUES ('recipe', '1 all-MiniLM-L6-v2');""")
        for file in (first / "a.txt", second / "c.txt", second / "gone.txt"):
            row = (f"file:{file}", str(file), str(file), file.stem, "zh-TW", "0" * 64)
            old.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, 0, 0)", row)
    assert sync_places(index).unchanged == 2
    with closing(Index.open(index)) as opened:
        assert [(Path(d.source).name, d.chunks, bool(d.modified)) for d in opened.documents()] == [
            ("a.txt", 1, True),
            ("c.txt", 1, True),
        ]


def test_a_rebuild_that_was_killed_goes_on_at_the_next_start(places, tmp_path, monkeypatch):
    first, second = places
    index = tmp_path / "index"
    add_paths(index, [first])
    monkeypatch.setattr(index_module, "VERSION", "next")

    class Killed(BaseException):
        pass

    def die(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", die)  # the stores are empty, no file has been read again
        with pytest.raises(Killed):
            sync_places(index)
    add_paths(index, [second])
    with closing(Index.open(index)) as opened:
        assert all(row.chunks for row in opened.documents())
    assert listed(index) == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_who_waits_for_another_writer_is_told(places, tmp_path):
    first, _ = places
    index, told = tmp_path / "index", []
    waiting = threading.Event()

    def tell(done: int, total: int, what: str) -> None:
        told.append(what)
        waiting.set()

    with closing(Index.open(index)) as holder, holder.writing():
        adding = threading.Thread(target=add_paths, args=(index, [first], tell))
        adding.start()
        assert waiting.wait(20) and "waiting" in told[0]
        assert holder.documents() == []
    adding.join(60)
    assert listed(index) == ["a.txt", "b.txt"]
