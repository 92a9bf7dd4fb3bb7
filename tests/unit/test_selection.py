"""The included paths and the deciding rules: precedence, hard rules, defaults and secrets, as tables."""

from __future__ import annotations

from itertools import pairwise

import pytest

from syncd.selection.gitignore import bad_pattern
from syncd.selection.selection import Decision, OuterFile, OuterRules, Rule, Scope, Selection, SelectionSettings

DEFAULT = SelectionSettings()


def scope_of(path: str, files: dict[str, bytes], settings: SelectionSettings = DEFAULT) -> tuple[Scope, str]:
    """Return the scope that decides a path, with the ignore files on the way, and the path's name in it."""
    *above, name = path.split("/")
    scope, here = Selection(settings).root(), ""
    for parent in ["", *above]:
        if parent:
            assert scope.decide(parent, is_dir=True).included, f"{here}{parent} is left out, so nobody asks further"
            scope, here = scope.enter(parent), f"{here}{parent}/"
        own = {file.removeprefix(here): data for file, data in files.items() if file.rpartition("/")[0] == here[:-1]}
        scope = scope.with_files(own)
    return scope, name


def decide(path: str, files: dict[str, bytes] | None = None, settings: SelectionSettings = DEFAULT) -> Decision:
    """Return the decision about a path; one that ends in "/" is a directory."""
    scope, name = scope_of(path.rstrip("/"), files or {}, settings)
    return scope.decide(name, path.endswith("/"))


def included(path: str, settings: SelectionSettings = DEFAULT) -> bool:
    """True if a file and each directory above it are included, without any ignore file."""
    *above, name = path.split("/")
    scope = Selection(settings).root()
    for parent in above:
        if not scope.decide(parent, is_dir=True).included:
            return False
        scope = scope.enter(parent)
    return scope.decide(name, is_dir=False).included


@pytest.mark.parametrize(
    ("path", "files", "expected"),
    [
        ("a.py", {}, None),
        ("a.log", {".gitignore": b"# logs\n\n*.log\n"}, ".gitignore:3: *.log"),
        ("sub/a.log", {"sub/.gitignore": b"*.log\n"}, "sub/.gitignore:1: *.log"),
        ("a.log", {".syncdignore": b"*.log"}, ".syncdignore:1: *.log"),
        ("keep.log", {".gitignore": b"*.log\n!keep.log\n"}, ".gitignore:2: !keep.log"),
        ("build/", {".gitignore": b"/build/   \n"}, ".gitignore:1: /build/"),
        ("caf\u00e9", {".gitignore": "caf\u00e9\n".encode()}, ".gitignore:1: caf\u00e9"),
        ("a.log", {".gitignore": b"\xef\xbb\xbf*.log\n"}, ".gitignore:1: *.log"),
        ("\udcff1", {".gitignore": b"\xff*\n"}, ".gitignore:1: \udcff*"),
        ("node_modules/", {}, "built-in: node_modules/"),
        (".git/", {}, "built-in: .git"),
        (".env", {}, "secrets: .env"),
    ],
)
def test_a_decision_names_its_rule(path: str, files: dict[str, bytes], expected: str | None) -> None:
    """A decision has the rule's file and line, or says that it is built in; without a rule it has none."""
    rule = decide(path, files).rule
    assert (None if rule is None else str(rule)) == expected


def test_a_pattern_of_the_configuration_has_no_line() -> None:
    """The decision names the configuration key."""
    decision = decide("a.tmp", settings=SelectionSettings(ignore=("*.log", "*.tmp")))
    assert decision == Decision(included=False, rule=Rule("workspace.ignore", None, "*.tmp"))
    assert str(decision.rule) == "workspace.ignore: *.tmp"


# From the weakest to the strongest. The pattern is one of the defaults where those take part, and nothing's else.
STRENGTH = [
    "exclude",
    ".gitignore",
    "sub/.gitignore",
    "built-in",
    "workspace.ignore",
    ".syncdignore",
    "sub/.syncdignore",
]
PAIRS = [
    (weak, strong, strong_includes)
    for weak, strong in pairwise(STRENGTH)
    for strong_includes in (True, False)
    # The defaults leave out and never bring back.
    if (weak, strong_includes) != ("built-in", False) and (strong, strong_includes) != ("built-in", True)
]
IGNORE_FILES: list[str] = [".gitignore", ".syncdignore"]


