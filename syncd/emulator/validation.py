"""Requests as FastAPI checks them, and its 422: clients read `detail` and must find there what the service sends."""

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
SHORTEST_TTL_S = 60
LONGEST_TTL_S = 86_400

Place = tuple[str | int, ...]


class Invalid(Exception):
    """The request is not what the API describes; `warnings` is the 422's `detail`."""

    def __init__(self, warnings: list[dict[str, object]]) -> None:
        super().__init__()
        self.warnings = warnings


class Checked:
    """A request's parameters. What is wrong is collected, so that one answer names all of it."""

    def __init__(self, query: Mapping[str, str], body: object) -> None:
        self._query = query
        self._body = body
        self._warnings: list[dict[str, object]] = []

    def finish(self) -> None:
        """Invalid if anything was wrong."""
        if self._warnings:
            raise Invalid(self._warnings)

    def region(self) -> str:
        return self._one_of(("query", "region"), self._query.get("region", "us"), REGIONS)

    def execution_name(self, place: str) -> str:
        """The name in the `query` or the `body`; a plain file name here, since folders are called by it."""
        source = self._query if place == "query" else self._object()
        if "execution_name" not in source:
            self._add("missing", (place, "execution_name"), "Field required", None if place == "query" else source)
            return ""
        name = source["execution_name"]
        if not isinstance(name, str):
            self._add("string_type", (place, "execution_name"), "Input should be a valid string", name)
            return ""
        if not NAME.fullmatch(name):
            self._add("string_pattern_mismatch", (place, "execution_name"), "Input should be a plain file name", name)
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
        """Accepted and without effect: the service's own clean-up sends it."""
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
            place = ("body", "server_names", "list[enum]")
            self._add("list_type", place, "Input should be a valid list", names)
            self._add("literal_error", ("body", "server_names", "literal['ALL']"), "Input should be 'ALL'", names)
            return []
        return [self._one_of(("body", "server_names", index), name, SERVERS) for index, name in enumerate(names)]

    def benchmark(self) -> str | None:
        value = self._object().get("benchmark")
        return None if value is None else self._one_of(("body", "benchmark"), value, BENCHMARKS)

    def ttl_s(self) -> int | None:
        """Seconds, None: no end."""
        value = self._object().get("ttl_seconds", DEFAULT_TTL_S)
        place: Place = ("body", "ttl_seconds")
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._add("int_type", place, "Input should be a valid integer", value)
            return None
        if value < SHORTEST_TTL_S:
            message = f"Input should be greater than or equal to {SHORTEST_TTL_S}"
            self._add("greater_than_equal", place, message, value, {"ge": SHORTEST_TTL_S})
        if value > LONGEST_TTL_S:
            message = f"Input should be less than or equal to {LONGEST_TTL_S}"
            self._add("less_than_equal", place, message, value, {"le": LONGEST_TTL_S})
        return value

    def _object(self) -> dict[str, object]:
        if not isinstance(self._body, dict):
            warning = _warning("model_attributes_type", ("body",), "Input should be a valid dictionary", self._body)
            raise Invalid([*self._warnings, warning])
        return cast("dict[str, object]", self._body)

    def _one_of(self, place: Place, value: object, allowed: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        quoted = [f"'{word}'" for word in allowed]
        expected = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        self._add("enum", place, f"Input should be {expected}", value, {"expected": expected})
        return ""

    def _add(
        self, kind: str, place: Place, message: str, value: object, context: dict[str, object] | None = None
    ) -> None:
        self._warnings.append(_warning(kind, place, message, value, context))


def parsed_body(data: bytes) -> object:
    """The JSON of a request's body; Invalid if there is none."""
    if not data:
        raise Invalid([_warning("missing", ("body",), "Field required", None)])
    try:
        return json.loads(data)
    except ValueError as error:
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        warning = _warning("json_invalid", ("body", position), "JSON decode error", {}, {"error": str(error)})
        raise Invalid([warning]) from error


def _warning(
    kind: str, place: Place, message: str, value: object, context: dict[str, object] | None = None
) -> dict[str, object]:
    warning: dict[str, object] = {"type": kind, "loc": list(place), "msg": message, "input": value}
    return warning | ({"ctx": context} if context else {})
