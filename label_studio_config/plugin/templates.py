"""Our labeling configs, offered first in Label Studio's create-project dialog."""

from __future__ import annotations

import logging
import re
from html import escape
from typing import Any

from label_studio_config.project import CONFIGS_FOLDER

logger = logging.getLogger(__name__)

GROUP = "Plankton"
THUMBNAIL_URL = "/planktrait/plankton.svg"


def register() -> None:
    """Append our templates to Label Studio's list; safe to repeat."""
    from projects.api import TemplateListAPI

    offered = TemplateListAPI.templates_and_groups
    if GROUP not in offered["groups"]:
        offered["groups"].insert(0, GROUP)
        offered["templates"].extend(templates())


def templates() -> list[dict[str, Any]]:
    """One template a config file, described by the first comment in it."""
    found = []
    for path in sorted(CONFIGS_FOLDER.glob("*.xml")):
        xml = path.read_text(encoding="utf-8")
        title = path.stem.replace("_", " ").capitalize()
        found.append(
            {
                "title": title,
                "type": "community",
                "group": GROUP,
                "image": THUMBNAIL_URL,
                "details": f"<h1>{escape(title)}</h1><p>{escape(description(xml))}</p>",
                "config": xml,
            }
        )
    logger.debug("%d plankton templates", len(found))
    return found


def description(xml: str) -> str:
    """What a config says of itself: its first comment."""
    comment = re.search(r"<!--(.*?)-->", xml, flags=re.DOTALL)
    return " ".join(comment.group(1).split()) if comment else ""