@pytest.mark.parametrize(("weak", "strong", "strong_includes"), PAIRS)
def test_the_stronger_source_wins(weak: str, strong: str, strong_includes: bool) -> None:
    """Deeper files win over shallower ones, and each kind of source over the one below it."""
    name = "node_modules" if "built-in" in (weak, strong) else "thing"
    line = {
        strong: f"!{name}/" if strong_includes else f"{name}/",
        weak: f"{name}/" if strong_includes else f"!{name}/",
    }
    config = (line["workspace.ignore"],) if "workspace.ignore" in line else ()
    exclude = OuterRules(files=(OuterFile("exclude", "", line["exclude"].encode()),) if "exclude" in line else ())
    top = {file: line[file].encode() for file in IGNORE_FILES if file in line}
    deep = {file: line[f"sub/{file}"].encode() for file in IGNORE_FILES if f"sub/{file}" in line}
    scope = Selection(SelectionSettings(ignore=config)).root(exclude).with_files(top).enter("sub").with_files(deep)
    decision = scope.decide(name, is_dir=True)
    assert decision.included == strong_includes
    assert decision.rule is not None
    assert decision.rule.source == strong


def test_a_whitelist_does_not_bring_dependencies_back() -> None:
    """`*`, `!*/`, `!*.py` in .gitignore do not include node_modules; .syncdignore can."""
    whitelist = {".gitignore": b"*\n!*/\n!*.py\n"}
    assert decide("src/a.py", whitelist).included
    assert not decide("src/a.c", whitelist).included
    assert not decide("node_modules/", whitelist).included
    assert decide("node_modules/", whitelist | {".syncdignore": b"!node_modules/\n"}).included
    assert decide("node_modules/", settings=SelectionSettings(ignore=("!node_modules/",))).included


@pytest.mark.parametrize("path", [".git/", ".git", "sub/.git/", ".env", "sub/id_rsa", "server.key"])
def test_no_ignore_file_lifts_a_hard_rule(path: str) -> None:
    """No `!` pattern, in a file or in the configuration, includes .git or a secret."""
    name = path.rstrip("/").rpartition("/")[2].encode()
    lift = b"!*\n!" + name + b"\n"
    files = {f"{where}{file}": lift for where in ("", "sub/") for file in (".gitignore", ".syncdignore")}
    settings = SelectionSettings(ignore=("!*", f"!{name.decode()}"))
    assert not decide(path, files, settings).included


def test_an_exception_to_the_secrets_can_still_be_ignored() -> None:
    """`.env.example` is not a secret, and the other rules decide on it."""
    assert decide(".env.example") == Decision(included=True, rule=None)
    decision = decide(".env.example", {".gitignore": b".env*\n"})
    assert decision == Decision(included=False, rule=Rule(".gitignore", 1, ".env*"))


def test_upload_secrets() -> None:
    """`upload_secrets` removes the secret rules, and the ignore files decide."""
    asked = SelectionSettings(upload_secrets=True)
    assert decide(".env", settings=asked).included
    assert not decide(".env", {".gitignore": b".env\n"}, asked).included


def test_include_git() -> None:
    """With `include_git` neither .gitignore nor the defaults exclude a part of .git; .syncdignore may."""
    asked = SelectionSettings(include_git=True)
    files = {".gitignore": b"logs/\nHEAD\n"}
    assert decide(".git/", files, asked).included
    assert decide(".git/logs/", files, asked).included
    assert decide(".git/refs/heads/node_modules/", files, asked).included
    assert not decide("logs/", files, asked).included
    assert not decide(".git/logs/", {".syncdignore": b"/.git/logs/\n"}, asked).included
    assert not decide(".git/id_rsa", files, asked).included
    assert Selection(asked).root().enter(".git").ignore_files == (".syncdignore",)


