"""The selection's decisions: precedence, hard rules, defaults and secrets, as tables."""

from __future__ import annotations

from itertools import pairwise

import pytest

from syncd.selection.gitignore import bad_pattern
from syncd.selection.selection import (
    Decision,
    OuterFile,
    OuterRules,
    PathPatterns,
    Rule,
    Selection,
    expand_folders,
    pattern_list,
)

DEFAULT = Selection()


@pytest.fixture(autouse=True)
def parsed_anew() -> None:
    """Have each test parse its patterns itself."""
    pattern_list.cache_clear()


def decide(
    path: str, files: dict[str, bytes] | None = None, selection: Selection = DEFAULT, outer: OuterRules | None = None
) -> Decision:
    """Return the decision about a path, with the ignore files above it; one that ends in "/" is a directory."""
    *above, name = path.rstrip("/").split("/")
    scope, here = selection.root(outer or OuterRules()), ""
    for parent in ["", *above]:
        if parent:
            assert scope.decide(parent, is_dir=True).included, f"{here}{parent} is left out, so the walk ends there"
            scope, here = scope.enter(parent), f"{here}{parent}/"
        found = (files or {}).items()
        own = {file.removeprefix(here): data for file, data in found if file.rpartition("/")[0] == here[:-1]}
        scope = scope.with_files(own)
    return scope.decide(name, path.endswith("/"))


def included(path: str, selection: Selection = DEFAULT) -> bool:
    """True if a file and each directory above it are included without any ignore file."""
    *above, name = path.split("/")
    scope = selection.root()
    for parent in above:
        if not scope.decide(parent, is_dir=True).included:
            return False
        scope = scope.enter(parent)
    return scope.decide(name, is_dir=False).included


