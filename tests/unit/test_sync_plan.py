"""Decisions about the content of a sandbox, and the paths of a partial archive."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from syncd.core.choices import AgentChanges
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Difference, Manifest
from syncd.model.reconcile import Forced, Policy
from syncd.sandbox.look_request import LookAction, LookItem, LookResult, Missing, Obstacle
from syncd.sandbox.sandbox_state import SandboxContent, with_versions
from syncd.sync.sync_plan import (
    is_outdated,
    least_of,
    look_request,
    obstacles_seen,
    partial_paths,
    without_held,
)


def _file(size_bytes: int = 8) -> Entry:
    return Entry(Kind.FILE, 0o644, 0, size_bytes)


DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 0)


MANIFEST = Manifest({"d": DIRECTORY, "d/a": _file(3), "d/b": _file(5), "e": DIRECTORY, "e/c": _file(9), "f": _file(1)})


def _known(digest: bytes) -> Entry:
    return Entry(Kind.FILE, 0o644, 0, 8, digest=digest)


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        # In the order of the paths: as sent, changed, new, another kind, held; deleted.
        (AgentChanges.SAVE, "compare fetch fetch fetch fetch remove"),
        (AgentChanges.HOLD, "compare compare compare compare compare remove"),
        (Forced.FORCE, "fetch fetch fetch fetch fetch fetch"),
        (AgentChanges.OVERWRITE, "compare fetch fetch fetch fetch remove"),
    ],
)
def test_what_is_looked_at(policy: Policy, actions: str) -> None:
    """What may be saved is fetched; what is removed at once is as it was put there, or reported."""
    base = Manifest({path: _known(b"d") for path in ("as-sent", "changed", "kind", "held", "deleted")})
    manifest = Manifest({"as-sent": base["as-sent"], "changed": _known(b"e"), "new": _known(b"n"), "kind": DIRECTORY})
    held = {"held": _known(b"h")}
    content = SandboxContent(base, ({"changed": _known(b"u")},))
    deleted = {"deleted": [base["deleted"]], "kind": [base["kind"]]}
    items = look_request(content, manifest, manifest, deleted, held_here=held, policy=policy).items
    order = ("as-sent", "changed", "new", "kind", "held", "deleted")
    assert " ".join(items[path].action.name.lower() for path in order) == actions
    assert {path: item.versions for path, item in items.items()} == {
        "as-sent": (_known(b"d"),),
        "changed": (_known(b"d"), _known(b"u"), _known(b"e")),
        "new": (_known(b"n"),),
        "kind": (_known(b"d"), DIRECTORY),
        "held": (_known(b"d"), _known(b"h")),
        "deleted": (_known(b"d"),),
    }
    # What is missing there may be written; what is to be removed there has an outcome.
    wanted = {path for path, item in items.items() if item.missing is Missing.AS_WANTED}
    assert wanted == {"as-sent", "changed", "new"}


def test_a_look_at_little_counts_a_sample() -> None:
    """So an emptied sandbox is noticed at a bounded cost; of what is written, it is reported where it is missing."""
    base = Manifest({f"{number:05}": _known(b"d") for number in range(5_000)})
    content = SandboxContent(base)

    def look(written: Manifest, most_missed: int = 0) -> Counter[tuple[LookAction, Missing]]:
        request = look_request(
            content, base, written, {}, held_here={}, most_missed=most_missed, policy=AgentChanges.SAVE
        )
        return Counter((item.action, item.missing) for _, item in request.each())

    compared, reported = (LookAction.COMPARE, Missing.AS_WANTED), (LookAction.COMPARE, Missing.DIFFERS)
    counted = (LookAction.EXISTS, Missing.DIFFERS)
    assert look(Manifest({"00007": base["00007"]})) == {counted: 199, compared: 1}
    assert look(base, 200) == {compared: 4_800, reported: 200}
    assert look(Manifest({"00000": base["00000"]}), 400) == {counted: 199, reported: 1}
    few = SandboxContent(Manifest({"a": _known(b"d"), "b": _known(b"d")}))
    request = look_request(
        few,
        base | {"c": _known(b"d"), "d": _known(b"d")},
        Manifest({"c": _known(b"d"), "d": _known(b"d")}),
        {},
        held_here={},
        policy=AgentChanges.SAVE,
    )
    assert {path for path, item in request.items.items() if item.action is LookAction.EXISTS} == {"a", "b"}
    nothing = look_request(SandboxContent(), Manifest(), Manifest(), {}, held_here={}, policy=AgentChanges.SAVE)
    assert not nothing.items


def test_what_is_looked_at_beside_what_is_written() -> None:
    """The directories that are written to, places, what is held or kept, and all that is to be compared."""
    base = Manifest({"d": DIRECTORY, "d/a": _known(b"d"), "e": DIRECTORY, "e/c": _known(b"d"), "f": _known(b"d")})
    manifest = base | {"d/a": _known(b"n"), "e/x": _known(b"x"), "f": _known(b"n"), "k": _known(b"k")}
    written = Manifest({"d/a": manifest["d/a"], "e/x": manifest["e/x"]})
    place = LookItem((), LookAction.PLACE)
    private = Entry(Kind.FILE, 0o600, 0, 8, digest=b"d")
    request = look_request(
        SandboxContent(base, ({"f": private},)),
        manifest,
        written,
        {"gone": [_known(b"d")]},
        held_here={"e/c": _known(b"h"), "d/a": _known(b"h"), "gone": _known(b"h")},
        kept=("f", "gone", "d/a", "e/c", "e"),
        places={"d/a": place, "p": place, "e": place},
        most_counted=0,
        policy=AgentChanges.HOLD,
        compared=manifest,
    )
    directory, found = LookItem((DIRECTORY,), LookAction.COMPARE, Missing.AS_WANTED), dict(request.each())
    assert (found.pop("d"), found.pop("e")) == (directory, directory)
    assert (found.pop("d/a"), found.pop("p")) == (place, place)
    assert found.pop("gone") == LookItem((_known(b"d"),), LookAction.REMOVE)
    assert found.pop("e/c") == LookItem((_known(b"d"), _known(b"h")), LookAction.COMPARE)
    assert found.pop("f") == LookItem((_known(b"d"), private, _known(b"n")), LookAction.COMPARE)
    as_wanted = {path: LookItem((manifest[path],), LookAction.COMPARE, Missing.AS_WANTED) for path in ("e/x", "k")}
    assert found == as_wanted
    assert [path for path, _ in request.each()].index("e/x") < [path for path, _ in request.each()].index("p")


def test_a_directory_with_changes_in_it_is_fetched() -> None:
    """What took its place may have to be saved: something in it is written, or held."""
    base = Manifest({"d": DIRECTORY, "d/a": _known(b"d"), "d/c": _known(b"d")})
    for written, held, action in (
        ({"d/a": _known(b"n")}, {}, LookAction.FETCH),
        ({"d/a": base["d/a"]}, {"d/c": _known(b"h")}, LookAction.FETCH),
        ({"d/a": base["d/a"]}, {}, LookAction.COMPARE),
    ):
        content = SandboxContent(base)
        request = look_request(content, base, Manifest(written), {}, held_here=held, policy=AgentChanges.SAVE)
        assert request.items["d"].action is action
        assert all(item.versions == () for _, item in request.each() if item.action is LookAction.EXISTS)


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (Difference(added=["d/a"], changed=["e/c"], uncertain=["f"], removed=["x"]), {"d/a", "e/c", "f"}),
        (Difference(removed=["x"]), {"d"}),
        (Difference(changed=["d", "d/a", "d/b", "e/c", "f"]), None),  # nothing would be left out
        (Difference(changed=["d/b", "e/c", "f"]), {"d/b", "e/c", "f"}),
    ],
)
def test_the_paths_of_a_partial_archive(found: Difference, paths: set[str] | None) -> None:
    """Those that differ, and something small where only deletions are sent; none if it would be whole."""
    assert partial_paths(MANIFEST, found) == paths
    assert partial_paths({}, Difference()) is None


def test_what_changes_least() -> None:
    """A directory, else the smallest file; nothing that stays as it is there."""
    files = {"a": _file(3), "b": _file(1), "c": _file(1), "d/e": _file(0)}
    assert [least_of(files, stays) for stays in ((), {"d"}, {"d", "b"}, set(files))] == [{"d/e"}, {"b"}, {"c"}, set()]
    assert least_of({**files, "x": DIRECTORY, "y": DIRECTORY}) == {"x"}
    assert least_of({"x": DIRECTORY, "y": DIRECTORY}, {"x"}) == {"y"}
    assert partial_paths(MANIFEST, Difference(removed=["x"]), {"d", "e"}) == {"f"}


def test_a_manifest_without_what_is_held() -> None:
    """A held path is as the sandbox got it last, or left out if it never did."""
    base = {"f": _file(7), "gone": _file(1)}
    assert without_held(MANIFEST, ["gone", "f", "d/a"], base) == {
        path: entry for path, entry in {**MANIFEST, "f": _file(7)}.items() if path != "d/a"
    }
    assert without_held(MANIFEST, ["f"], None) == {path: entry for path, entry in MANIFEST.items() if path != "f"}
    assert MANIFEST["f"] == _file(1)


def test_what_is_in_the_way() -> None:
    """What a look saw is so; else it is as it was known, and nobody knows what a repository's place holds."""
    known = {"a": Obstacle.READ_ONLY, "b": Obstacle.FILE}
    seen = LookResult(blocked={"c": Obstacle.DIRECTORY})
    assert obstacles_seen(seen, known, ["r"]) == {"c": Obstacle.DIRECTORY}
    by_archive = LookResult(blocked={"c": Obstacle.DIRECTORY}, kinds_only=True)
    assert obstacles_seen(by_archive, known, ["r"]) == {"a": Obstacle.READ_ONLY, "c": Obstacle.DIRECTORY}
    for nobody in (None, LookResult(blocked={"c": Obstacle.DIRECTORY}, unseen=1)):
        assert obstacles_seen(nobody, known, ["r", "b"]) == {**known, "r": Obstacle.UNKNOWN}


