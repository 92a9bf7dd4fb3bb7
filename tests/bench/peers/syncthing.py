"""Two instances of Syncthing on loopback, without discovery, relays and reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.bench.peers.folders import Mirror
from tests.bench.peers.peer import Ground, Peer
from tests.bench.peers.processes import Processes, free_port, started
from tests.bench.peers.wire import Meter, forwarded

_OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "crashReportingEnabled": "false",
    "startBrowser": "false",
    "urAccepted": "-1",
    "autoUpgradeIntervalH": "0",
    "reconnectionIntervalS": "1",
}


def _generated(processes: Processes, folder: Path) -> str:
    """Make a key and a configuration, and return the device's id."""
    processes.output("syncthing", "generate", f"--home={folder}")
    device = ET.parse(folder / "config.xml").getroot().find("device")
    assert device is not None
    return device.attrib["id"]


def configured(config: str, tree: Path, listen: str, devices: dict[str, str], quiet_s: float) -> str:
    """Return a generated configuration with one shared folder; `devices` are the addresses by id, "" for none."""
    root = ET.fromstring(config)
    for tag in ("folder", "device", "gui"):
        for each in root.findall(tag):
            root.remove(each)
    options = root.find("options")
    options = ET.SubElement(root, "options") if options is None else options
    for name, value in {**_OPTIONS, "listenAddress": listen}.items():
        for each in options.findall(name):
            options.remove(each)
        ET.SubElement(options, name).text = value
    ET.SubElement(root, "gui", enabled="false")
    folder = ET.SubElement(
        root,
        "folder",
        {"id": "tree", "path": str(tree), "fsWatcherEnabled": "true", "fsWatcherDelayS": f"{quiet_s:g}"},
    )
    for name, address in devices.items():
        ET.SubElement(folder, "device", id=name)
        device = ET.SubElement(root, "device", id=name)
        ET.SubElement(device, "address").text = address or "tcp://127.0.0.1:9"  # discard: nobody is there
    return ET.tostring(root, encoding="unicode")


@contextmanager
def _running(ground: Ground) -> Iterator[Mirror]:
    meter = Meter()
    homes = ground.home / "here", ground.home / "there"
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        ids = [_generated(processes, home) for home in homes]
        ports = free_port(), free_port()
        with forwarded(ports[1], meter) as counted:
            trees = ground.source, ground.target
            for number, home in enumerate(homes):
                (trees[number] / ".stfolder").mkdir()
                config = home / "config.xml"
                addresses = {ids[0]: "", ids[1]: f"tcp://127.0.0.1:{counted}" if number == 0 else ""}
                listen = f"tcp://127.0.0.1:{ports[number]}"
                config.write_text(configured(config.read_text(), trees[number], listen, addresses, ground.quiet_s))
                words = ("--no-browser", "--no-restart", "--no-upgrade")
                processes.start("syncthing", "serve", f"--home={home}", *words)
            yield Mirror(ground, processes, meter)


SYNCTHING = Peer("Syncthing", ("syncthing",), "two instances; TLS, through a counting proxy", _running)