def test_use_gitignore() -> None:
    """Without `use_gitignore` neither .gitignore nor git's exclude files count; .syncdignore does."""
    root = Selection(SelectionSettings(use_gitignore=False)).root(
        OuterRules("", (OuterFile(".git/info/exclude", "", b"*.a\n"),))
    )
    assert root.ignore_files == (".syncdignore",)
    scope = root.with_files({".gitignore": b"*.b\n", ".syncdignore": b"*.c\n"})
    assert [scope.decide(name, is_dir=False).included for name in ("x.a", "x.b", "x.c")] == [True, True, False]


def test_a_later_exclude_file_wins() -> None:
    """The repository's exclude file wins over the user's."""
    root = Selection(DEFAULT).root(
        OuterRules("", (OuterFile("~/.config/git/ignore", "", b"*.a\n*.b\n"), OuterFile("exclude", "", b"!x.a\n")))
    )
    assert root.decide("x.a", is_dir=False).included
    assert str(root.decide("x.b", is_dir=False).rule) == "~/.config/git/ignore:2: *.b"


def test_a_scope_is_not_changed_by_its_subscopes() -> None:
    """Sibling directories and the parent do not use each other's ignore files."""
    root = Selection(DEFAULT).root()
    one, two = root.enter("one"), root.enter("two")
    assert not one.with_files({".gitignore": b"*.x\n"}).decide("a.x", is_dir=False).included
    for scope in (root, one, two):
        assert scope.decide("a.x", is_dir=False).included
    assert one.enter("deep").path == "one/deep"
    assert root.enter("\udcff").enter("\u00e9").path == "\udcff/\u00e9"


def test_equal_files_in_two_places_are_told_apart() -> None:
    """They share their parsed patterns, but not the name of the rule."""
    root = Selection(DEFAULT).root()
    for name in ("one", "two"):
        rule = root.enter(name).with_files({".gitignore": b"*.x\n/y\n"}).decide("y", is_dir=False).rule
        assert rule == Rule(f"{name}/.gitignore", 2, "/y")


STAY_HOME = """
    .env deep/er/.env .env.local .env.production .envrc .envrc.local .env.keys
    id_rsa sub/id_ecdsa .ssh/id_ed25519 .ssh/config id_ed25519_sk id_rsa.bak etc/ssh_host_rsa_key
    server.key private.pem cert.p12 cert.pfx CERT.PFX app.jks release.keystore key.ppk pass.kdbx AuthKey_1.p8
    office.ovpn .netrc _netrc .git-credentials .npmrc .pypirc .htpasswd .pgpass .vault-token .gnupg/secring.gpg .my.cnf
    .aws/credentials .aws/config .aws/sso/cache/x.json .docker/config.json sub/.docker/config.json .kube/config
    .config/gcloud/x.db home/.config/gcloud/legacy .azure/accessTokens.json credentials.json client_secret_1.json
    service-account.json my-service-account.json kubeconfig dev.kubeconfig .cargo/credentials.toml .gem/credentials
    .config/gh/hosts.yml
"""

BELONG = """
    environment.yml src/keyboard.py monkey.txt env.py id_rsa.pub credentials_test.go .envrc.md keys/readme.md
    .env.example .env.sample .env.template .env.dist .env.defaults .env.local.example .env.example.local .env.vault
    prod.env server.key.example server.crt ca.cer key.pub cacert.pem ssh_host_rsa_key.pub id_rsa.py
    .aws/task-definition.json .docker/Dockerfile .kube/readme.md .azure/pipelines.yml config.json docker/config.json
    credentials/readme.md src/config/gcloud.py npmrc netrc.py .npmignore .gitattributes .gitignore .syncdignore
    .github/workflows/ci.yml .gitmodules
"""

NOBODY_WANTS = """
    .svn/entries .hg/store .jj/repo CVS/Root node_modules/x/index.js web/node_modules/x .venv/bin/python
    src/__pycache__/a.pyc .mypy_cache/x .pytest_cache/x .ruff_cache/x .tox/py/x .nox/x .hypothesis/x .gradle/x
    .terraform/providers .parcel-cache/x .turbo/x .next/cache/x app/.next/cache/x .direnv/x .ipynb_checkpoints/x
    a.txt~ .#lock #auto# .a.txt.swp a.swo a.swx .DS_Store sub/.DS_Store Thumbs.db ._a .~lock.a.odt# ~$report.docx
    .goutputstream-AB12 a.kate-swp .a.kate-swp .fuse_hidden0001 .nfs00000000000a1b2c00000001
"""

