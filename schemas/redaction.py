"""Hides what must not be shown: credentials in URLs, and characters that control a terminal. Cheap to import.

All text that does not come from this project passes through here before it reaches a manifest, a log, an error message
or the terminal.
"""

import re

# User and password in URLs of any scheme, including chained ones (`zip://a::https://user:secret@host/x.zip`).
_USER_INFO = re.compile(r"(?<=://)[^/?#\s@]*(?:@[^/?#\s@]*)*@")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
# Signed URLs carry their signature in the query. In these schemes a question mark is part of a name or a glob, unless
# a setting (KEY=VALUE) follows it.
_SCHEMES_WITHOUT_QUERY = frozenset({"s3", "s3a", "gs", "gcs", "memory", "file", "local", "hdfs", "abfs", "abfss", "az"})


def redact(url: str) -> str:
    """`url` without user, password, query and fragment: safe for a manifest, a log or an error message."""
    if "://" not in url:
        return url
    return "::".join(_without_query(_USER_INFO.sub("", link)) for link in url.split("::"))


def has_credentials(url: str) -> bool:
    """Whether `url` contains anything that `redact` removes."""
    return redact(url) != url


def scrub(text: str) -> str:
    """`text` with every URL in it redacted: for messages of libraries, which quote whole URLs."""
    return _URL.sub(lambda match: redact(match[0]), text)


def printable(text: str) -> str:
    """`text` with control and other unprintable characters escaped, except newlines and tabs.

    Names, messages and corpora come from untrusted files. Escape sequences in them could rewrite the screen, and
    direction marks could reverse the order of the text.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def printable_line(text: str) -> str:
    """`printable` text on one line, with visible marks for newlines and tabs."""
    return printable(text.translate(_LINE_MARKS))


_LINE_MARKS = str.maketrans("\n\t", "⏎⇥")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _without_query(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    if not separator:
        return link
    if scheme.lower() in _SCHEMES_WITHOUT_QUERY:
        return re.split(r"\?(?=[^/]*=)", link, maxsplit=1)[0]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]
