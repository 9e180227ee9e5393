"""The project's text is plain American English: no word of these lists, in prose, messages or identifiers."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from repository import GOLDEN, ROOT

CHECKED = [
    *("logitcask/__init__.py", "logitcask/__main__.py", "schemas", "teacher", "pipeline", "student"),
    *("tests", "bench", "docs", "examples", ".ci"),
    *("README.md", "FORMAT.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml"),
]
SUFFIXES = ("", ".py", ".md", ".js", ".css", ".html", ".toml")
MAXIMUM_TEST_NAME = 70

WORDS = """
    aim|aims|aimed|anew|beside|fewest|hereby|likewise|lot|lots|mend|mended|mending|mends|nobody|poison|poisoned|somebody
    spelt|thereof|therein|thus|wants|whoever|whom|whilst
    analyse|analysed|analysing|artefacts?|behaviours?|catalogues?|centred?|centres|[a-z]*colour(s|ed|ing)?|favours?
    favourites?|grey|labelled|labelling|[a-z]*licences?|modelled|modelling|neighbour(s|ing|hood)?|travelled|travelling
"""
VERBS_IN_ISE = """
    canonical|capital|categor|character|custom|discret|emphas|equal|factor|final|general|initial|linear|local|material
    maxim|memor|minim|normal|optim|organ|parallel|penal|priorit|quant|random|real|recogn|regular|sanit|serial|special
    stabil|summar|symbol|synchron|token|util|vector|visual
"""
PHRASES = """
    as it was written|asked for|at one go|but for|by and by|cannot be meant|for ever|for people|get on|gets on|go on
    goes on|going on|gone on|in hand|in vain|it is not the one|of use|of which|on the spot|set aside|sets aside
    setting aside|so many|what becomes of
    most positions|most entries|most tokens|most windows|most rows|most bytes|most layers|most draws|most units
"""


def _alternatives(text: str) -> str:
    return "|".join(line.strip() for line in text.strip().splitlines())


BANNED_WORD = re.compile(
    rf"{_alternatives(WORDS)}|[a-z]*({_alternatives(VERBS_IN_ISE)})is(e|es|ed|er|ers|ing|able|ation|ations)"
)
# Between two words: a space or a line break, the mark of a comment, a hyphen, an underscore.
BANNED_PHRASE = re.compile(rf"(?<![a-z])({_alternatives(PHRASES)})(?![a-z])".replace(" ", r"[\s#/*_-]+"), re.IGNORECASE)
# Keys and values in files that users have (also as fields and arguments), and the old names of hidden aliases.
ALLOWED = re.compile(
    r"corpus_licence|[\"'`.](?:licences?|initialisation|utilisation)\b|\b(?:licences?|initialisation)(?=[=:])"
    r"|[\"'=]renormalise\b|--tail renormalise\b|retry[-_]set[-_]aside|--corpus-licence\b"
)


@cache
def _is_banned(word: str) -> bool:
    return BANNED_WORD.fullmatch(word) is not None


def faults(name: str, text: str) -> Iterator[str]:
    """Banned words and overlong test names of a file, each as "FILE:LINE: what"."""
    text = ALLOWED.sub(lambda match: "·" * len(match[0]), text)
    banned = [match for match in re.finditer("[A-Za-z]+", text) if _is_banned(match[0].lower())]
    for match in [*banned, *BANNED_PHRASE.finditer(text)]:
        yield f"{name}:{_line(text, match)}: {' '.join(match[0].split())!r}"
    for match in re.finditer(r"def (test_\w+)", text):
        if len(match[1]) > MAXIMUM_TEST_NAME:
            yield f"{name}:{_line(text, match)}: a test name of {len(match[1])} characters: {match[1]}"


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def files_below(path: Path) -> list[Path]:
    """Our text files at or below a path, without golden files and this list."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    own = [file for file in files if file.is_file() and file.suffix in SUFFIXES and GOLDEN not in file.parents]
    return [file for file in own if file != Path(__file__)]


def test_the_text_is_plain_american_english():
    files = [file for path in CHECKED for file in files_below(ROOT / path)]
    found = [fault for file in files for fault in faults(str(file.relative_to(ROOT)), file.read_text())]
    assert files
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    ["It goes\n    # on", "set_aside(unit)", "Renormalised", "optimiser", "whose licence", "def test_" + "a" * 66],
)
def test_a_fault_is_found(text):
    assert list(faults("file", text))


@pytest.mark.parametrize("text", ["noise, otherwise, raised", "color and behavior", '["corpus_licence"]', "a slot"])
def test_other_words_pass(text):
    assert not list(faults("file", text))
