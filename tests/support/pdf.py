"""Small PDF files, written by hand from the format's description (ISO 32000-1, 7.5)."""

from __future__ import annotations

from collections.abc import Sequence


def make_pdf(
    pages: Sequence[Sequence[str]], outline: Sequence[tuple[str, int]] = (), title: str = ""
) -> bytes:
    """A PDF with lines of ASCII text on each page, and bookmarks (title, page from 0)."""
    objects: list[str] = ["", ""]  # catalogue and page tree, filled in below

    def add(text: str) -> int:
        objects.append(text)
        return len(objects)

    font = add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    numbers = []
    for lines in pages:
        shown = " T* ".join(f"({_escaped(line)}) Tj" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"
        stream = add(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        numbers.append(
            add(
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {stream} 0 R "
                f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
            )
        )
    kids = " ".join(f"{n} 0 R" for n in numbers)
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"
    root = "/Type /Catalog /Pages 2 0 R"
    if outline:
        top = len(objects) + 1
        first, last = top + 1, top + len(outline)
        add(f"<< /Type /Outlines /First {first} 0 R /Last {last} 0 R /Count {len(outline)} >>")
        for index, (text, page) in enumerate(outline):
            here = first + index
            before = f"/Prev {here - 1} 0 R " if here > first else ""
            after = f"/Next {here + 1} 0 R " if here < last else ""
            add(
                f"<< /Title ({_escaped(text)}) /Parent {top} 0 R {before}{after}"
                f"/Dest [{numbers[page]} 0 R /Fit] >>"
            )
        root += f" /Outlines {top} 0 R"
    objects[0] = f"<< {root} >>"
    info = add(f"<< /Title ({_escaped(title)}) >>")
    return assemble(objects, f"/Info {info} 0 R")


def assemble(objects: Sequence[str], trailer: str = "") -> bytes:
    """A PDF of numbered objects, the first of which is the catalogue."""
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    return (
        f"{out}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{len(out)}\n%%EOF\n"
    ).encode("ascii")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
