"""A sync brings the index into line with the files, names what it cannot read, and survives being killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ingest import index as index_module
from ingest import manifest, stores, vectors
from ingest.index import Index
from ingest.readers import ReadError
from ingest.sync import add_paths, build_kb, remove
from ingest.text import tokens

ROOT = Path(__file__).resolve().parents[2]


def found(folder: Path, question: str, embedder=None) -> list[str]:
    """File names by words, best first."""
    with closing(Index.open(folder, embedder)) as index:
        hits = index.get([i for i, _ in index.lexical(dict.fromkeys(tokens(question), 1.0))])
        return [Path(chunk.page).name for chunk in hits]


def vectors_in_chroma(index: Index) -> set[str]:
    with index._vectors.client() as client:
        names = [collection.name for collection in client.list_collections()]
        return set(client.get_collection("chunks", embedding_function=None).get()["ids"]) if names else set()


def stores_agree(folder: Path, embedder) -> bool:
    """Words and vectors hold exactly the chunks that the manifest says."""
    with closing(Index.open(folder, embedder)) as index:
        documents = [row.id for row in index.documents()]
        chunks = {chunk.id for chunk in index.manifest.chunks_of(documents)}
        vectors = set(index.manifest.vector_ids(documents))
        words = sum(store.count() for store in index._words.values())
        return (
            index.manifest.stale() == []
            and words == len(chunks)
            and vectors <= chunks
            and vectors_in_chroma(index) == vectors
            and len(vectors) == index.manifest.vector_count()
        )


def test_a_folder_of_every_format_is_found_by_its_words(library, tmp_path, embedder):
    seen = []
    report = add_paths(
        tmp_path / "index", [library], lambda done, total, what: seen.append((done, total)), embedder
    )
    assert (report.added, report.skipped, report.chunks) == (5, [], 6)
    assert seen[-1] == (5, 5)
    for question, name in [
        ("退货几天内提出", "notes.md"),
        ("冷氣", "plain.txt"),
        ("gold plan", "page.html"),
        ("parcel Tainan", "letter.docx"),
        ("zebra", "paper.pdf"),
    ]:
        assert found(tmp_path / "index", question)[0] == name
    assert stores_agree(tmp_path / "index", embedder)


def test_only_what_changed_is_written(library, tmp_path, embedder):
    folder = tmp_path / "index"
    add_paths(folder, [library], embedder=embedder)
    again = add_paths(folder, [library], embedder=embedder)
    assert (again.added, again.changed, again.removed, again.unchanged, again.chunks) == (0, 0, 0, 5, 0)
    (library / "plain.txt").write_text("倉庫改種蘭花。", encoding="utf-8")
    os.utime(library / "page.html")
    (library / "notes.md").unlink()
    (library / "new.md").write_text("# New\n\nA walrus.\n")
    report = add_paths(folder, [library], embedder=embedder)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 3)
    assert found(folder, "冷氣") == [] and found(folder, "蘭花") == ["plain.txt"]
    assert found(folder, "退貨") == [] and found(folder, "walrus") == ["new.md"]
    assert stores_agree(folder, embedder)


def test_files_outside_the_given_folder_stay(library, tmp_path, embedder):
    other = tmp_path / "library-2"
    other.mkdir()
    (other / "a.txt").write_text("An otter.")
    folder = tmp_path / "index"
    add_paths(folder, [library, other], embedder=embedder)
    (library / "plain.txt").unlink()
    report = add_paths(folder, [library], embedder=embedder)
    assert report.removed == 1 and found(folder, "otter") == ["a.txt"]


def test_a_bad_file_is_named_and_the_rest_goes_in(library, tmp_path, embedder):
    (library / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (library / "torn.docx").write_bytes(b"PK\x03\x04")
    (library / "photo.png").write_bytes(b"\x89PNG")
    (library / ".hidden.txt").write_text("hidden")
    report = add_paths(tmp_path / "index", [library], embedder=embedder)
    assert report.added == 5
    assert sorted(Path(path).name for path, _ in report.skipped) == ["bad.txt", "photo.png", "torn.docx"]
    assert all("\n" not in reason and path in reason for path, reason in report.skipped)


def test_a_file_that_turned_bad_keeps_its_earlier_text(library, tmp_path, embedder):
    folder = tmp_path / "index"
    add_paths(folder, [library], embedder=embedder)
    (library / "plain.txt").write_bytes(b"\xff")
    report = add_paths(folder, [library], embedder=embedder)
    assert len(report.skipped) == 1 and report.removed == 0
    assert found(folder, "冷氣") == ["plain.txt"]


def test_a_path_that_is_not_there_is_refused_before_anything_is_written(library, tmp_path, embedder):
    with pytest.raises(ReadError, match="no such file or folder"):
        add_paths(tmp_path / "index", [library, tmp_path / "absent"], embedder=embedder)
    assert not (tmp_path / "index").exists()


def test_files_and_folders_can_be_removed(library, tmp_path, embedder):
    folder = tmp_path / "index"
    add_paths(folder, [library], embedder=embedder)
    assert remove(folder, [str(library / "plain.txt")]).removed == 1
    assert remove(folder, [str(library / "sub")]).removed == 2
    assert found(folder, "zebra parcel 冷氣") == []
    assert stores_agree(folder, embedder)
    with pytest.raises(ReadError, match="not in the library"):
        remove(folder, [str(library / "plain.txt")])


def test_the_knowledge_base_goes_in_once_and_beside_the_users_files(library, tmp_path, embedder):
    folder = tmp_path / "index"
    report = build_kb(folder, embedder=embedder)
    assert report.added >= 24 and report.unchanged == 0
    add_paths(folder, [library], embedder=embedder)
    start = time.process_time()
    again = build_kb(folder, embedder=embedder)
    assert time.process_time() - start < 0.5
    assert (
        again.added == again.changed == again.removed == again.chunks == 0 and again.unchanged == report.added
    )
    assert found(folder, "zebra") == ["paper.pdf"]


def test_an_index_of_another_version_is_built_anew_with_the_users_files(
    library, tmp_path, embedder, monkeypatch
):
    folder = tmp_path / "index"
    build_kb(folder, embedder=embedder)
    add_paths(folder, [library], embedder=embedder)
    (library / "plain.txt").unlink()
    monkeypatch.setattr(index_module, "VERSION", "next")
    build_kb(folder, embedder=embedder)
    assert found(folder, "zebra") == ["paper.pdf"] and "learning-rate" in str(found_ids(folder, "學習率"))
    assert "plain.txt" not in found(folder, "冷氣")
    assert stores_agree(folder, embedder)
    with closing(Index.open(folder, embedder)) as index:
        assert not index.outdated and all(row.chunks for row in index.documents())


def found_ids(folder: Path, question: str) -> list[str]:
    with closing(Index.open(folder)) as index:
        return [i for i, _ in index.lexical(dict.fromkeys(tokens(question), 1.0))]


WRITER = """
import sys
from pathlib import Path
from ingest import sync
from ingest.embedder import default_embedder
sync.BATCH = 3
print("ready", flush=True)
sync.add_paths(Path(sys.argv[1]), [Path(sys.argv[2])], lambda done, total, what: print(done, flush=True),
               default_embedder(Path(sys.argv[3])))
