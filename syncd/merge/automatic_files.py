"""Tells which files run by themselves at home: a person should look at those before they are used."""

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
    "Jenkinsfile",
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
    "Makefile",
    "makefile",
    "GNUmakefile",
    "*.mk",
    "justfile",
    "Justfile",
    "Taskfile.yml",
    "Rakefile",
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
    "CMakeLists.txt",
    "configure",
)


def runs_automatically(path: str) -> bool:
    """True if a program runs this file, or what it says, without being asked for it; at any depth."""
    names = path.split("/")
    tails = ("/".join(names[at:]) for at in range(len(names)))
    return any(fnmatchcase(tail, pattern) for tail in tails for pattern in _PATTERNS)