@pytest.mark.parametrize(
    ("age_s", "repeated", "outdated"),
    [(2.0, 0, False), (2.1, 0, True), (2.1, 2, True), (2.1, 3, False), (60.1, 3, True), (-inf, 0, False)],
)
def test_a_look_that_is_outdated(age_s: float, repeated: int, *, outdated: bool) -> None:
    """After two seconds, but only so often; one that is older than a look takes always is."""
    assert is_outdated(age_s, repeated) is outdated


def test_unanswered_versions_are_kept_however_many_archives_there_were() -> None:
    """Each version of a path is kept once, the first one too; what is sent again and again adds nothing."""
    unanswered: tuple[Manifest, ...] = ()
    for number in range(20):
        unanswered = with_versions(unanswered, Manifest({"a": _known(bytes([number + 1])), "b": _known(b"b")}))
    content = SandboxContent(unanswered=unanswered)
    assert [entry.digest for entry in content.versions_of("a")] == [bytes([number + 1]) for number in range(20)]
    assert content.versions_of("b") == [_known(b"b")]
    assert [len(each) for each in unanswered] == [2, *[1] * 19]
    assert with_versions(unanswered, Manifest({"a": _known(b"\x07"), "b": _known(b"b")})) is unanswered
    assert with_versions(unanswered, Manifest({"c": _known(b"c")}))[1:] == unanswered[1:]
