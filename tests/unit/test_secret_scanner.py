"""The contents that are secrets, and those that only look like one. All secrets here are generated at run time."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from string import ascii_lowercase, ascii_uppercase, digits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.selection import secret_scanner
from syncd.selection.secret_scanner import SEARCHED_BYTES, SecretForm, SecretSearch, secret_forms
from syncd.selection.selection import PathPatterns

OWN = "klv-" + "9f8e7d6c5b4a39281706"
HEAD = "-----BEGIN {}PRIVATE KEY{}-----"
TAIL = "-----END {}PRIVATE KEY{}-----"


def random_text(length: int, alphabet: str = "") -> str:
    """Return characters that look random but are the same each time, so that this file itself holds no secret."""
    digest = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(length // 24 + 2))
    if alphabet:
        return "".join(alphabet[byte % len(alphabet)] for byte in digest)[:length].ljust(length, alphabet[1])
    return base64.b64encode(digest).decode()[:length]


LETTERS = ascii_uppercase + ascii_lowercase + digits
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def key(kind: str = "", block: str = "", joint: str = "\n", length: int = 64 * 12) -> str:
    """Return a private key as text; `joint` is put between its lines."""
    body = random_text(length)
    lines = [HEAD.format(kind, block), *(body[at : at + 64] for at in range(0, length, 64)), TAIL.format(kind, block)]
    return joint.join(lines) + "\n"


def found(text: str | bytes, path: str = "a.txt", *allowed: str) -> str | None:
    """Return the search's result for a file."""
    content = text.encode() if isinstance(text, str) else text
    secret = SecretSearch(allowed, OWN).in_file(path, memoryview(content))
    return None if secret is None else str(secret)


ID = "AKIA" + random_text(16, UPPER)
AWS = random_text(40, LETTERS)

KEYS = {
    "PKCS #8": key(),
    "Ed25519 in PKCS #8": key(length=64),
    "RSA": key("RSA "),
    "EC": key("EC ", length=164),
    "OpenSSH": key("OPENSSH "),
    "encrypted": key("ENCRYPTED "),
    "legacy encrypted": key("RSA ").replace(
        "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B2C3D4E5F\n\n", 1
    ),
    "PGP": key("PGP ", " BLOCK").replace("BLOCK-----\n", "BLOCK-----\nVersion: GnuPG v2\nComment: mine\n\n", 1),
    "with CRLF": key("RSA ", joint="\r\n"),
    "in JSON": key(joint="\\n"),
    "in JSON in JSON": key(joint="\\\\n"),
    "in YAML": "tls:\n  key: |\n" + key(joint="\n" + 40 * " "),
    "in C": key(joint='\\n"\n  "'),
    "in JavaScript": key(joint="' +\n    '"),
    "in comments": key(joint="\n// "),
    "in XML": key(joint="&#10;"),
    "without its end": key().partition("-----END")[0],
    "a Google service account": '{\n  "type": "service_account",\n  "private_key": "' + key(joint="\\n") + '"\n}',
    "in a kubeconfig": f"client-key-data: {base64.b64encode(key('RSA ').encode()).decode()}\n",
    "in a Kubernetes secret": f"tls.key: {base64.b64encode(key('EC ', length=164).encode()).decode()}\n",
}


def encoded(text: str, width: int = 76, joint: str = "\n") -> str:
    """Return the base64 of a text, in lines."""
    whole = base64.b64encode(text.encode()).decode()
    return joint.join(whole[at : at + width] for at in range(0, len(whole), width))


CERTIFICATE = key().replace("PRIVATE KEY", "CERTIFICATE")
WRAPPED = {
    **{f"in lines of {width}": encoded(key("RSA "), width) for width in (16, 60, 64, 70, 72, 75, 76)},
    "MIME": "Content-Transfer-Encoding: base64\r\n\r\n" + encoded(key("OPENSSH "), joint="\r\n"),
    "folded in YAML": "data:\n  tls.key: >-\n    " + encoded(key(), joint="\n    "),
    "deep in YAML": "key: |\n" + 40 * " " + encoded(key(), joint="\n" + 40 * " "),
    "quoted in YAML": 'key: "' + encoded(key(), joint="\\\n  ") + '"',
    "in JSON": '{"key": "' + encoded(key(length=64), joint="\\n") + '"}',
    "in JSON with CRLF": '{"key": "' + encoded(key(), joint="\\r\\n") + '"}',
    "in XML": "<data>\n\t" + encoded(key("EC ", length=164), joint="\n\t") + "\n</data>",
    "in Python": "KEY = ('" + encoded(key(), joint="'\n       '") + "')",
    "in comments": "# " + encoded(key(length=64), 64, "\n# "),
    "a small one": encoded(key(length=64), 64),
    "a small one without its end": encoded(key(length=64).partition("-----END")[0], 64),
    "legacy encrypted": encoded(KEYS["legacy encrypted"]),
    "PGP": encoded(KEYS["PGP"], 64),
    **{f"after {count} characters": encoded("x" * count + "\n" + key("RSA ")) for count in range(60, 140)},
    **{f"after a certificate, {width}": encoded(CERTIFICATE + key(), width) for width in (64, 72, 76)},
}


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_private_keys_in_base64(text: str) -> None:
    """The base64 of a PEM file is found however it is wrapped, indented and quoted, and whatever is before the key."""
    assert str(found(f"first line\n{text}\nlast-line: more\n")).startswith("a private key in base64 in line ")


