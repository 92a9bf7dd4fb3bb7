"""Makes text fit to be shown to strangers: what is not known to be harmless becomes a pseudonym.

A list of what is secret is never complete, so it goes the other way round: words that syncd's own sources have, numbers
and times stay; all else, and everything in quotes, is replaced. The same text has the same pseudonym all through one
disguise. A private name that is a plain word of syncd's own (a file called `status`) can only be told from that word
where it is quoted, part of a path, or named as private.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

# An opening quote that none closes hides the rest: the text was cut short.
_QUOTED = re.compile(r"""(?<!\w)b?(?:'(?:\\.|[^'\\])*'(?!\w)|"(?:\\.|[^"\\])*"(?!\w)|['"].*$)""", re.DOTALL)
_IN_QUOTES = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
# Where syncd's own messages have a path without quotes, what comes before it and after it.
_BARE = (
    re.compile(r"([0-9] (?:new|changed|gone) \()(.*?)(?=(?:, …)?\)(?:$|; an |, [0-9]+ (?:changed|gone) \()|$)"),
    re.compile(r"(\b(?:mended|resolved): )(.+)$"),
    re.compile(r"(\(first: )(.*?)(?=\): |$)"),
    re.compile(r"(^|\]: )((?:(?!\]: ).)+?)(?= (?:and [0-9]+ more )?cannot be watched and is polled)"),
    re.compile(r"(\bchmod \S+ )(.+)$"),
)
# Where its records have one.
_PATHS = frozenset({"first_added", "first_changed", "first_removed"})
_TOKEN = re.compile(r"^([\[({<`'\"]*)(.*?)([\])}>`'\".,;:!?…]*)$", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+(?:'s)?")
_ASSIGNED = re.compile(r"([A-Za-z][A-Za-z_.-]*)=(.*)", re.DOTALL)
_HARMLESS = re.compile(
    r"[+-]?[0-9][0-9,]{0,12}(?:\.[0-9]{1,6})?(?:%|s|ms|B|K|M|G|KiB|MiB|GiB|min|h|d|x)?"  # a number
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
    r"|[0-9]{1,3}/[A-Z_]{1,20}"  # systemd's `status=78/CONFIG`
    r"|(?:syncd|systemd|python3?)\[[0-9]{1,9}\]?"  # who wrote a line of the journal
    r"|[!-/:-@\[-`{-~—…·→]{1,3}"  # a dash between words
)
_LEAST = 4
_LONGEST = 4000
_LONGEST_JSON_DEPTH = 16


class Anonymizer:
    """One report's pseudonyms. `words` and `phrases` may be shown; `private` texts never, whatever is in `words`.

    `words` are lower case; `phrases` are shown exactly so, between blanks. `private` maps a text to what stands for it:
    the words in it are hidden everywhere. `names` are hidden only where they stand as a whole.
    """

    def __init__(
        self, words: Collection[str], phrases: Collection[str], private: Mapping[str, str], names: Collection[str] = ()
    ) -> None:
        hidden = {piece for text in private if text.strip() for piece in _pieces(text)}
        self._private = dict.fromkeys(names, "<file>")
        self._private |= {text: label for text, label in private.items() if text.strip()}
        self._words = frozenset(words) - hidden
        shown = (phrase for phrase in phrases if hidden.isdisjoint(_words_in(phrase))) if hidden else phrases
        self._phrases = frozenset(shown)
        longest_first = sorted(self._private, key=len, reverse=True)
        self._names = re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in longest_first) or r"(?!)")
        self._given: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many different texts of each kind were replaced."""
        return dict(self._counts)

    def text(self, text: str) -> str:
        """The text with pseudonyms in it; of a very long one, the beginning."""
        if len(text) > _LONGEST:
            return self.text(text[:_LONGEST]) + "…"
        for bare in _BARE:
            text = bare.sub(lambda found: f"{found[1]}{_in_quotes(found[2])}", text)
        shown, end = [], 0
        for quoted in _QUOTED.finditer(text):
            shown.append(self._open(text[end : quoted.start()]))
            shown.append(self.name(quoted[0].removeprefix("b").strip("'\"")))
            end = quoted.end()
        return "".join([*shown, self._open(text[end:])])

    def name(self, text: str) -> str:
        """A pseudonym for the whole text, whatever it is."""
        if text in self._private:
            return self._private[text]
        if text not in self._given:
            kind = "url" if "://" in text else "path" if "/" in text else "name"
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._given[text] = f"<{kind}-{self._counts[kind]}>"
        return self._given[text]

    def value(self, value: Any, depth: int = 0) -> Any:
        """A decoded JSON value, the texts in it disguised, names of fields too."""
        if depth > _LONGEST_JSON_DEPTH:
            return "…"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self.name(inner)
                if key in _PATHS and isinstance(inner, str)
                else self.value(inner, depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(inner, depth + 1) for inner in value]
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))

    def _open(self, text: str) -> str:
        """Text outside of quotes."""
        shown, end = [], 0
        for found in self._names.finditer(text):
            shown += [self._tokens(text[end : found.start()]), self._private[found[0]]]
            end = found.end()
        return "".join([*shown, self._tokens(text[end:])])

    def _tokens(self, text: str) -> str:
        return "".join(piece if not piece.strip() else self._token(piece) for piece in re.split(r"(\s+)", text))

    def _token(self, token: str) -> str:
        if token in self._phrases:
            return token
        components = _TOKEN.match(token)
        before, core, after = components.groups() if components else ("", token, "")
        if not core or self._is_harmless(core):
            return token
        assigned = _ASSIGNED.fullmatch(core)
        if assigned and assigned[1].lower() in self._words:
            return f"{before}{assigned[1]}={self._open(assigned[2])}{after}"
        return f"{before}{self.name(core)}{after}"

    def _is_harmless(self, core: str) -> bool:
        if core in self._phrases or _HARMLESS.fullmatch(core):
            return True
        return _WORD.fullmatch(core) is not None and core.removesuffix("'s").lower() in self._words


def words_and_phrases(texts: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What a disguise may show, from texts that anyone may read."""
    words: set[str] = set()
    phrases: set[str] = set()
    for text in texts:
        words.update(found.lower() for found in re.findall(r"[A-Za-z]+", text))
        for token in text.split():
            components = _TOKEN.match(token)
            phrases.add(components[2] if components else token)
    return frozenset(words), frozenset(phrases)


def _in_quotes(name: str) -> str:
    if _IN_QUOTES.fullmatch(name):
        return name
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _pieces(text: str) -> set[str]:
    """The words of a private text by which it could be known."""
    found = {word for word in _words_in(text) if len(word) >= _LEAST}
    return (found | {text.lower()}) - {"syncd", "home"}


def _words_in(text: str) -> set[str]:
    return {text.lower(), *(word.lower() for word in re.findall(r"[^\W\d_]+", text))}
