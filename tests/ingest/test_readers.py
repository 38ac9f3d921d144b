"""Every supported format is read; every way a file can be bad is told in one line."""

import os

import pytest

from ingest.readers import ReadError, kb_documents, read_file


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes.md", "退貨要在七天內提出"),
        ("plain.txt", "倉庫的冷氣"),
        ("page.html", "gold plan costs 49 euros"),
        ("sub/letter.docx", "parcel left the depot"),
        ("sub/paper.pdf", "zebra enclosure opens at nine"),
    ],
)
def test_every_format_gives_its_text(library, name, words):
    document = read_file(library / name)
    assert words in document.text
    assert document.id == f"file:{library / name}" and document.page == document.source == str(library / name)


def test_title_is_the_first_heading_else_the_file_name(library):
    assert read_file(library / "notes.md").title == "客服筆記"
    assert read_file(library / "plain.txt").title == "plain"


def test_front_matter_gives_the_title_and_is_no_text(tmp_path):
    file = tmp_path / "a.md"
    file.write_text("---\ntitle: 'Grid search'\nsecret: x\n---\nBody.\n")
    document = read_file(file)
    assert document.title == "Grid search" and document.text.strip() == "Body."


def test_a_byte_order_mark_and_windows_line_ends_leave_no_trace(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\r\ntwo\r".encode())
    assert read_file(file).text == "one\ntwo\n"


def test_scripts_of_a_web_page_are_not_read(library):
    assert "alert" not in read_file(library / "page.html").text


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("big5.txt", "繁體".encode("big5"), "not UTF-8 at byte 0"),
        ("late.md", b"good text \xff", "not UTF-8 at byte 10 (0xff)"),
        ("empty.md", b" \n\t", "no text in it"),
        ("empty.txt", b"", "no text in it"),
        ("bad.pdf", b"%PDF-1.4 this is not a PDF", "not a readable .pdf file"),
        ("bad.docx", b"PK\x03\x04 torn", "not a readable .docx file"),
        ("sheet.xyz", b"1,2", "suffix is not supported"),
        ("none", b"text", "suffix is not supported"),
    ],
)
def test_a_bad_file_is_told_in_one_line_with_its_path(tmp_path, name, data, reason):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(ReadError) as error:
        read_file(file)
    assert reason in str(error.value) and str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    (tmp_path / "folder.md").mkdir()
    for name in ("absent.md", "folder.md"):
        with pytest.raises(ReadError, match="no such file"):
            read_file(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_told(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("text")
    file.chmod(0)
    with pytest.raises(ReadError, match="permissions"):
        read_file(file)


def test_pages_come_in_both_languages_with_their_sources():
    documents = {document.id: document for document in kb_documents()}
    page = documents["kb:methods/lora:zh-TW"]
    assert "kb:methods/lora:en" in documents
    assert page.source == "kb" and page.page == "methods/lora"
    assert all({"key", "name", "url", "date"} == set(source) for source in page.sources)
    assert "{#sources}" not in page.text