@pytest.mark.parametrize("text", KEYS.values(), ids=KEYS)
def test_private_keys(text: str) -> None:
    """A private key is found in each format and in each kind of file."""
    result = found(text)
    assert result is not None
    assert re.fullmatch(r"a private key( in base64)? in line [123]", result)
    assert found("import x\n" * 500 + text) is not None


# As they are in files; the forms of all others are tried by the table's examples.
TOKENS = {
    "an AWS access key with its secret": f"[default]\naws_access_key_id = {ID}\naws_secret_access_key = {AWS}\n",
    "a GitHub token": f"token: ghp_{random_text(36, LETTERS)}",
    "a PuTTY private key": f"PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n{random_text(48)}\n",
    "an age secret key": f"# created\nAGE-SECRET-KEY-1{random_text(58, UPPER)}",
    "syncd's own API key": f"export KLAVIS_API_KEY={OWN}",
}


@pytest.mark.parametrize("what", TOKENS)
def test_tokens(what: str) -> None:
    """A token of a known format is found with its kind and line; its value is not shown."""
    result = found("first\nsecond " + TOKENS[what])
    assert result.startswith(f"{what} in line ")
    assert not any(part in result for part in TOKENS[what].split() if len(part) > 12)


HARMLESS = {
    "a public key": key().replace("PRIVATE", "PUBLIC"),
    "a certificate": key().replace("PRIVATE KEY", "CERTIFICATE"),
    "a program that looks for keys": f'if line.startswith("{HEAD.format("RSA ", "")}"):\n    raise ValueError(line)\n',
    "an excerpt": f"{HEAD.format('RSA ', '')}\n{random_text(64)}\n...\n{TAIL.format('RSA ', '')}\n",
    "an excerpt with a dot of its own": f"{HEAD.format('', '')}\n{random_text(64)}…\n",
    "a placeholder for a key": f"{HEAD.format('', '')}\n<your key here>\n{TAIL.format('', '')}\n",
    "a key of one letter": f"{HEAD.format('', '')}\n{64 * 'A'}\n{64 * 'A'}\n{TAIL.format('', '')}\n",
    "a key that says it is an example": key().replace(random_text(64), "EXAMPLE" + random_text(57)),
    "an access key id alone": f"aws s3 ls --profile x # {ID}\n",
    "an access key id and a commit": f"{ID} {hashlib.sha1(b'').hexdigest()}",
    "Amazon's own example": "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "an example of an id": f"AKIAIOSFODNN7EXAMPLE {AWS}",
    "an id and a secret far apart": f"{ID}\n{2000 * 'x '}{AWS}",
    "a GitHub placeholder": "ghp_" + 36 * "x" + " ghp_YourPersonalAccessTokenGoesRightHereOK12",
    "a counted-up token": "ghp_0123456789abcdefghij0123456789abcdefghij",
    "too short for a token": (
        f"ghp_{random_text(20, LETTERS)} glpat-{random_text(8, LETTERS)} sk_live_abc npm_config_registry"
    ),
    "a Stripe test key": f"sk_test_{random_text(24, LETTERS)}",
    "a variable in place of a token": "//registry.local/:_authToken=${NPM_TOKEN}\n_authToken: process.env.TOKEN_12\n",
    "a word that goes on": f"xghp_{random_text(36, LETTERS)}",
    "a certificate in base64": base64.b64encode(key().replace("PRIVATE KEY", "CERTIFICATE").encode()).decode(),
    "a certificate in lines of base64": base64.encodebytes(
        key().replace("PRIVATE KEY", "CERTIFICATE").encode()
    ).decode(),
    "a program in base64": base64.encodebytes(f"if '{HEAD.format('', '')}' in text:\n    return\n".encode()).decode(),
    "nothing": "",
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_text_that_only_looks_like_a_secret(text: str) -> None:
    """Public keys, documentation, placeholders and programs about keys are not secrets."""
    assert found(text) is None


def test_only_the_own_key_is_found_in_data() -> None:
    """Only text is searched; syncd's own key is found in data too."""
    assert found(b"\x7fELF\0" + key().encode()) is None
    for before in ("", TOKENS["a GitHub token"]):
        assert found(b"\x7fELF\0" + before.encode() + OWN.encode()) == "syncd's own API key in line 1"


def test_a_placeholder_does_not_hide_a_token() -> None:
    """The text after a placeholder, an excerpt or a bare id is searched as well."""
    for harmless in HARMLESS.values():
        assert (
            found(f"{harmless}\n{40 * 'z '}\n{key('RSA ')}") == f"a private key in line {harmless.count(chr(10)) + 3}"
        )


def test_without_vector_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old processor, on which the fast search of words would end the process, finds the same secrets."""
    examples = [_filled(form.example) for form in FORMS]
    texts = [*KEYS.values(), *TOKENS.values(), *HARMLESS.values(), *examples, "\n".join(TOKENS.values())]
    fast = [found(text) for text in texts]
    monkeypatch.setattr(secret_scanner, "BlockDatabase", None)
    monkeypatch.setattr(secret_scanner, "hardware_based", False)
    assert [found(text) for text in texts] == fast


def test_short_own_keys() -> None:
    """A key so short that files may hold it for other reasons is not searched for."""
    assert SecretSearch((), "short").in_file("a", b"a short story") is None
    for length, is_found in ((15, False), (16, True)):
        own = random_text(length, LETTERS)
        assert (SecretSearch((), own).in_file("a", f"a {own}".encode()) is not None) is is_found
    assert SecretSearch((), "").in_file("a", b"") is None


@pytest.mark.parametrize("pattern", ["tests/fixtures/*.txt", "/tests/", "fixtures/", "k.txt", "fixtures", "**/k.*"])
def test_allowed_paths(pattern: str) -> None:
    """A pattern that matches the file or a folder above it allows it, and no other."""
    assert found(key(), "tests/fixtures/k.txt", pattern) is None
    assert found(key(), "src/other.txt", pattern) is not None
    assert ("tests/fixtures/k.txt" in PathPatterns([pattern])) is True


def test_patterns_that_do_not_match() -> None:
    """An anchored pattern stays anchored for everything below its folder; names match by their bytes."""
    for pattern in ("/fixtures/", "tests/*.txt", "fixtures/a/", "k.txt/"):
        assert "tests/fixtures/k.txt" not in PathPatterns([pattern])
    assert "é/\udcff.txt" in PathPatterns(["é/"])


def test_digest() -> None:
    """Searches that may find different secrets have different identities; the own key does not count."""
    assert SecretSearch((), OWN).digest == SecretSearch().digest
    patterns = [[], ["a"], ["\udcff"], ["\udcfe"]]
    assert len({SecretSearch(each).digest for each in patterns}) == 4
    assert OWN not in SecretSearch((), OWN).digest


@pytest.mark.timeout(30)  # many minutes where it grows with the square of the length
@pytest.mark.parametrize("size_bytes", [SEARCHED_BYTES // 8, pytest.param(SEARCHED_BYTES, marks=pytest.mark.long)])
def test_the_worst_files_are_quick(size_bytes: int) -> None:
    """A large file, full of beginnings of secrets, is searched within the test's time-out."""
    for unit in ("npm_", "PRIVATE KEY", "AKIA", "-----BEGIN PRIVATE KEY-----\n", "xoxb-1", "7Q~", "+ASt", f"{ID} "):
        assert SecretSearch().in_file("a", (unit * (size_bytes // len(unit))).encode()) is None


PIECES = [anchor.encode() for form in secret_forms() for anchor in form.anchors]
PIECES += [
    b"-----BEGIN ",
    b"-----",
    b"\n",
    b"\\n",
    b": ",
    b"\0",
    b"=",
    random_text(70).encode(),
    b"A" * 70,
    b"\xff",
    OWN.encode(),
]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=30))
def test_any_bytes(pieces: list[bytes]) -> None:
    """For any content the search returns a valid line or None, and always finds its own key."""
    content = b"".join(pieces)
    secret = SecretSearch((), OWN).in_file("a", content)
    if secret is not None:
        assert 1 <= secret.line <= content.count(b"\n") + 1
    else:
        assert OWN.encode() not in content


@pytest.mark.parametrize(("kinds", "is_found"), [(9, False), (10, True)])
def test_how_many_kinds_of_characters_make_a_token(kinds: int, *, is_found: bool) -> None:
    """Fewer are a placeholder."""
    value = (LETTERS[::-2][:kinds] * 36)[:36]
    assert (found(f"token: ghp_{value}") is not None) is is_found


@pytest.mark.parametrize(
    ("lines", "after", "is_found"),
    [
        ([random_text(60)], "", True),
        ([random_text(59)], "", False),
        ([random_text(19)] * 3, "", False),
        ([random_text(200, LETTERS)], "...", True),
        ([random_text(199, LETTERS)], "...", False),
        (["ABCDEFGHIJKLMNOP" * 4], "", True),
        (["ABCDEFGHIJKLMNO" * 4], "", False),
    ],
)
def test_how_long_a_key_is(lines: list[str], after: str, *, is_found: bool) -> None:
    """The shortest one has 64 characters of many kinds; a longer one counts though dots follow it."""
    text = "\n".join([HEAD.format("", ""), *lines]) + after
    assert (found(text) is not None) is is_found


@pytest.mark.parametrize("sizes", [(10, 10), (1, 1), (100, 3), (3, 100), (49 + len(OWN), 1)])
def test_a_key_in_pieces(sizes: tuple[int, int]) -> None:
    """It is found where its end is, however the file is cut; the next file begins anew."""
    search = SecretSearch(("allowed",), OWN, "klv-" + "0123456789abcdef" * 2)
    content = f"{'x' * 50}{OWN}{'y' * 50}".encode()
    first, rest = sizes
    pieces = [content[:first], *(content[at : at + rest] for at in range(first, len(content), rest))]
    in_file = search.in_pieces("a")
    found = [in_file(piece) is not None for piece in pieces]
    read = 0
    for piece, is_found in zip(pieces, found, strict=True):
        read += len(piece)
        if read >= 50 + len(OWN):
            assert is_found
            break
        assert not is_found
    assert search.in_pieces("a")(content) == ("syncd's own API key", 0)
    alone = SecretSearch((), OWN).in_pieces("a")
    assert [alone(piece.encode()) is not None for piece in (OWN[:-1], OWN[-1])] == [False, True]
    assert search.in_pieces("a")(content[: 49 + len(OWN)]) is None
    assert search.in_pieces("allowed")(content) is None


# -- the forms of the table


_KINDS: dict[str, Callable[[int], str]] = {
    "": partial(random_text, alphabet=LETTERS),
    " hex": partial(random_text, alphabet="0123456789abcdef"),
    " upper": partial(random_text, alphabet=UPPER),
    " digits": partial(random_text, alphabet=digits),
    " base64": random_text,
    " base64 of base64": lambda length: base64.b64encode(f"\n{random_text(length)}\n\n".encode()).decode(),
}
_GAP = re.compile(r"\{(\d+)( [a-z0-9 ]+)?\}")
FORMS = secret_forms()
NAMES = [f"{form.name} {form.anchors[0]}" for form in FORMS]


def _filled(example: str) -> str:
    return _GAP.sub(lambda gap: _KINDS[gap[2] or ""](int(gap[1])), example)


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_an_example_isfound(form: SecretForm) -> None:
    """In a file of its own, and in a line among others, with each of the words by which it is found."""
    assert any(anchor in form.example for anchor in form.anchors)
    texts = [form.example]
    if form.check == "random" and form.anchors[0] in form.example:
        texts += [form.example.replace(form.anchors[0], anchor) for anchor in form.anchors]
    for text in map(_filled, texts):
        for line in ("{}", "KEY={}\n", "first\nkey: '{}'\nmore\n", '{{"key":"{}"}}', "https://me:{}@host/"):
            result = str(found(line.format(text)))
            assert re.fullmatch(rf"{re.escape(form.name)} in line \d", result), (text, line)


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_near_miss_is_none(form: SecretForm) -> None:
    """One character less, all characters the same, or a word of the documentation, is no secret."""
    *_, last = _GAP.finditer(form.example)
    shorter = f"{form.example[: last.start()]}{{{int(last[1]) - 1}{last[2] or ''}}}{form.example[last.end() :]}"
    assert found(f"key: '{_filled(shorter)}'\n") is None
    for word in ("x", "a", "0", "EXAMPLE", "your-key-", "..."):
        same = _GAP.sub(lambda gap, word=word: (word * int(gap[1]))[: int(gap[1])], form.example)  # type: ignore[misc]
        assert found(f"key: '{same}'\n") is None, same


def test_anchors_are_long() -> None:
    """Each has three characters at least, or the search would be slow."""
    assert [anchor for form in FORMS for anchor in form.anchors if len(anchor) < 3] == []


def test_the_base64_of_a_header() -> None:
    """The table has all the forms that a header may take, and words by which each is found."""
    (form,) = (form for form in FORMS if form.check == "key in base64")
    forms = [text.decode() for text in secret_scanner._PEM_IN_BASE64]
    assert form.pattern.split("|") == forms
    assert all(text.startswith(anchor) for text, anchor in zip(forms, form.anchors, strict=True))


def test_the_rule_of_a_secret() -> None:
    """It excludes the file as a rule of the secrets does."""
    secret = SecretSearch((), OWN).in_file("a.txt", memoryview(f"\n{ID}:{AWS}\n".encode()))
    assert secret is not None
    assert str(secret.rule) == f"secrets: {secret}"
