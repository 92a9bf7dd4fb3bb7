"""Tells which files run by themselves at home, or decide what is sent: a person should look at those before.

In any letter case: a workspace may lie on a file system that does not tell them apart.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# By editors, shells, build tools and services that act on a checkout without being asked for that file.
_PATTERNS = (
    ".github/workflows/*",
    ".github/actions/*",
    ".gitlab-ci.yml",
    ".circleci/*",
    ".travis.yml",
    "azure-pipelines.yml",
    "jenkinsfile",
    ".husky/*",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    ".gitattributes",
    ".gitmodules",
    ".envrc",
    ".vscode/*",
    "*.code-workspace",
    ".idea/*",
    ".devcontainer/*",
    ".devcontainer.json",
    "makefile",
    "gnumakefile",
    "*.mk",
    "justfile",
    "taskfile.yml",
    "rakefile",
    "package.json",
    ".npmrc",
    ".yarnrc.yml",
    "conftest.py",
    "setup.py",
    "sitecustomize.py",
    "build.rs",
    ".cargo/config.toml",
    "build.gradle",
    "build.gradle.kts",
    "gradlew",
    "mvnw",
    "cmakelists.txt",
    "configure",
)


def runs_automatically(path: str) -> bool:
    """True if a program runs this file, or what it says, without being asked for it; at any depth."""
    names = path.lower().split("/")
    tails = ("/".join(names[at:]) for at in range(len(names)))
    return any(fnmatchcase(tail, pattern) for tail in tails for pattern in _PATTERNS)


def decides_what_is_sent(path: str) -> bool:
    """True for an ignore file; at any depth."""
    return path.rpartition("/")[2].lower() in (".gitignore", ".syncdignore")
