"""Random stories of one workspace with one to three sandboxes, an agent in each, and the account of all versions.

The real command runs as processes, in real time. Each version that anyone writes has a content of its own, so it can be
found: it must be current on the side of its author, replaced by a person or an agent, or saved under the name of its
sandbox. Steps with `at` happen beside a request of one sandbox.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import threading
import traceback
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from syncd.core.settings import MAIN
from syncd.model.entry import Kind, arrived_digest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb
from tests.emulator import Emulator, RequestRecord, Sandbox, When
from tests.fuzz.account import SavedEntries, note_look
from tests.fuzz.generator import drawn
from tests.fuzz.grammar import SEVERAL
from tests.fuzz.model import Entry, changes, sent_in, shown
from tests.fuzz.operations import AGENT_STEPS, Operations, SandboxAgent, tree
from tests.fuzz.runner import Result, TooLong
from tests.fuzz.scenario import Scenario, Step
from tests.system.command import CLOCK, Finished
from tests.system.rig import DEFAULTS, KEY, SANDBOX, Rig
from tests.system.trees import Tree

_SHORT: dict[str, object] = {**DEFAULTS, "sync.debounce_seconds": 0.05, "retry.first_delay_seconds": 0.05}
_SHORT |= {"retry.max_delay_seconds": 0.3, "retry.give_up_after_seconds": 5}
# It notes that it ran and what it saw of `a`, and fails where that is large.
_SETUP = (
    "echo b >>../ran; sleep 0.2; cat a 2>/dev/null >../copy; cksum <../copy >>../seen; "
    '[ "$(wc -c <../copy)" -lt 5000 ]; code=$?; echo e >>../ran; exit $code'
)
_SETUP_KEYS: dict[str, object] = {"sandbox.setup": ["sh", "-c", _SETUP], "sandbox.setup_files": ["/a"]}
Version = tuple[str, bytes]
# Four digits each, so that one cut short is no other one.
_TEXTS = 0x1000


class Box:
    """One sandbox under one name, and what its agent did. `lock`: changes by the agent and by syncd exclude others."""

    def __init__(self, name: str, sandbox: Sandbox) -> None:
        self.name = name
        self.sandbox = sandbox
        self.lock = threading.Lock()
        self.notes_looks = True
        self.agents: dict[str, Entry | None] = {}  # what the agent changed since an archive had it; None: removed
        self.sent: Tree = {}  # by the last archive that had the path
        self.arrived: Tree = {}  # of these, what a flush has confirmed
        self.written: set[Version] = set()
        self.replaced: set[Version] = set()
        self.excused: set[Version] = set()  # overwritten before any look could show it
        self.free: set[str] = set()  # of an earlier time in the configuration
        self.lost: list[str] = []
        self._unlooked: set[str] = set()
        self._initialize, self._execute = sandbox.initialize, sandbox.execute
        sandbox.initialize = self._initialized  # type: ignore[method-assign]
        sandbox.execute = self._executed  # type: ignore[method-assign]

    def act(self, name: str, *args: Any) -> None:
        """Have the agent do that."""
        with self.lock:
            self.sandbox.wait()
            before = self.tree()
            with contextlib.suppress(OSError):
                getattr(SandboxAgent(self.sandbox.workspace), name)(*args)
            for path, old, new in changes(before, self.tree()):
                self.agents[path] = new
                self._unlooked.add(path)
                self.replaced |= versions(path, old)
                self.written |= versions(path, new) - versions(path, old)
                self.replaced -= versions(path, new)

    def tree(self) -> Tree:
        """Return the files that are there."""
        return files(self.sandbox.workspace)

    def begin_anew(self) -> None:
        """Note that syncd is to know nothing of it."""
        self.free |= {path for path in {*self.agents, *self.tree()} if self.agents.get(path) is None}
        self.sent, self.arrived = {}, {}

    def looked(self, paths: Collection[str] | None = None) -> None:
        """Note that a look of a sync begins. One at everything that is there may be one that follows, beside a sync."""
        if self.notes_looks and paths is not None:
            self._unlooked -= set(paths)

    def _executed(self, name: str, packed: BinaryIO, *more: Any) -> None:
        with self.lock:
            note_look(self, packed)
            self._execute(name, packed, *more)

    def _initialized(self, packed: BinaryIO) -> None:
        start = packed.tell()
        sent = {path: what.entry for path, what in sent_in(zlib.decompress(packed.read(), 31)).items()}
        packed.seek(start)
        with self.lock:
            self.sandbox.wait()
            before = self.tree()
            self._initialize(packed)
            after = self.tree()
            for path in sent.keys() & after.keys():
                agents, was = self.agents.pop(path, None), before.get(path)
                if was is not None and was == agents != after[path]:
                    if path in self._unlooked:
                        self.excused |= versions(path, was)
                    elif sent[path] == self.sent.get(path) == self.arrived.get(path):
                        self.lost.append(f"only the agent changed {self.name}: {path}, and it was overwritten")
                self.sent[path] = sent[path]
                self.free.discard(path)


class Story:
    """One story. Broken promises are in `lost`."""

    def __init__(self, rig: Rig, figures: Counter[str]) -> None:
        self.lost: list[str] = []
        self.log: list[str] = []
        self._rig = rig
        self._figures = figures
        self._operations = Operations(rig.workspace, rig.home)
        self._lock = threading.RLock()
        self._pending: list[tuple[Any, ...]] = []  # as the step `at` gives them
        self._is_quiet = False  # a command runs, beside which nothing else happens
        self._persons: set[Version] = set()
        self._replaced: set[Version] = set()
        self._came_home: set[Version] = set()
        self._boxes: dict[str, Box] = {}
        self._all: list[Box] = []
        self._applied: tuple[Box, Tree, Tree] | None = None
        self._home: Tree = {}
        self._keys: dict[str, object] = {}
        for number in range(8):
            rig.write(f"still/{number}", f"nobody changes {number}")
        self._note_home()
        for when in ("before", "after"):
            rig.emulator.faults.on("any", when, self._beside(when))

    def run(self, steps: Scenario) -> None:
        """Run all steps, and compare everything at the end."""
        for step in [*steps, Step("end")]:
            self.log.append(f"{step}")
            self._do(step)
            if self._rig.daemons and self._has_ended and self._rig.daemons[-1].code not in (0, -signal.SIGKILL):
                self.lost.append(f"the daemon ended with {self._rig.daemons[-1].code}")
            if self.lost:
                return

    # -- steps

    def _do(self, step: Step) -> None:
        name, args = step.name, step.args
        self._figures[name] += 1
        if self._has_ended and name in ("rest", "flush", "end", "at", "reload") and not self._is_quiet:
            self._rig.start()
        with self._lock:
            daemon = self._rig.daemons[-1] if self._rig.daemons else None
            if name in AGENT_STEPS:
                if args[0] in self._boxes:
                    self._boxes[args[0]].act(name, *args[1:])
            elif hasattr(Operations, name):
                with contextlib.suppress(OSError):
                    getattr(self._operations, name)(*args)
                self._note_home()
            elif name == "at":
                self._pending.append(args)
            elif name == "kill" and daemon is not None:
                daemon.kill()
            elif name == "reload" and self._is_ready():
                self._rig.daemons[-1].send(signal.SIGHUP)
        match name, *args:
            case "begin", follow_s, is_set_up, *names:
                self._keys = {"sandbox.follow_seconds": follow_s, **(_SETUP_KEYS if is_set_up else {})}
                for each in names:
                    self._add(each, "same")
                self._configure()
            case "rest", seconds:
                CLOCK.sleep(seconds)
            case "fault", text:
                op, mark, rest = text.partition("@")
                name, _, fault = rest.partition(":")
                if not mark or name in self._boxes:
                    self._rig.faults(f"{op}@{self._boxes[name].sandbox.id}:{fault}" if mark else text)
            case ["stop"] if not self._has_ended:
                self._rig.until(lambda: self._has_ended or self._is_ready(), "a start")
                with self._lock:
                    self._is_quiet = True
                if not self._has_ended and (code := self._rig.daemons[-1].stop()) != 0:
                    self.lost.append(f"a stop ended with {code}")
                self._is_quiet = False
            case ["flush"]:
                if self._flush("20").code == 0:
                    self._check()
            case "apply", where, *options if where in self._boxes:
                self._apply(self._boxes[where], options)
            case ["undo"]:
                self._undo()
            case "add_name", where, how if where not in self._boxes:
                box = self._add(where, how)
                if self._command("sandbox", "add", where, "--id", box.sandbox.id).code != 0:
                    self.lost.append(f"{where} cannot be added")
            case "remove_name", where, how if where in self._boxes:
                self._remove(where, how)
            case ["end"]:
                self._end()

    def _add(self, name: str, how: str) -> Box:
        same = [box for box in self._all if box.name == name]
        if same and how == "same":
            self._boxes[name] = same[-1]
            same[-1].begin_anew()
        else:
            id_ = SANDBOX if name == MAIN else f"box-{name}{len(same) or ''}"
            self._boxes[name] = Box(name, self._rig.emulator.create_sandbox(id_))
            self._all.append(self._boxes[name])
        return self._boxes[name]

    def _remove(self, name: str, how: str) -> None:
        box = self._boxes[name]
        if how == "by hand":
            del self._boxes[name]
            self._configure()
            return
        done = self._command("sandbox", "remove", name, "--yes")
        if done.code == 0:
            del self._boxes[name]
            current = set[Version]().union(*(versions(*each) for each in box.agents.items()))
            # What came home and a person replaced there since is nobody's to save.
            self._check_saved(box, (current & box.written) - (self._came_home & self._replaced), {})
        elif done.code != 75:
            self.lost.append(f"{done}")

    def _configure(self) -> None:
        further = {f"sandboxes.{name}.id": box.sandbox.id for name, box in self._boxes.items() if name != MAIN}
        self._rig.configure({**_SHORT, **self._keys, **further})
        if self._is_ready():
            self._rig.daemons[-1].send(signal.SIGHUP)

    def _command(self, *args: str) -> Finished:
        with self._lock:
            self._is_quiet = True
        for box in self._all:
            box.notes_looks = args[0] == "flush"  # a look of another command is none of a sync under way
        done = self._rig.run(*args)
        for box in self._all:
            box.notes_looks = True
        self._is_quiet = False
        self.log.append(f"  {done.code} {done.out.strip()[:300]} {done.err.strip()[:300]}")
        self._figures[f"{' '.join(args[:2]) if args[0] == 'sandbox' else args[0]}: {done.code}"] += 1
        return done

    def _flush(self, timeout: str) -> Finished:
        """Flush, once more without the set-up where that failed."""
        done = self._command("flush", "--timeout", timeout)
        if done.code == 75 and "the set-up of the sandbox" in done.err:
            self._figures["failed set-ups"] += 1
            done = self._command("flush", "--no-setup", "--timeout", timeout)
        elif done.code == 0 and "sandbox.setup" in self._keys:
            self._check_setups()
        return done

    def _check_setups(self) -> None:
        """Check that no two ran at a time, and that the last one in each sandbox saw what is there."""
        shown = {each["name"]: each["setup"] for each in self._rig.shown()["sandboxes"]}
        for box in self._boxes.values():
            with box.lock:
                box.sandbox.wait()
                ran, seen = (box.sandbox.folder / name for name in ("ran", "seen"))
                if (order := ran.read_text().split()) != ["b", "e"] * (len(order) // 2):
                    self.lost.append(f"set-ups ran beside each other in {box.name}: {order}")
                if shown[box.name]["state"] != "done":
                    self.lost.append(f"flush ended with 0, and the set-up of {box.name} is {shown[box.name]}")
                # What came home from there was sent by no sync.
                if "a" in box.agents or "a" in box.free or versions("a", box.tree().get("a")) & self._came_home:
                    continue
                there = subprocess.run(
                    ["cksum"], input=content_of(box.tree().get("a")), capture_output=True, text=False, check=True
                )
                if seen.read_text().splitlines()[-1:] != there.stdout.decode().splitlines():
                    self.lost.append(f"the last set-up in {box.name} has not seen what is there of a")
                self._figures["set-ups checked"] += 1

    def _apply(self, box: Box, options: list[str]) -> None:
        before = self._home
        done = self._command("apply", "--sandbox", box.name, "--yes", "--json", *options)
        self._home = after = files(self._rig.workspace)
        if done.code not in (0, 1) and before != after:
            self.lost.append(f"apply ended with {done.code}, and has changed {[*changes(before, after)]}")
        for path, old, new in changes(before, after):
            was, now = versions(path, old), versions(path, new)
            if was - now - box.replaced - box.written:
                self.lost.append(f"apply of {box.name} replaced {path} ({shown(old)}), which its agent did not")
            if now - was - box.written - self._came_home - self._persons:
                self.lost.append(f"apply of {box.name} brought {path} ({shown(new)}), which its agent did not write")
            self._came_home |= now
            box.arrived.pop(path, None)
        if before != after:
            self._applied = box, before, after

    def _undo(self) -> None:
        now = self._home
        done = self._command("apply", "--undo", "--json")
        self._home = files(self._rig.workspace)
        undone = json.loads(done.out)["undone"] if done.code == 0 else []
        changed = {path for path, _, _ in changes(now, self._home)}
        if self._applied is None or changed - set(undone):
            self.lost += [f"an undo of nothing changed {path}" for path in changed]
            return
        box, before, after = self._applied
        for path, old, new in changes(before, after):
            self._figures["paths undone"] += path in undone
            if undone and now.get(path) == new and (self._home.get(path) != old or path not in undone):
                self.lost.append(f"undo left {path} as {shown(self._home.get(path))}; it was {shown(old)}")
            if path in undone:
                there = box.tree().get(path)
                box.agents[path] = there
                box.free.add(path)
                box.arrived.pop(path, None)
        self._applied = None if undone else self._applied

    def _end(self) -> None:
        self._rig.emulator.faults.clear()
        with self._lock:
            self._pending.clear()
        for _ in range(3):
            if (done := self._flush("40")).code == 0:
                self._check()
                return
        self.lost.append(f"not all is in sync at the end: {done}")

    def _beside(self, when: When | str) -> Any:
        def hook(request: RequestRecord) -> None:
            with self._lock:
                boxes = [box.name for box in self._boxes.values() if box.sandbox.id == request.sandbox]
                found = [each for each in self._pending if each[1:3] == (request.op, when) and each[0] in boxes]
                for each in found if not self._is_quiet else ():
                    self._pending.remove(each)
                    step = Step(each[3], each[4:])
                    self.log.append(f"  {' '.join(each[:3])}: {step}")
                    self._do(step)

        return hook

    @property
    def _has_ended(self) -> bool:
        with self._lock:  # a step beside a request may kill it just now
            return not self._rig.daemons or self._rig.daemons[-1].code is not None

    def _is_ready(self) -> bool:
        """True if its signal handlers are installed: an earlier signal ends any process."""
        return not self._has_ended and self._rig.shown().get("pid") == self._rig.daemons[-1].pid

    def _note_home(self) -> None:
        """Note what a person did at home."""
        before, self._home = self._home, files(self._rig.workspace)
        for path, old, new in changes(before, self._home):
            self._replaced |= versions(path, old)
            self._replaced -= versions(path, new)
            self._persons |= versions(path, new)

    # -- what must hold once all are in sync

    def _check(self) -> None:
        by_agent = {version: box for box in self._all for version in box.written}
        contents = {content: box for (_, content), box in by_agent.items()}
        came = {content for _, content in self._came_home}
        for box in self._boxes.values():
            with box.lock:
                box.sandbox.wait()
                there = self._without_leftovers(box.tree())
                self.lost += [*box.lost, *self._differences(box, there), *self._base_differences(box, there)]
                box.arrived = {path: entry for path, entry in box.sent.items() if self._home.get(path) == entry}
                for path, entry in there.items():
                    author = contents.get(content_of(entry), box)
                    if author is not box and content_of(entry) not in came:
                        self.lost.append(f"{author.name}'s {path} is in {box.name}")
        replaced = set[Version]().union(self._replaced, *(box.replaced for box in self._all))
        for path, content in sorted(self._persons - replaced):
            if content_of(self._home.get(path)) != content:
                self.lost.append(f"the person's {path} ({content[:20]!r}) is lost")
        for box in self._all:
            settled = box.replaced | box.excused | (self._came_home & replaced)
            self._check_saved(box, box.written - settled, box.tree())

    def _without_leftovers(self, there: Tree) -> Tree:
        """Leave out what was deleted here and is reported to be there still: it could not be removed."""
        warned = " ".join(self._rig.shown()["warnings"])
        left = [path for path in there if f"{path!r} was deleted here and could not be removed" in warned]
        return {path: entry for path, entry in there.items() if path not in left or path in self._home}

    def _check_saved(self, box: Box, wanted: set[Version], there: Mapping[str, Entry]) -> None:
        """Check that each of these versions of the agent is there, at home or saved under the sandbox's name."""
        saved = {
            (path, entry.digest)
            for version in SavedEntries(str(self._rig.state_folder), CLOCK).versions()
            for path, entry in version.paths.items()
            if version.sandbox_name == box.name
        }
        for path, content in sorted(wanted):
            places = (content_of(there.get(path)), content_of(self._home.get(path)))
            if content not in places and (path, sha256(content).digest()) not in saved:
                self.lost.append(f"{box.name}'s {path} ({content[:20]!r}) is lost")
        self._figures["saved"] += len(saved)

    def _is_unsaved(self, path: str) -> bool:
        """True if it is reported that what is there could not be saved: that is tried again in a minute."""
        return any(
            f"{path!r} was changed in the sandbox and stays there, as" in w for w in self._rig.shown()["warnings"]
        )

    def _differences(self, box: Box, there: Tree) -> Iterator[str]:
        for path in sorted({*there, *self._home}):
            here, now = self._home.get(path), there.get(path)
            if here == now or path in box.free or self._is_unsaved(path):
                continue
            is_agents = path in box.agents and box.agents[path] == now
            is_sent = here is None or here == box.sent.get(path) or bool(versions(path, here) & self._came_home)
            if not (is_agents and is_sent):
                yield f"{path} is {shown(here)} at home and {shown(now)} in {box.name}"

    def _base_differences(self, box: Box, there: Tree) -> Iterator[str]:
        with closing(StateDb(str(self._rig.state_folder))) as db:
            target = Target(self._rig.emulator.base_url, box.sandbox.id, "us")
            base = SandboxState(db, target, name=box.name).content.base
        known = {
            path: arrived_digest(entry) for path, entry in (base or {}).items() if entry.kind is not Kind.DIRECTORY
        }
        for path in sorted({*there, *known} - box.agents.keys() - box.free):
            content = content_of(there.get(path))
            if known.get(path) != (sha256(content).digest() if content else None):
                yield f"the base of {box.name} has another {path} than is there: {shown(there.get(path))}"


