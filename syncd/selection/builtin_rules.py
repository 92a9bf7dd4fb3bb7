"""The built-in rules, as gitignore patterns: version control, files that can be generated again, secrets.

A pattern is a default only if its files are never committed and never missed. So build/, dist/, target/, out/, bin/,
vendor/, *.log, *.tmp, *.bak, .idea/ and .vscode/ are not here: many people commit them. A pattern is a secret if the
name alone says that the file holds a key or a password. A wrong pattern costs an upload that does not happen and a line
in `syncd ls --excluded`; a missing one uploads a secret. Secrets' names are in lower case here, and are compared
without case: Windows exports `KEY.PEM`.

Folders end with "/" where a file of that name may be wanted (`.venv` can be a file that names another folder).
"""

from __future__ import annotations

GIT = (".git",)  # a folder, or the file that a worktree or submodule has instead

_VERSION_CONTROL = (
    ".svn/",
    ".hg/",
    ".bzr/",
    ".jj/",
    ".sl/",
    ".pijul/",
    "_darcs/",
    "CVS/",
    ".fslckout",
    "_FOSSIL_",
)

# Dependencies that a package manager can fetch again. Not `venv/`: CPython's own source has such a folder.
_DEPENDENCIES = (
    "node_modules/",
    "bower_components/",
    "jspm_packages/",
    ".pnpm-store/",
    ".venv/",
    ".virtualenv/",
    "__pypackages__/",
    ".pixi/",
    ".direnv/",
    ".devenv/",
    ".eggs/",
    ".terraform/",  # not .terraform.lock.hcl, which people commit
    ".terragrunt-cache/",
    ".vagrant/",
)

_CACHES = (
    "__pycache__/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".pytype/",
    ".tox/",
    ".nox/",
    ".hypothesis/",
    ".ipynb_checkpoints/",
    ".gradle/",
    ".parcel-cache/",
    ".turbo/",
    ".nyc_output/",
    ".eslintcache",
    ".stylelintcache",
    ".sass-cache/",
    ".jekyll-cache/",
    ".docusaurus/",
    "**/.next/cache/",
    "**/.angular/cache/",
    "**/.dvc/cache/",
    ".dart_tool/",
    ".stack-work/",
    "dist-newstyle/",
    ".bloop/",
    ".metals/",
    ".ccls-cache/",
    "**/.cache/clangd/",
    ".zig-cache/",
)

# Not vim's `4913`, with which it tests whether it may write: it exists for a moment, and others use numbers as names.
_EDITORS = (
    "?*~",  # a file named "~" is no backup
    ".#*",
    "\\#*#",
    "*.swp",
    "*.swo",
    "*.swn",
    "*.swx",
    "*.kate-swp",
    "*___jb_tmp___",
    "*___jb_old___",
    ".~lock.*#",
    "~$*",
)

_SYSTEMS = (
    ".DS_Store",
    "._*",
    ".AppleDouble/",
    ".Spotlight-V100/",
    ".Trashes/",
    ".TemporaryItems/",
    ".fseventsd/",
    "Thumbs.db",
    "ehthumbs.db",
    "[Dd]esktop.ini",
    "$RECYCLE.BIN/",
    ".Trash-*/",
    ".goutputstream-*",
    ".fuse_hidden*",
    ".nfs" + 8 * "[0-9a-f]" + "*",  # a deleted file that a program still holds open
)

# What `apply` writes before it renames it: a killed one leaves it until the next command takes it away.
_OWN = (".syncd-" + 12 * "[0-9a-f]" + "-*",)

DEFAULTS = (*_VERSION_CONTROL, *_DEPENDENCIES, *_CACHES, *_EDITORS, *_SYSTEMS, *_OWN)

# The folders among them that have one name wherever they are.
DIRECTORY_NAMES = tuple(
    pattern[:-1] for pattern in DEFAULTS if pattern.endswith("/") and not set(pattern[:-1]) & set("/*?[\\")
)

