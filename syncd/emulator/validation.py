"""Validates requests as FastAPI does, with its 422: clients read `detail`, whose form is the service's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from syncd.emulator.bucket import REGIONS
from syncd.emulator.sandbox import NAME

SERVERS = (
    "filesystem",
    "git",
    "terminal",
    "desktop-commander",
    "arxiv",
    "excel",
    "word",
    "powerpoint",
    "code-executor",
    "code-runner",
    "pdf-tools",
    "google_cloud",
    "poste_email_toolathlon",
    "canvas",
    "localmemory",
    "playwright",
)
BENCHMARKS = ("MCP_Atlas", "Toolathlon", "MCP_Mark")
DEFAULT_TTL_S = 7200
MIN_TTL_S = 60
MAX_TTL_S = 86_400
_BOOLEANS = ("true", "false", "1", "0", "on", "off", "yes", "no", "t", "f", "y", "n")

Location = tuple[str | int, ...]


class ApiError(Exception):
    """An answer `{"detail": …}` with that status."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Parameters:
    """A request's parameters. Errors are collected, so that one 422 names all of them."""

    def __init__(self, query: Mapping[str, str], body: bytes) -> None:
        self._query = query
        self._body = body
        self._errors: list[dict[str, object]] = []

    def finish(self) -> None:
        """Raise ApiError if there was an error."""
        if self._errors:
            raise ApiError(422, self._errors)

    def region(self) -> str:
        return self._one_of(("query", "region"), self._query.get("region", "us"), REGIONS)

    def execution_name(self) -> str:
        """A plain file name, as it names a folder."""
        return self._name("body", self._object())

    def execution_name_in_query(self) -> str:
        return self._name("query", self._query)

    def _name(self, place: str, source: Mapping[str, object]) -> str:
        location = (place, "execution_name")
        name = source.get("execution_name")
        if "execution_name" not in source:
            self._add("missing", location, "Field required")
        elif not isinstance(name, str):
            self._add("string_type", location, "Input should be a valid string")
        elif not NAME.fullmatch(name):
            self._add("string_pattern_mismatch", location, "Input should be a plain file name")
        else:
            return name
        return ""

    def cursor(self) -> int:
        location = ("query", "cursor")
        try:
            cursor = int(self._query.get("cursor", "0"))
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            self._add("int_parsing", location, message)
            return 0
        if cursor < 0:
            self._add("greater_than_equal", location, "Input should be greater than or equal to 0")
        return cursor

    def is_ttl(self) -> None:
        """Check the parameter, which has no effect: the service's own clean-up sends it."""
        if self._query.get("is_ttl", "false").lower() not in _BOOLEANS:
            self._add("bool_parsing", ("query", "is_ttl"), "Input should be a valid boolean, unable to interpret input")

    def server_names(self) -> list[str]:
        location = ("body", "server_names")
        names = self._object().get("server_names")
        if "server_names" not in self._object():
            self._add("missing", location, "Field required")
        elif names == "ALL":
            return list(SERVERS)
        elif not isinstance(names, list):
            self._add("list_type", (*location, "list[enum]"), "Input should be a valid list")
            self._add("literal_error", (*location, "literal['ALL']"), "Input should be 'ALL'")
        else:
            return [self._one_of((*location, index), name, SERVERS) for index, name in enumerate(names)]
        return []

    def benchmark(self) -> str | None:
        value = self._object().get("benchmark")
        return None if value is None else self._one_of(("body", "benchmark"), value, BENCHMARKS)

    def ttl_s(self) -> int | None:
        """The time to live in seconds, None: no end."""
        location = ("body", "ttl_seconds")
        value = self._object().get("ttl_seconds", DEFAULT_TTL_S)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._add("int_type", location, "Input should be a valid integer")
            return None
        if value < MIN_TTL_S:
            self._add("greater_than_equal", location, f"Input should be greater than or equal to {MIN_TTL_S}")
        if value > MAX_TTL_S:
            self._add("less_than_equal", location, f"Input should be less than or equal to {MAX_TTL_S}")
        return value

    def _object(self) -> dict[str, object]:
        """The body's JSON object. Raises ApiError if it has none."""
        if not self._body:
            self._add("missing", ("body",), "Field required")
        try:
            value = json.loads(self._body or "{}")
        except ValueError as error:
            value = {}
            position = error.pos if isinstance(error, json.JSONDecodeError) else 0
            self._add("json_invalid", ("body", position), "JSON decode error")
        if not isinstance(value, dict):
            self._add("model_attributes_type", ("body",), "Input should be a valid dictionary")
        self.finish()
        return cast("dict[str, object]", value)

    def _one_of(self, location: Location, value: object, allowed: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        *others, last = [f"'{word}'" for word in allowed]
        self._add("enum", location, f"Input should be {', '.join(others)} or {last}")
        return ""

    def _add(self, kind: str, location: Location, message: str) -> None:
        self._errors.append({"type": kind, "loc": location, "msg": message})
