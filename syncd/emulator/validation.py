"""Validates requests as FastAPI does, with its 422: clients read `detail`, which must be as the service sends it."""

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

Location = tuple[str | int, ...]


class Invalid(Exception):
    """The request does not match the API's description; `errors` is the 422's `detail`."""

    def __init__(self, errors: list[dict[str, object]]) -> None:
        super().__init__()
        self.errors = errors


class Parameters:
    """A request's parameters. Errors are collected, so that one answer names all of them."""

    def __init__(self, query: Mapping[str, str], body: object) -> None:
        self._query = query
        self._body = body
        self._errors: list[dict[str, object]] = []

    def finish(self) -> None:
        """Raise Invalid if there was an error."""
        if self._errors:
            raise Invalid(self._errors)

    def region(self) -> str:
        return self._one_of(("query", "region"), self._query.get("region", "us"), REGIONS)

    def execution_name(self, location: str) -> str:
        """The name in the `query` or the `body`; a plain file name, as it names a folder."""
        source = self._query if location == "query" else self._object()
        if "execution_name" not in source:
            self._add(
                "missing", (location, "execution_name"), "Field required", None if location == "query" else source
            )
            return ""
        name = source["execution_name"]
        if not isinstance(name, str):
            self._add("string_type", (location, "execution_name"), "Input should be a valid string", name)
            return ""
        if not NAME.fullmatch(name):
            self._add(
                "string_pattern_mismatch", (location, "execution_name"), "Input should be a plain file name", name
            )
        return name

    def cursor(self) -> int:
        text = self._query.get("cursor", "0")
        try:
            cursor = int(text)
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            self._add("int_parsing", ("query", "cursor"), message, text)
            return 0
        if cursor < 0:
            message = "Input should be greater than or equal to 0"
            self._add("greater_than_equal", ("query", "cursor"), message, text, {"ge": 0})
        return cursor

    def is_ttl(self) -> None:
        """Check the parameter, which has no effect: the service's own clean-up sends it."""
        text = self._query.get("is_ttl", "false")
        if text.lower() not in ("true", "false", "1", "0", "on", "off", "yes", "no", "t", "f", "y", "n"):
            message = "Input should be a valid boolean, unable to interpret input"
            self._add("bool_parsing", ("query", "is_ttl"), message, text)

    def server_names(self) -> list[str]:
        body = self._object()
        if "server_names" not in body:
            self._add("missing", ("body", "server_names"), "Field required", body)
            return []
        names = body["server_names"]
        if names == "ALL":
            return list(SERVERS)
        if not isinstance(names, list):
            location = ("body", "server_names", "list[enum]")
            self._add("list_type", location, "Input should be a valid list", names)
            self._add("literal_error", ("body", "server_names", "literal['ALL']"), "Input should be 'ALL'", names)
            return []
        return [self._one_of(("body", "server_names", index), name, SERVERS) for index, name in enumerate(names)]

    def benchmark(self) -> str | None:
        value = self._object().get("benchmark")
        return None if value is None else self._one_of(("body", "benchmark"), value, BENCHMARKS)

    def ttl_s(self) -> int | None:
        """The time to live in seconds, None: no end."""
        value = self._object().get("ttl_seconds", DEFAULT_TTL_S)
        location: Location = ("body", "ttl_seconds")
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._add("int_type", location, "Input should be a valid integer", value)
            return None
        if value < MIN_TTL_S:
            message = f"Input should be greater than or equal to {MIN_TTL_S}"
            self._add("greater_than_equal", location, message, value, {"ge": MIN_TTL_S})
        if value > MAX_TTL_S:
            message = f"Input should be less than or equal to {MAX_TTL_S}"
            self._add("less_than_equal", location, message, value, {"le": MAX_TTL_S})
        return value

    def _object(self) -> dict[str, object]:
        if not isinstance(self._body, dict):
            error_entry = _error("model_attributes_type", ("body",), "Input should be a valid dictionary", self._body)
            raise Invalid([*self._errors, error_entry])
        return cast("dict[str, object]", self._body)

    def _one_of(self, location: Location, value: object, allowed: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        quoted = [f"'{word}'" for word in allowed]
        expected = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        self._add("enum", location, f"Input should be {expected}", value, {"expected": expected})
        return ""

    def _add(
        self, kind: str, location: Location, message: str, value: object, context: dict[str, object] | None = None
    ) -> None:
        self._errors.append(_error(kind, location, message, value, context))


def parsed_body(data: bytes) -> object:
    """The JSON of a request's body. Raises Invalid if there is none."""
    if not data:
        raise Invalid([_error("missing", ("body",), "Field required", None)])
    try:
        return json.loads(data)
    except ValueError as error:
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        error_entry = _error("json_invalid", ("body", position), "JSON decode error", {}, {"error": str(error)})
        raise Invalid([error_entry]) from error


def _error(
    kind: str, location: Location, message: str, value: object, context: dict[str, object] | None = None
) -> dict[str, object]:
    error_entry: dict[str, object] = {"type": kind, "loc": list(location), "msg": message, "input": value}
    return error_entry | ({"ctx": context} if context else {})