# The exceptions are examples that people copy, and vaults, which are encrypted so that they can be committed.
# Not `*.env`: versions.env and build.env are as common as prod.env.
_ENVIRONMENTS = (
    ".env",
    ".env.*",
    "!.env.example",
    "!.env.*.example",
    "!.env.example.*",
    "!.env.sample",
    "!.env.*.sample",
    "!.env.template",
    "!.env.*.template",
    "!.env.tmpl",
    "!.env.dist",
    "!.env.*.dist",
    "!.env.default",
    "!.env.defaults",
    "!.env.schema",
    "!.env.md",
    "!.env.vault",
    ".env-*",
    ".env_*",
    "!.env[-_]example",
    "!.env[-_]sample",
    "!.env[-_]template",
    "!.env[-_]tmpl",
    "!.env[-_]dist",
    "!.env[-_]default",
    "!.env[-_]defaults",
    "!.env[-_]schema",
    ".dev.vars",
    ".dev.vars.*",
    "!.dev.vars.example",
    "!.dev.vars.sample",
    # direnv's files are programs, but most of them export tokens.
    ".envrc",
    ".envrc.local",
    ".envrc.private",
)

_SSH_KEYS = (
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "id_xmss",
    "id_rsa.bak",
    "id_rsa.old",
    "id_ed25519.bak",
    "id_ed25519.old",
    "ssh_host_*_key",
    ".ssh/",
)

# The name of a `*.pem` file does not tell a certificate from a key, so all are excluded, except the list of public
# authorities that curl and certifi ship. `*.crt`, `*.cer` and `*.pub` are public; `server.key.example` is an example.
_KEY_FILES = (
    "*.pem",
    "!cacert.pem",
    "!*.pub.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.pkcs12",
    "*.jks",
    "*.keystore",
    "*.bks",
    "*.ppk",
    "*.kdb",
    "*.kdbx",
    "*.ovpn",
    "secring.gpg",
    ".gnupg/",
)

_PASSWORD_FILES = (
    ".netrc",
    "_netrc",
    ".authinfo",
    ".git-credentials",
    ".htpasswd",
    ".pgpass",
    "pgpass.conf",
    ".my.cnf",
    ".mylogin.cnf",
    ".vault-token",
    ".vault_pass",
    ".vault_password",
    ".sentryclirc",
    "kaggle.json",
    "**/.huggingface/token",
    "**/.cache/huggingface/token",
    "**/.claude/.credentials.json",
    "**/.codex/auth.json",
    "**/.gemini/oauth_creds.json",
)

# What was typed into a shell or a database's prompt, passwords too.
_HISTORIES = (".*_history", "fish_history", ".histfile")

_REGISTRIES = (
    ".npmrc",
    ".pypirc",
    ".dockercfg",
    ".dockerconfigjson",
    "**/.docker/config.json",
    "**/.gem/credentials",
    "**/.cargo/credentials",
    "**/.cargo/credentials.toml",
    "**/.composer/auth.json",
)

# Repositories use `.aws/`, `.azure/` and `.docker/` for deployment files too, so only the tools' own files are named.
_CLOUDS = (
    "**/.aws/*",
    "!**/.aws/*task-definition*.json",
    ".boto",
    ".s3cfg",
    "**/.azure/accesstokens.json",
    "**/.azure/azureprofile.json",
    "**/.azure/msal_token_cache.*",
    "**/.azure/service_principal_entries.*",
    "**/.config/gcloud",
    "application_default_credentials.json",
    "credentials.json",
    "client_secret*.json",
    "service-account*.json",
    "service_account*.json",
    "serviceaccount*.json",
    "*-service-account.json",
    "*firebase-adminsdk*.json",
    "**/.kube/config",
    "kubeconfig",
    "*.kubeconfig",
    "credentials.tfrc.json",
    "*.tfstate",  # holds all values as plain text, passwords too
    "*.tfstate.backup",
    "*.tfstate.*.backup",
    "local.settings.json",
    "**/.streamlit/secrets.toml",
    "**/.snowsql/config",
    "**/.oci/config",
    ".terraformrc",
    ".databrickscfg",
    "rclone.conf",
    "**/.config/gh/hosts.yml",
    "**/.config/hub",
)

SECRETS = (*_ENVIRONMENTS, *_SSH_KEYS, *_KEY_FILES, *_PASSWORD_FILES, *_HISTORIES, *_REGISTRIES, *_CLOUDS)