PEOPLE_WANT = """
    build/a dist/a target/a out/a bin/a cache/a a.log a.tmp a.bak a.o a.a vendor/a .idea/a .vscode/a venv/a.py env/a.py
    .venv node_modules CVS .terraform.lock.hcl .next/build-manifest.json 4913 a.orig a.rej lib.egg-info/PKG-INFO
    #a a# ~a .a .swap .nfsd svn/a git/a a.git/b .yarn/cache/a.zip .cargo/config.toml .hypothesis.py
"""


@pytest.mark.parametrize("path", STAY_HOME.split())
def test_secrets_are_excluded(path: str) -> None:
    """Keys, passwords and credential files are excluded by their names."""
    assert not included(path)
    assert included(path, SelectionSettings(upload_secrets=True))


@pytest.mark.parametrize("path", BELONG.split())
def test_names_that_only_look_like_secrets_are_included(path: str) -> None:
    """Examples, public keys and code about credentials are included."""
    assert included(path)


@pytest.mark.parametrize("path", NOBODY_WANTS.split())
def test_builtin_rules(path: str) -> None:
    """Other version control, dependencies, caches and temporary files are excluded."""
    assert not included(path, SelectionSettings(upload_secrets=True))


@pytest.mark.parametrize("path", PEOPLE_WANT.split())
def test_what_people_version_is_included(path: str) -> None:
    """Build results, logs and editor settings are left to the workspace's own ignore files."""
    assert included(path)


BLANK, NOTHING, LINES = "is blank", "names nothing", "must be one line"
COMMENT = r"is a comment; a name that starts with # is written \#"
HINDERED = "can match nothing: a bracket, a backslash at its end or an empty folder name is in the way"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("X", None),
        ("\t", None),
        ("!!", None),
        ("*.log", None),
        ("!node_modules/", None),
        ("/data/", None),
        ("**", None),
        ("\\#x", None),
        ("a\\ ", None),
        ("[]]", None),
        ("", BLANK),
        ("   ", BLANK),
        ("# note", COMMENT),
        ("!", NOTHING),
        ("/", NOTHING),
        ("!/", NOTHING),
        ("a\nb", LINES),
        ("a\0b", LINES),
        ("[a-", HINDERED),
        ("[[:nonsense:]]", HINDERED),
        ("a\\", HINDERED),
        ("a//b", HINDERED),
    ],
)
def test_a_pattern_that_matches_nothing_is_reported(pattern: str, reason: str | None) -> None:
    """Git ignores it silently; in the configuration it is an error."""
    assert bad_pattern(pattern) == reason


def test_a_pattern_of_many_stars_is_quick() -> None:
    """A pattern of many stars does not backtrack."""
    scope = Selection(DEFAULT).root().with_files({".gitignore": b"*a" * 60 + b"*b?\n"})
    assert scope.decide("a" * 250, is_dir=False).included


def test_a_huge_ignore_file_is_indexed() -> None:
    """Ten thousand names, extensions and paths take about as long as a few, and each matches."""
    lines = [f"name{i}\n*.ext{i}\n/dir{i}/x\n**/deep{i}/y\nstart{i}*\n" for i in range(2000)]
    root = Selection(DEFAULT).root().with_files({".gitignore": "".join(lines).encode()})
    for i in (0, 999, 1999):
        for name in (f"name{i}", f"a.ext{i}", f"start{i}a"):
            assert not root.enter("any").decide(name, is_dir=False).included
        assert not root.enter(f"dir{i}").decide("x", is_dir=False).included
        assert not root.enter("any").enter(f"deep{i}").decide("y", is_dir=False).included
        assert root.enter("any").enter(f"dir{i}").decide("x", is_dir=False).included