def files(top: Path) -> Tree:
    """Return the files below a folder."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # the sandbox's programs make files and remove them
            return {path: entry for path, entry in tree(top).items() if entry[0] == "file"}


def content_of(entry: Entry | None) -> bytes:
    """Return a file's content; empty for none, as no version is empty."""
    return entry[2] if entry is not None and isinstance(entry[2], bytes) else b""


def versions(path: str, entry: Entry | None) -> set[Version]:
    """Return the version that this is; its mode does not count."""
    return set() if entry is None else {(path, content_of(entry))}


def run_several(asked: tuple[str, int]) -> Result:
    """Run this seed's story below that folder; return figures, a report of what was lost, and no course."""
    place, seed = asked
    figures: Counter[str] = Counter(scenarios=1)
    with tempfile.TemporaryDirectory(dir=place, prefix="several-") as name:
        with Emulator(Path(name) / "emulator", api_key=KEY) as emulator:
            rig = Rig(Path(name), emulator)
            story = Story(rig, figures)
            try:
                story.run(drawn(SEVERAL, seed, _TEXTS))
            except (AssertionError, subprocess.TimeoutExpired, TooLong):
                story.lost.append(traceback.format_exc())
            finally:
                rig.close()
        lost = [*story.lost, *rig.leaks()]
        if not lost:
            return figures, [], ""
        figures["losses"] += 1
        return figures, ["\n".join([f"seed {seed}, with --several:", *story.log, "", *lost[:6], rig.report()])], ""
