"""Files of every kind become rows: Parquet, XLSX, PDF, Markdown, CoNLL, spans."""

import json

import pytest

from trainer.config import UserError
from trainer.data import preview, profile
from trainer.data.entities import from_spans, from_tags, joined
from trainer.data.read import source


def first(path):
    row = preview(path, 1)[0]
    return row["prompt"][-1]["content"], row["completion"][-1]["content"]


def test_parquet_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "d.parquet"
    pq.write_table(pa.Table.from_pylist([{"text": "房間", "label": 1}, {"text": "b", "label": None}]), path)
    measured = profile(path)
    assert (measured.format, measured.rows, measured.read_rows) == ("text+label", 1, 2)
    assert "no_label" in [item.kind for item in measured.findings]
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="not a readable Parquet"):
        profile(path)


def test_xlsx_is_read_as_values(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["text", "label"], ["good room", 1.0], ["=1+1", "no"], [None, None], ["last", "no"]):
        book.active.append(row)
    path = tmp_path / "d.xlsx"
    book.save(path)
    assert first(path) == ("good room", "1")
    assert profile(path).read_rows == 3  # a formula without a stored value is an empty cell
    path.write_bytes(b"PK\x03\x04broken")
    with pytest.raises(UserError, match=r"not a readable \.xlsx"):
        profile(path)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.setattr("trainer.data.documents.UNPACKED", 1 << 20)
    path = tmp_path / "d.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * (2 << 20))
    with pytest.raises(UserError, match="unpacks to 2 MB"):
        profile(path)


def test_markdown_is_cut_at_headings_and_code_stays_whole(tmp_path):
    path = tmp_path / "d.md"
    path.write_text("intro\n\n# One\ntext\n```\n# no heading\n```\n\n## Two\nmore\n", encoding="utf-8")
    assert [row["text"] for row in preview(path, 9)] == [
        "intro",
        "# One\ntext\n```\n# no heading\n```",
        "## Two\nmore",
    ]


def test_pdf_pages_are_texts(tmp_path):
    import pypdfium2

    path = tmp_path / "d.pdf"
    document = pypdfium2.PdfDocument.new()
    document.new_page(200, 200)
    document.save(path)
    with pytest.raises(UserError, match="no page holds text"):
        profile(path)
    path.write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(UserError, match="not a readable PDF"):
        profile(path)


def test_tags_become_entities():
    assert from_tags(list("在北京市住"), ["O", "B-LOC", "I-LOC", "I-LOC", "O"]) == ([("北京市", "LOC")], True)
    assert from_tags(["New", "York"], ["B-LOC", "E-LOC"]) == ([("New York", "LOC")], True)
    assert from_tags(["a", "b"], ["I-X", "B-Y"]) == ([("a", "X"), ("b", "Y")], False)
    assert joined(["我", "愛", "Py", "thon", "。"]) == "我愛Py thon。"


def test_spans_are_checked_against_their_text():
    assert from_spans("Lin lives here", [[0, 3, "person"]]) == [("Lin", "person")]
    assert from_spans("Lin", [{"start": 0, "end": 9, "label": "x"}]) is None
    assert from_spans("Lin", [[0, True, "x"]]) is None


def test_annotated_rows_are_understood_and_bad_ones_counted(tmp_path):
    rows = [
        {"text": "Lin lives in Taipei", "entities": [[0, 3, "person"], [13, 19, "place"]]},
        {"text": "Lin", "entities": [[0, 30, "person"]]},
        {"text": "nobody", "entities": []},
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    measured = profile(path)
    assert (measured.format, measured.task, measured.rows) == ("spans", "ner", 2)
    assert {item.kind: item.lines for item in measured.findings}["bad_span"] == [2]
    assert json.loads(first(path)[1]) == [
        {"text": "Lin", "type": "person"},
        {"text": "Taipei", "type": "place"},
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".md", ".parquet", ".xlsx"])
def test_a_file_is_read_row_by_row(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    rows = [{"text": f"{number} " + "a room " * 80, "label": "good"} for number in range(5000)]
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), path, compression="none", use_dictionary=False
        )
    elif suffix == ".xlsx":
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        for cells in [["text", "label"], *([row["text"], row["label"]] for row in rows)]:
            sheet.append(cells)
        book.save(path)
    else:
        mark = {".csv": ",", ".tsv": "\t"}.get(suffix)
        lines = [f"{row['text']}{mark}{row['label']}" if mark else f"# {row['text']}" for row in rows]
        path.write_text("\n".join([f"text{mark}label"] * bool(mark) + lines) + "\n")
    size, seen = path.stat().st_size, []
    found = source(path, seen.append).rows
    first = next(found)
    assert first[1]["text"].strip("# ").startswith("0 a room") and sum(seen) < size / 2
    assert 1 + sum(1 for _ in found) == 5000 and 0.7 * size < sum(seen) <= 1.01 * size
