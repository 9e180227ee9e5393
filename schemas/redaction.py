"""Hides what must not be shown: credentials in URLs and words, and characters that control a terminal. Cheap to import.

All text that does not come from this project passes through here before it reaches a manifest, a log, an error message
or the terminal. Every function takes time linear in the length of the text: a repetition that may fail is bounded, or
possessive and entered once a word.
"""

import re

_MASK = "***"
# In a message, a password with white space is searched in this many characters.
_MAX_PASSWORD_LENGTH = 512

# With one slash, it is a URL that became a path.
_SCHEME = re.compile(r"(?<![A-Za-z])([A-Za-z]++[A-Za-z0-9+.-]{0,32}+)(://|(?<=\w\w):/)")
_WORD = re.compile(r"[^\s'\"<>]*")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]{0,31}:[:/])")
_AUTHORITY = re.compile(r"[^/?#\s]*")
_PORT = re.compile(r"\d{1,5}(?:[/?#]|$)")
_PARAMETER = re.compile(r";([^;/?#=]{1,64})=[^;/?#]*")
_QUERY_OF_SETTINGS = re.compile(r"\?(?=[^/?]*=)")
# Signed URLs carry their signature in the query. In these schemes a question mark is part of a name or a glob, unless
# a setting (KEY=VALUE) follows it. None of them has ports.
_SCHEMES_OF_KEYS = frozenset(
    {"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory", "file", "local", "hdfs"}
)

