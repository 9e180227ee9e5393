"""The text of the format bench: English, code and manuals, all available on a Debian system with CPython.

    apt-get install anarchism jargon-text bible-kjv-text bible-kjv fortunes debian-reference-en

Each source yields its documents in the same order on all machines; a source that is not installed yields none.
"""

import gzip
import hashlib
import html
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Long texts are cut, so that the tokens of a source come from many of its documents.
DOCUMENT_CHARACTERS = 12_000

BIBLE_BOOKS = ("Gen", "Exodus", "Job", "Psalms", "Proverbs", "Isaiah", "Matthew", "Mark", "Luke", "John", "Acts", "Rev")


def python_topics() -> Iterator[str]:
    """The topics of CPython's `help()`, such as `help("if")`."""
    from pydoc_data.topics import topics

    yield from (topics[name] for name in _shuffled(topics))


def python_sources() -> Iterator[str]:
    """Modules of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    yield from (_read(path) for path in _shuffled(library.glob("*.py")))


def man_pages() -> Iterator[str]:
    """Manual pages in English, formatted by `man`."""
    if shutil.which("man") is None:
        return
    for page in _shuffled(Path("/usr/share/man").glob("man[1-8]/*.gz")):
        command = ["man", "--encoding=UTF-8", "--local-file", str(page)]
        shown = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
        yield shown.stdout


def anarchism() -> Iterator[str]:
    """An Anarchist FAQ, without its HTML markup."""
    pages = Path("/usr/share/doc/anarchism/html").glob("*.html")
    yield from (_plain_text(_read(path)) for path in _shuffled(pages))


def jargon_text() -> Iterator[str]:
    """The Jargon File."""
    yield from _pieces(Path("/usr/share/doc/jargon-text/jargon.txt.gz"))


def debian_reference() -> Iterator[str]:
    """The Debian Reference."""
    yield from _pieces(Path("/usr/share/debian-reference/debian-reference.en.txt.gz"))


def fortunes() -> Iterator[str]:
    """Files of epigrams."""
    files = [path for path in Path("/usr/share/games/fortunes").glob("*") if path.suffix == ""]
    yield from (_read(path) for path in _shuffled(files))


def bible() -> Iterator[str]:
    """The King James Bible, through the `bible` program, which reads its compressed text."""
    if shutil.which("bible") is None:
        return
    for book in BIBLE_BOOKS:
        command = ["bible", "-f", f"{book}1:1-{book}3:15"]
        yield subprocess.run(command, capture_output=True, check=False, text=True, input="").stdout


SOURCES: dict[str, Callable[[], Iterator[str]]] = {
    "topics": python_topics,
    "sources": python_sources,
    "man": man_pages,
    "anarchism": anarchism,
    "jargon-text": jargon_text,
    "bible-kjv-text": bible,
    "fortunes": fortunes,
    "debian-reference-en": debian_reference,
}


def documents(source: str) -> Iterator[str]:
    """The texts of a source, none empty or longer than `DOCUMENT_CHARACTERS`; none if it is not installed."""
    for text in SOURCES[source]():
        if text.strip():
            yield text[:DOCUMENT_CHARACTERS]


def _shuffled(items: Iterable) -> list:
    """The items in an order that is the same on all machines and independent of their alphabetical order."""
    return sorted(items, key=lambda item: hashlib.sha256(str(item).encode()).digest())


def _read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")


def _pieces(path: Path) -> Iterator[str]:
    """The documents of one long text, which is cut at empty lines."""
    if not path.exists():
        return
    piece = ""
    for paragraph in _read(path).split("\n\n"):
        if len(piece) + len(paragraph) > DOCUMENT_CHARACTERS:
            yield piece
            piece = ""
        piece += paragraph + "\n\n"
    yield piece


def _plain_text(page: str) -> str:
    body = re.sub(r"(?s)<(script|style|head).*?</\1>", "", page)
    return re.sub(r"\n\s*\n+", "\n\n", html.unescape(re.sub(r"<[^>]*>", "", body))).strip()
