"""Adds to the metadata of a build what depends on the place that publishes it: its addresses, and a README for an index.

That place is $REPOSITORY, such as https://git.example.com/us/syncd. A build without it gets no addresses, and the README
as it is: its links lead to files beside it, which an index does not have.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class PublishedMetadata(MetadataHookInterface):
    """What `dynamic` of pyproject.toml lists, but for the version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add `readme` and `urls`."""
        text = Path(self.root, "README.md").read_text("utf-8")
        repository = os.environ.get("REPOSITORY")
        metadata["urls"] = {}
        if repository:
            at = f"v{metadata['version']}"
            text = re.sub(r"(!\[[^\]]*\]\()(?=docs/)", rf"\1{repository}/raw/{at}/", text)
            text = re.sub(r"(\]\()(?![a-z]+:|#)", rf"\1{repository}/blob/{at}/", text)
            metadata["urls"] = {
                "Repository": repository,
                "Documentation": f"{repository}/blob/{at}/README.md#documents",
                "Changelog": f"{repository}/blob/{at}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
