"""The real embedder, exported once for all tests of ingestion; files in every format that can be read."""

import zipfile
from pathlib import Path

import pytest

from ingest.embedder import MiniLM, default_embedder


@pytest.fixture(scope="session")
def embedder(tmp_path_factory) -> MiniLM:
    return default_embedder(tmp_path_factory.mktemp("embedder"))


def write_docx(path: Path, paragraphs: list[str]) -> None:
    """The least that Word calls a document."""
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>' + text)


def write_pdf(path: Path, text: str) -> None:
    """One page with one line of Latin text, offsets counted by hand as the format asks."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    path.write_bytes(data + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer)


@pytest.fixture
def library(tmp_path) -> Path:
    """A folder with one document in each format."""
    folder = tmp_path / "library"
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.md").write_text(
        "# 客服筆記\n\n## 退貨\n\n退貨要在七天內提出，附上發票。\n\n## 保固\n\n保固期是兩年。\n",
        encoding="utf-8",
    )
    (folder / "plain.txt").write_bytes("\ufeff倉庫的冷氣每週二檢查一次。\n".encode())
    (folder / "page.html").write_text(
        "<html><head><title>Pricing</title></head><body><h1>Pricing</h1><p>The gold plan costs 49 euros a month.</p>"
        "<script>alert('no')</script></body></html>"
    )
    write_docx(
        folder / "sub" / "letter.docx", ["Dear customer,", "your parcel left the depot in Tainan on Friday."]
    )
    write_pdf(folder / "sub" / "paper.pdf", "The zebra enclosure opens at nine in the morning.")
    return folder