@pytest.mark.parametrize(
    ("path", "files", "expected"),
    [
        ("a.py", {}, None),
        ("a.tmp", {}, "workspace.ignore: *.tmp"),
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
    """The rule is shown with its file and line, or as built in; there is none if no rule matches."""
    rule = decide(path, files, Selection(ignore=("*.tmp",))).rule
    assert (None if rule is None else str(rule)) == expected


# From the weakest to the strongest. The pattern is one of the defaults where they take part, else no built-in one.
PRECEDENCE = [
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
    for weak, strong in pairwise(PRECEDENCE)
    for strong_includes in (True, False)
    # The defaults only exclude.
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
    scope = Selection(ignore=config).root(exclude).with_files(top).enter("sub").with_files(deep)
    decision = scope.decide(name, is_dir=True)
    assert decision.included == strong_includes
    assert decision.rule.source == strong


@pytest.mark.parametrize(
    ("path", "included", "by"),
    [
        ("a.log", True, ".worktreeinclude:1"),
        ("sub/a.log", True, ".worktreeinclude:1"),
        ("data/", True, ".worktreeinclude:2"),
        ("data/d/x", True, None),
        ("sub/deep.log", False, "sub/.gitignore:1"),
        ("own.tmp", True, ".worktreeinclude:6"),
        ("not.log", False, ".gitignore:1"),
        ("a.py", True, None),
        ("keep.log", True, ".gitignore:2"),
        ("never.log", False, ".syncdignore:1"),
        ("configured.log", False, "workspace.ignore"),
        ("node_modules/", False, "built-in"),
        (".git/", False, "built-in"),
        (".env", False, "secrets"),
        ("key.PEM", False, "secrets"),
        ("sub/b.txt", False, "sub/.gitignore:2"),
    ],
)
def test_what_worktreeinclude_brings_in(path: str, included: bool, by: str | None) -> None:
    """What git's rules alone exclude, and it names at the top; nothing else is included more, or for its sake."""
    files = {
        ".gitignore": b"*.log\n!keep.log\ndata/\n.env\n*.pem\n*.PEM\n",
        ".worktreeinclude": b"*.log\ndata/\n!not.log\n!deep.log\n*.py\n*.tmp\n.env\n*.pem\n*.PEM\n"
        b"node_modules/\n.git/\n",
        ".syncdignore": b"never.log\n",
        "sub/.gitignore": b"deep.log\nb.txt\n",
        "sub/.worktreeinclude": b"b.txt\n",
    }
    outer = OuterRules(files=(OuterFile("exclude", "", b"*.tmp\n"),))
    decision = decide(path, files, Selection(ignore=("configured.log",)), outer)
    assert decision.included is included
    assert (by is None) is (decision.rule is None)
    assert by is None or str(decision.rule).startswith(by)


def test_a_whitelist_does_not_include_dependencies() -> None:
    """With `*`, `!*/`, `!*.py` in .gitignore, node_modules stays excluded; the user's own file can include it."""
    whitelist = {".gitignore": b"*\n!*/\n!*.py\n"}
    assert decide("src/a.py", whitelist).included
    assert not decide("src/a.c", whitelist).included
    assert not decide("node_modules/", whitelist).included
    assert decide("node_modules/", whitelist | {".syncdignore": b"!node_modules/\n"}).included
    assert decide("node_modules/", selection=Selection(ignore=("!node_modules/",))).included


@pytest.mark.parametrize("path", [".git/", ".git", "sub/.git/", ".env", "sub/id_rsa", "server.key"])
def test_no_ignore_file_lifts_a_hard_rule(path: str) -> None:
    """A `!` in a file or in the configuration does not include .git or a secret."""
    name = path.rstrip("/").rpartition("/")[2].encode()
    lift = b"!*\n!" + name + b"\n"
    files = {f"{where}{file}": lift for where in ("", "sub/") for file in (".gitignore", ".syncdignore")}
    selection = Selection(ignore=("!*", f"!{name.decode()}"))
    assert not decide(path, files, selection).included


@pytest.mark.parametrize(
    "path",
    [
        ".ENV",
        "Sub/.Aws/Credentials",
        "k.Pem",
        ".SSH/",
        "serviceAccountKey.json",
        ".azure/accessTokens.json",
        "Deep/er/.Docker/Config.Json",
        "caf\u00c9.Key",
    ],
)
def test_secrets_are_compared_without_case(path: str) -> None:
    """In any letter case, a secret's name is one, whatever an ignore file says."""
    lift = {".syncdignore": b"!*\n"}
    assert decide(path, lift).rule.source == "secrets"
    assert decide(path, selection=Selection(upload_secrets=True)).included


@pytest.mark.parametrize(
    "path", [".ENV.EXAMPLE", "CACERT.PEM", "Server.Pub.PEM", "README.md", "Keys/a.txt", "A.Pem.txt"]
)
def test_exceptions_are_compared_without_case(path: str) -> None:
    """What is no secret in lower case is none in capitals, and the other rules decide."""
    assert decide(path).included
    assert not decide(path, {".gitignore": path.encode()}).included


def test_allowed_secrets_have_their_own_case() -> None:
    """A secret is allowed by its name as it is written."""
    asked = Selection(allow_secrets=("Certs/K.Pem",))
    assert decide("Certs/K.Pem", selection=asked).included
    assert not decide("Certs/L.Pem", selection=asked).included
    assert not decide("certs/k.pem", selection=asked).included


def test_an_exception_to_the_secrets_is_judged_where_it_is_and_as_what_it_is() -> None:
    """The other rules decide as about any path: by its folder, and by whether it is one itself."""
    asked = Selection(allow_secrets=("id_rsa",))
    folders = {"sub/.gitignore": b"id_rsa/\n"}
    assert decide("sub/id_rsa", folders, asked).included
    assert not decide("sub/id_rsa/", folders, asked).included
    anchored = {".gitignore": b"/sub/id_rsa\n"}
    assert not decide("sub/id_rsa", anchored, asked).included
    assert decide("id_rsa", anchored, asked).included


def test_secrets_are_uploaded_only_if_configured() -> None:
    """`upload_secrets` removes the secrets' rules, and the ignore files decide."""
    asked = Selection(upload_secrets=True)
    assert decide(".env", selection=asked).included
    assert not decide(".env", {".gitignore": b".env\n"}, asked).included


def test_a_repository_is_complete_if_configured() -> None:
    """With `include_git` neither .gitignore nor the defaults exclude paths of the repository; .syncdignore may."""
    asked = Selection(include_git=True)
    files = {".gitignore": b"logs/\nHEAD\n"}
    assert decide(".git/", files, asked).included
    assert decide(".git/logs/", files, asked).included
    assert decide(".git/refs/heads/node_modules/", files, asked).included
    assert not decide("logs/", files, asked).included
    assert not decide(".git/logs/", {".syncdignore": b"/.git/logs/\n"}, asked).included
    assert not decide(".git/id_rsa", files, asked).included
    assert asked.root().enter(".git").ignore_files == (".syncdignore",)


def test_gitignore_can_be_disabled() -> None:
    """Without `use_gitignore`, neither .gitignore nor git's exclude files apply; .syncdignore does."""
    root = Selection(use_gitignore=False).root(OuterRules("", (OuterFile(".git/info/exclude", "", b"*.a\n"),)))
    assert root.ignore_files == (".syncdignore",)
    scope = root.with_files({".gitignore": b"*.b\n", ".syncdignore": b"*.c\n"})
    assert [scope.decide(name, is_dir=False).included for name in ("x.a", "x.b", "x.c")] == [True, True, False]


@pytest.mark.parametrize("repository", ["", "a/b"])
@pytest.mark.parametrize("name", ["key", "k*y", "!k?[a] #1", "tail  ", "back\\slash", "new\nline\r", "caf\u00e9\udce9"])
def test_own_files(name: str, repository: str) -> None:
    """They are left out by their exact path, whatever includes them again, and nothing beside them is."""
    selection = Selection(include_git=True, upload_secrets=True, use_gitignore=bool(repository))
    root = selection.root(OuterRules(repository, (), (f"d/{name}", ".git/key")))
    folder = root.with_files({".syncdignore": b"!*\n"}).enter("d").with_files({".syncdignore": b"!*\n"})
    left_out = folder.decide(name, is_dir=False)
    assert not left_out.included
    assert str(left_out.rule).startswith("syncd's own files: /d/")
    for other in ("kxy", f"{name}x", name[:-1]):
        assert folder.decide(other, is_dir=False).included
    assert not Selection().root(OuterRules(own_paths=("key",))).decide("node_modules", is_dir=True).included
    assert root.decide(name, is_dir=False).included
    assert not root.enter(".git").decide("key", is_dir=False).included


def test_scopes_are_immutable() -> None:
    """Siblings and the parent directory are not affected by a directory's ignore files."""
    root = DEFAULT.root()
    one, two = root.enter("one"), root.enter("two")
    assert not one.with_files({".gitignore": b"*.x\n"}).decide("a.x", is_dir=False).included
    for scope in (root, one, two):
        assert scope.decide("a.x", is_dir=False).included


@pytest.mark.parametrize("first_is_dir", [True, False])
def test_files_and_folders_of_one_name_are_told_apart(first_is_dir: bool) -> None:
    """`build/` is about folders alone, whichever of the two a scope was asked about before."""
    scope = DEFAULT.root().with_files({".gitignore": b"build/\n"})
    for is_dir in (first_is_dir, not first_is_dir, first_is_dir):
        assert scope.decide("build", is_dir).included is not is_dir


def test_equal_files_in_two_directories_have_their_own_rules() -> None:
    """They share their compiled patterns, not the names of their rules."""
    root = DEFAULT.root()
    for name in ("one", "two"):
        rule = root.enter(name).with_files({".gitignore": b"*.x\n/y\n"}).decide("y", is_dir=False).rule
        assert rule == Rule(f"{name}/.gitignore", 2, "/y")


SECRET_NAMES = """
    .env deep/er/.env .env.local .env.production .envrc .envrc.local .env.keys
    id_rsa sub/id_ecdsa .ssh/id_ed25519 .ssh/config id_ed25519_sk id_rsa.bak etc/ssh_host_rsa_key
    server.key private.pem cert.p12 cert.pfx CERT.PFX app.jks release.keystore key.ppk pass.kdbx AuthKey_1.p8
    office.ovpn .netrc _netrc .git-credentials .npmrc .pypirc .htpasswd .pgpass .vault-token .gnupg/secring.gpg .my.cnf
    .aws/credentials .aws/config .aws/sso/cache/x.json .docker/config.json sub/.docker/config.json .kube/config
    .config/gcloud/x.db home/.config/gcloud/legacy .azure/accessTokens.json credentials.json client_secret_1.json
    service-account.json my-service-account.json kubeconfig dev.kubeconfig .cargo/credentials.toml .gem/credentials
    .config/gh/hosts.yml
    .dev.vars sub/.dev.vars .dev.vars.staging .env-prod .env_backup terraform.tfstate.1700000000.backup .sentryclirc
    .claude/.credentials.json .codex/auth.json .gemini/oauth_creds.json .huggingface/token .cache/huggingface/token
    kaggle.json .kaggle/kaggle.json .dockerconfigjson .snowsql/config .oci/config .bash_history .zsh_history
    .python_history .psql_history fish_history .histfile
"""

HARMLESS_NAMES = """
    environment.yml src/keyboard.py monkey.txt env.py id_rsa.pub credentials_test.go .envrc.md keys/readme.md
    .env.example .env.sample .env.template .env.dist .env.defaults .env.local.example .env.example.local .env.vault
    prod.env server.key.example server.crt ca.cer key.pub cacert.pem ssh_host_rsa_key.pub id_rsa.py
    .aws/task-definition.json .docker/Dockerfile .kube/readme.md .azure/pipelines.yml config.json docker/config.json
    credentials/readme.md src/config/gcloud.py npmrc netrc.py .npmignore .gitattributes .gitignore .syncdignore
    .github/workflows/ci.yml .gitmodules
    .dev.vars.example dev.vars.md .env-example .env_sample environment.yml envelope-1.txt history.md bash_history
    .claude/settings.json .claude/commands/review.md .codex/config.toml docs/kaggle.md tokenizer.json src/token.py
    huggingface/token src/credentials.py .history/a.txt
"""

DEFAULT_EXCLUDED = """
    .svn/entries .hg/store .jj/repo CVS/Root node_modules/x/index.js web/node_modules/x .venv/bin/python
    src/__pycache__/a.pyc .mypy_cache/x .pytest_cache/x .ruff_cache/x .tox/py/x .nox/x .hypothesis/x .gradle/x
    .terraform/providers .parcel-cache/x .turbo/x .next/cache/x app/.next/cache/x .direnv/x .ipynb_checkpoints/x
    a.txt~ .#lock #auto# .a.txt.swp a.swo a.swx .DS_Store sub/.DS_Store Thumbs.db ._a .~lock.a.odt# ~$report.docx
    .syncd-0123456789ab-7 .goutputstream-AB12 a.kate-swp .a.kate-swp .fuse_hidden0001 .nfs00000000000a1b2c00000001
"""

DEFAULT_INCLUDED = """
    build/a dist/a target/a out/a bin/a cache/a a.log a.tmp a.bak a.o a.a vendor/a .idea/a .vscode/a venv/a.py env/a.py
    .venv node_modules CVS .terraform.lock.hcl .next/build-manifest.json 4913 a.orig a.rej lib.egg-info/PKG-INFO
    #a a# ~a .a .swap .nfsd svn/a git/a a.git/b .yarn/cache/a.zip .cargo/config.toml .hypothesis.py
"""


@pytest.mark.parametrize(
    ("path", "is_included", "without_secrets"),
    [
        *((path, False, True) for path in SECRET_NAMES.split()),
        *((path, False, False) for path in DEFAULT_EXCLUDED.split()),
        *((path, True, True) for path in (HARMLESS_NAMES + DEFAULT_INCLUDED).split()),
    ],
)
def test_built_in_names(path: str, is_included: bool, without_secrets: bool) -> None:
    """What holds secrets or can be made again is excluded, and the first alone can be had; what only looks alike, and
    what people commit, is included.
    """
    assert included(path) is is_included
    assert included(path, Selection(upload_secrets=True)) is without_secrets


BLANK, NOTHING, LINES = "is blank", "names nothing", "must be one line"
COMMENT = r"is a comment; a name that starts with # is written \#"
HINDERED = "can match nothing: a bracket, a backslash at its end or an empty folder name is in the way"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("\t", None),
        ("!!", None),
        ("*.log", None),
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
        ("!/ ", NOTHING),
        ("X", None),
        ("a\nb", LINES),
        ("a\0b", LINES),
        ("[a-", HINDERED),
        ("[[:nonsense:]]", HINDERED),
        ("a\\", HINDERED),
        ("a//b", HINDERED),
    ],
)
def test_the_reason_why_a_pattern_cannot_match(pattern: str, reason: str | None) -> None:
    """Git ignores it silently; in the configuration it is an error."""
    assert bad_pattern(pattern) == reason


def test_a_pattern_of_many_stars_is_quick() -> None:
    """Matching does not backtrack over all ways to divide a name among the stars."""
    scope = DEFAULT.root().with_files({".gitignore": b"*a" * 60 + b"*b?\n"})
    assert scope.decide("a" * 250, is_dir=False).included


def test_a_pattern_that_spans_many_folders_is_quick() -> None:
    """Matching does not backtrack over all ways to divide a path among its `**`: that took a minute with four."""
    scope = DEFAULT.root().with_files({".gitignore": b"**/a/" * 30 + b"b/x\n" + b"**/a/" * 30 + b"y\n"})
    for _ in range(200):
        scope = scope.enter("a")
    assert scope.decide("x", is_dir=False).included
    assert not scope.decide("y", is_dir=False).included


def test_a_huge_ignore_file_is_quick() -> None:
    """Thousands of names, extensions and paths cost as little as a few, and each is found."""
    lines = [f"name{i}\n*.ext{i}\n/dir{i}/x\n**/deep{i}/y\nstart{i}*\n" for i in range(600)]
    root = DEFAULT.root().with_files({".gitignore": "".join(lines).encode()})
    for i in (0, 299, 599):
        for name in (f"name{i}", f"a.ext{i}", f"start{i}a"):
            assert not root.enter("any").decide(name, is_dir=False).included
        assert not root.enter(f"dir{i}").decide("x", is_dir=False).included
        assert not root.enter("any").enter(f"deep{i}").decide("y", is_dir=False).included
        assert root.enter("any").enter(f"dir{i}").decide("x", is_dir=False).included


def test_patterns_for_paths() -> None:
    """Each has one for all that is below a folder of its name."""
    assert expand_folders(["certs/", "/a/b.pem"]) == ("certs/", "**/certs/**", "/a/b.pem", "/a/b.pem/**")
    patterns = PathPatterns(["certs/", "*.pem", "!/a/b.pem"])
    paths = ("certs/x", "d/certs/e/x", "x.pem", "a/b.pem", "certs", "x.py")
    assert [path in patterns for path in paths] == [True, True, True, False, False, False]
    assert "x.pem" not in PathPatterns(["*.pem", "!*.pem"])
    into = PathPatterns(["certs/", "/a/b/*.pem", "x.py"])
    assert [into.leads_into(folder) for folder in ("d/certs", "a", "a/b", "x.py", "pem")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("pattern", "excluded", "included"),
    [
        ("x/a**/b", "x/ab x/a1/b x/a1/2/b", "x/b x/1/ab"),
        ("x/a**", "x/a x/ab x/a1/b", "x/b"),
        ("*b**/c", "b1/c ab/c", "a/c b/1/c"),
        ("a/***\\/b", "a/1/b", "a/b/c"),
        ("a/**b", "a/b a/1b", "a/1/b"),
        ("a/[[:digit:]x-]", "a/1 a/x a/-", "a/y a/11"),
        ("/[b-", "", "b"),
    ],
)
def test_patterns_as_git_reads_them(pattern: str, excluded: str, included: str) -> None:
    """Two stars beside other characters, a class of characters, and a bracket that is not closed."""
    for paths, expected in ((excluded, False), (included, True)):
        for path in paths.split():
            assert (path not in PathPatterns([pattern])) is expected, path


def test_a_rule_that_excludes_the_workspace_itself() -> None:
    """It does not count in the workspace, on whichever line it is; all others of the repository around do."""
    rules = b"/a/\n*.log\nb\n!b\nb\n"
    outer = OuterRules(files=(OuterFile(".gitignore", "", rules),), workspace="a/b")
    scope = DEFAULT.root(outer)
    inner = OuterFile("a/.gitignore", "a", b"*.tmp\n")
    both = DEFAULT.root(OuterRules(files=(*outer.files, inner), workspace="a/b"))
    assert not both.decide("x.tmp", is_dir=False).included
    assert [scope.decide(name, is_dir=False).included for name in ("x.py", "x.log", "b")] == [True, False, True]