print("end", flush=True)
"""


def writer(folder: Path, texts: Path, embedder) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), str(texts), str(embedder.cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def make_texts(texts: Path, count: int, word: str) -> None:
    texts.mkdir(exist_ok=True)
    for number in range(count):
        (texts / f"{number:03}.txt").write_text(f"The {word} number{number} sleeps in the garden.")


@pytest.mark.parametrize("stop_at", [4, 10, 19])
def test_a_writer_killed_at_any_moment_leaves_an_index_that_heals(tmp_path, embedder, stop_at):
    folder, texts = tmp_path / "index", tmp_path / "texts"
    make_texts(texts, 12, "badger")
    add_paths(folder, [texts], embedder=embedder)
    make_texts(texts, 24, "marten")  # half of them changed, half new
    process = writer(folder, texts, embedder)
    for line in process.stdout:
        if line.strip() == str(stop_at):
            break
    time.sleep(0.01 * stop_at)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert stores_agree(folder, embedder)  # opening healed it
    for question in ("badger", "marten"):  # whatever is found is what the text says now or said before
        for name in found(folder, question):
            assert int(name[:3]) < 24
    report = add_paths(folder, [texts], embedder=embedder)
    assert report.added + report.changed + report.unchanged == 24
    assert found(folder, "badger") == [] and len(found(folder, "marten")) == 24
    assert stores_agree(folder, embedder)


@pytest.mark.parametrize("moment", ["words", "vectors", "settle"])
def test_a_crash_between_the_stores_heals_when_opened(tmp_path, embedder, monkeypatch, moment):
    folder, texts = tmp_path / "index", tmp_path / "texts"
    make_texts(texts, 4, "badger")
    add_paths(folder, [texts], embedder=embedder)
    make_texts(texts, 4, "marten")
    (texts / "003.txt").unlink()

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        where = {"words": stores.Words, "vectors": vectors.Vectors, "settle": manifest.Manifest}
        patch.setattr(where[moment], "settle" if moment == "settle" else "replace", die)
        with pytest.raises(Killed):
            add_paths(folder, [texts], embedder=embedder)
    assert stores_agree(folder, embedder)
    assert found(folder, "badger") == [] and found(folder, "marten") == ["000.txt", "001.txt", "002.txt"]


def test_a_reader_sees_what_another_process_writes(tmp_path, embedder):
    folder, texts = tmp_path / "index", tmp_path / "texts"
    make_texts(texts, 3, "badger")
    add_paths(folder, [texts], embedder=embedder)
    vector = embedder.embed(["a marten in the garden"])[0]
    with closing(Index.open(folder, embedder)) as reader:
        before = reader.generation
        assert len(reader.lexical({"badger": 1.0})) == 3 and len(reader.dense(vector)) == 3
        make_texts(texts, 8, "marten")
        process = writer(folder, texts, embedder)
        process.communicate(timeout=60)
        assert process.returncode == 0 and reader.generation > before
        assert reader.lexical({"badger": 1.0}) == [] and len(reader.lexical({"marten": 1.0})) == 8
        assert len(reader.dense(vector)) == 8
        assert max(score for _, score in reader.dense(vector)) > 0.5


def test_two_writers_wait_for_each_other_and_both_get_in(tmp_path, embedder):
    folder = tmp_path / "index"
    processes = []
    for word in ("badger", "marten"):
        make_texts(tmp_path / word, 5, word)
        processes.append(writer(folder, tmp_path / word, embedder))
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert len(found(folder, "badger")) == len(found(folder, "marten")) == 5
    assert stores_agree(folder, embedder)


def test_a_reader_does_not_wait_for_a_writer(tmp_path, embedder):
    folder = tmp_path / "index"
    make_texts(tmp_path / "texts", 2, "badger")
    add_paths(folder, [tmp_path / "texts"], embedder=embedder)
    with closing(Index.open(folder, embedder)) as holder, holder.writing():
        assert len(found(folder, "badger")) == 2


def test_a_deletion_file_left_by_a_killed_writer_does_not_stop_the_next(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a", "b", "c"):
        (texts / f"{name}.txt").write_text(f"the text of {name} speaks of quokkas")
    folder, twin = tmp_path / "index", tmp_path / "twin"
    add_paths(folder, [texts])
    shutil.copytree(folder, twin)
    before = {path.name for path in twin.rglob("*.del")}
    remove(twin, [str(texts / "a.txt")])
    made = next(path for path in twin.rglob("*.del") if path.name not in before)
    planted = folder / made.relative_to(twin)
    planted.write_bytes(b"half a file")
    remove(folder, [str(texts / "a.txt")])
    assert sorted(found(folder, "quokkas")) == ["b.txt", "c.txt"]
