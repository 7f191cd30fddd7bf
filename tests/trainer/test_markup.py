"""HTML and PDF as sections."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.errors import UsageError
from tests.support.pdf import assemble, make_pdf
from trainer.data import markup
from trainer.data.markup import Section, read_document, read_html
from trainer.data.reading import read_dataset

PAGE = """<!doctype html><html><head><title>Lease | Example</title><style>p {color: red}</style>
</head><body><nav><a href="/">Home</a><p>Menu</p></nav><main>
<h1>Lease <em>guide</em></h1><p>Who rents
   pays.</p><script>track("you")</script>
<h2>Rent</h2><p>Due on the <b>first</b> day.<p>In advance.<ul><li>By transfer</li><li>In cash</ul>
<table><tr><th>Day</th><th>Fee</th></tr><tr><td>2</td><td>5</td></tr></table>
<pre>
total = rent
  + fee
</pre>
<dl><dt>Lessor</dt><dd>The person who lets a thing to another.</dd></dl>
</main><footer>Cookies &amp; terms</footer></body></html>"""


def test_a_page_is_its_text_and_headings() -> None:
    page = read_html(PAGE, "a.html")
    assert page.title == "Lease guide"
    assert page.sections == (
        Section("Lease guide", "Who rents pays."),
        Section(
            "Rent",
            "Due on the first day.\n\nIn advance.\n\n- By transfer\n\n- In cash\n\nDay | Fee\n\n"
            "2 | 5\n\ntotal = rent\n  + fee\n\n**Lessor**: The person who lets a thing to another.",
        ),
    )


def test_an_article_keeps_the_header_that_names_it() -> None:
    page = read_html(
        "<body><header>Site</header><article><header><h1>Name</h1></header><p>Text", "a.html"
    )
    assert page.sections == (Section("Name", "Text"),)


def test_a_page_becomes_pairs(tmp_path: Path) -> None:
    (tmp_path / "lease.html").write_text(PAGE)
    pairs = {e.kind: e for e in read_dataset(tmp_path / "lease.html")}
    assert pairs["section"].messages[0].content == (
        "What does the section «Rent» of «Lease guide» say?"
    )
    assert "Lessor" in pairs["definition"].messages[0].content
    assert pairs["definition"].answer == "The person who lets a thing to another."


def test_html_nested_too_deeply() -> None:
    with pytest.raises(UsageError, match=r"a\.html: elements are nested more than 200 deep"):
        read_html("<div>" * 1000 + "x", "a.html")


@given(st.text(st.sampled_from("<>/=\"' \nabhp1tdl&;!-"), max_size=80))
def test_any_tag_soup_is_read(text: str) -> None:
    for section in read_html(text, "a.html").sections:
        assert section.text.strip()


def pdf(tmp_path: Path, *args: object, **more: object) -> Path:
    file = tmp_path / "lease.pdf"
    file.write_bytes(make_pdf(*args, **more))  # type: ignore[arg-type]
    return file


def test_a_pdf_is_cut_at_its_outline(tmp_path: Path) -> None:
    pages = [
        ["Lease Act", "1 Scope", "This act is about let-", "ting of (rooms)."],
        ["2 Rent", "Rent is due", "on the first day.", "It is paid in advance."],
    ]
    file = pdf(tmp_path, pages, [("1 Scope", 0), ("2 Rent", 1)], "Lease Act 2020")
    document = read_document(file, "lease.pdf", ".pdf")
    assert document.title == "Lease Act 2020"
    assert document.sections == (
        Section("", "Lease Act"),
        Section("1 Scope", "This act is about letting of (rooms)."),
        Section("2 Rent", "Rent is due on the first day.\n\nIt is paid in advance."),
    )


def test_what_stands_on_most_pages_is_left_out(tmp_path: Path) -> None:
    pages = [["The Lease Act", f"Clause {i} is short.", f"Page {i} of 6"] for i in range(6)]
    # the clauses differ in more than a number
    pages = [[top, f"{'abcdef'[i]} {text}", foot] for i, (top, text, foot) in enumerate(pages)]
    (section,) = read_document(pdf(tmp_path, pages), "lease.pdf", ".pdf").sections
    assert "Lease Act" not in section.text
    assert "of 6" not in section.text
    assert "f Clause 5 is short." in section.text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "lease.pdf: is not a readable PDF"),
        (b"%PDF-1.4\nnothing", "lease.pdf: is not a readable PDF"),
        (make_pdf([[""]]), "lease.pdf: holds no text, only pictures"),
    ],
)
def test_a_pdf_that_cannot_be_used(tmp_path: Path, raw: bytes, expected: str) -> None:
    file = tmp_path / "lease.pdf"
    file.write_bytes(raw)
    with pytest.raises(UsageError) as caught:
        read_document(file, "lease.pdf", ".pdf")
    assert expected in caught.value.message


def test_an_encrypted_pdf(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    file = pdf(tmp_path, [["A secret clause."]])
    writer = PdfWriter(clone_from=PdfReader(file))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(file)
    with pytest.raises(UsageError, match=r"lease\.pdf: is encrypted"):
        read_document(file, "lease.pdf", ".pdf")


def slow_pdf(commands: int) -> bytes:
    """A page of so many commands."""
    drawn = f"BT /F 9 Tf {'(a) Tj ' * commands}ET"
    return assemble(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R "
            "/Resources << /Font << /F 5 0 R >> >> >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


def test_a_pdf_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "PDF_PAGE_SECONDS", 1.0)
    file = tmp_path / "lease.pdf"
    file.write_bytes(slow_pdf(3_000_000))
    with pytest.raises(UsageError) as caught:
        read_document(file, "lease.pdf", ".pdf")
    assert caught.value.message == "lease.pdf: page 1 of 1 takes longer than 1 s to read"
    assert "`pdftotext`" in str(caught.value.hint)
    monkeypatch.setattr(markup, "PDF_PAGE_SECONDS", 60.0)
    monkeypatch.setattr(markup, "PDF_SECONDS", 1.0)
    with pytest.raises(UsageError, match=r"lease\.pdf: takes longer than 1 s to read"):
        read_document(file, "lease.pdf", ".pdf")


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 800), st.binary(max_size=6))
def test_a_damaged_pdf_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes
) -> None:
    raw = make_pdf([["Some text of a lease.", "And more of it."]])
    file = tmp_path_factory.mktemp("pdf") / "a.pdf"
    file.write_bytes(raw[:at] + noise + raw[at + len(noise) :])
    try:
        read_document(file, "a.pdf", ".pdf")
    except UsageError as error:
        assert error.message.startswith("a.pdf: ")