_SETTING = re.compile(r"(?<![\w.-])(?:([\w.-]++)([\"']?\s{0,2}[=:]\s{0,2})|(--[\w-]++)(\s)(?!-))")
_VALUE = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"&]+")
_SECRET_WORDS = re.compile(
    "passw(or)?d|passphrase|secret|credential|signature|connectionstring|cookie|(api|access|account|private|shared|"
    "signing|encryption|storage|master)key|(access|auth|api|session|security|refresh|bearer|hf|hub|git|sas|csrf|user|"
    "client|private|personal)token"
)
_SHORT_SECRET_WORDS = frozenset({"sig", "pwd", "pass", "sas", "auth", "token", "jwt"})
_AUTHORIZATION = re.compile(r"(?i)(\bauthorization[\"']?\s{0,2}[:=]\s{0,2}[\"']?)[^'\"\n]+")
_TOKENS = re.compile(
    r"(?<![\w-])(?:(?i:bearer)\s{1,2}(?=[\w.~+/-]*\d|[\w.~+/-]{16})[\w.~+/=-]++|hf_\w{16,}|gh[pousr]_\w{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|sk-[\w-]{20,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}"
    r"|ya29\.[\w.-]{20,}|eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+)"
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*")


def redact(url: str) -> str:
    """`url` without user, password, query and fragment: safe for a manifest, a log or an error message."""
    if "://" not in url:
        return url
    return "::".join(map(_redact_link, _CHAIN.split(url)))


def has_credentials(url: str) -> bool:
    """Whether `url` contains anything that `redact` removes."""
    return redact(url) != url


def scrub(text: str) -> str:
    """`text` without credentials: for messages of libraries, which quote URLs, headers and settings.

    URLs are redacted. Values of settings whose name says that they are secret (`AWS_SECRET_ACCESS_KEY=…`, `?sig=…`,
    `Authorization: Bearer …`) and words in the form of known access tokens are replaced by `***`.
    """
    text = _AUTHORIZATION.sub(rf"\1{_MASK}", text)
    text = _scrub_urls(text)
    text = _mask_settings(text)
    text = _TOKENS.sub(_MASK, text)
    return _PRIVATE_KEY.sub(rf"\1{_MASK}", text)


def printable(text: str) -> str:
    """`text` with control and other unprintable characters escaped, except newlines and tabs.

    Names, messages and corpora come from untrusted files. Escape sequences in them could rewrite the screen, and
    direction marks could reverse the order of the text.
    """
    return text if text.isprintable() else text.translate(_ESCAPES)


def printable_line(text: str) -> str:
    """`printable` text on one line, with visible marks for newlines and tabs."""
    return printable(text.translate(_LINE_MARKS))


_LINE_MARKS = str.maketrans("\n\t", "⏎⇥")


class _Escapes(dict[int, str]):
    """What is shown for a code point."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        escaped = character.encode("unicode_escape", "backslashreplace").decode()
        return self.setdefault(code, character if character.isprintable() else escaped)


_ESCAPES = _Escapes({ord("\n"): "\n", ord("\t"): "\t"})


def _redact_link(link: str) -> str:
    """One URL of a chain."""
    scheme, separator, rest = link.partition("://")
    if not separator:
        return link
    has_keys = scheme.lower() in _SCHEMES_OF_KEYS
    rest = _without_user(rest, may_have_port=not has_keys)
    rest = _PARAMETER.sub(lambda match: "" if _is_secret(match[1], "=") else match[0], rest)
    query = _QUERY_OF_SETTINGS if has_keys else re.compile(r"[?#]")
    return scheme + separator + query.split(rest, maxsplit=1)[0]


def _without_user(rest: str, *, may_have_port: bool) -> str:
    """What follows `://`, without user and password.

    A password that is not percent-encoded may contain `/`, `@` and `?`, so it ends at the last `@`. A user alone ends
    at the last `@` before the path, since a path may contain one.
    """
    if _has_password(rest, may_have_port=may_have_port):
        return rest.rpartition("@")[2]
    match = _AUTHORITY.match(rest)
    return rest[match[0].rfind("@") + 1 :] if match else rest


def _has_password(rest: str, *, may_have_port: bool) -> bool:
    user, colon, password = rest.rpartition("@")[0].partition(":")
    if not colon or user.startswith("[") or any(mark in user for mark in "/?#"):
        return False
    return not (may_have_port and _PORT.match(password) and not password.isdecimal())


def _scrub_urls(text: str) -> str:
    shown, end = [], 0
    while match := _SCHEME.search(text, end):
        stop = _end_of_url(text, match.end())
        rest = text[match.end() : stop]
        shown += [text[end : match.start()], redact(f"{match[1]}://{rest}").replace("://", match[2], 1)]
        end = stop
    return "".join([*shown, text[end:]])


def _end_of_url(text: str, start: int) -> int:
    """Where the URL ends whose scheme ends at `start`; a password may contain white space and quotes."""
    end = _end_of_word(text, start)
    if "@" in text[start:end]:
        return end
    line = text[start : start + _MAX_PASSWORD_LENGTH].partition("\n")[0].partition("://")[0]
    user, colon, password = line.rpartition("@")[0].partition(":")
    is_password = colon and password and not password[0].isspace() and not re.search(r"[\s/?#<>]", user)
    if not is_password or re.match(r"\d{1,5}(?:[^\w]|$)", password):
        return end
    return _end_of_word(text, start + len(user) + len(password) + len(":@"))


def _end_of_word(text: str, start: int) -> int:
    match = _WORD.match(text, start)
    return match.end() if match else start


def _mask_settings(text: str) -> str:
    shown, end = [], 0
    for match in _SETTING.finditer(text):
        if match.start() < end or not _is_secret(match[1] or match[3], match[2] or match[4]):
            continue
        if value := _VALUE.match(text, match.end()):
            quote = value[0][0] if value[0][0] in "'\"" else ""
            shown += [text[end : match.end()], quote, _MASK, quote]
            end = value.end()
    return "".join([*shown, text[end:]])


def _is_secret(key: str, equals: str) -> bool:
    """Whether a setting's name says that its value is secret.

    A short word such as `token` says it only before `=` or as a quoted key: "unexpected token: x" is no secret.
    """
    name = re.sub(r"[^a-z0-9]", "", key.lower())
    if _SECRET_WORDS.search(name) or key.endswith("_TOKEN"):
        return True
    is_setting = equals == "=" or equals[0] in "'\"" or key.startswith("--")
    return is_setting and name in _SHORT_SECRET_WORDS
