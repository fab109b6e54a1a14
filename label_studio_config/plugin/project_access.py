"""Label Studio's own check of a project, made stricter: its setting `PROJECT_MIXIN`.

Of tasks, annotations, images, storages and ML backends, too: Label Studio asks their project.
"""

from __future__ import annotations

from typing import Any

from projects import mixins


class ProjectMixin(mixins.ProjectMixin):
    """What every project of Label Studio can do."""

    organization_id: int | None

    def has_permission(self, user: Any) -> bool:
        """Whether the person is, and is still, in the project's organisation.

        Label Studio's open edition expects one organisation only, and asks nobody for theirs.
        """
        if self.organization_id != getattr(user, "active_organization_id", None):
            return False
        return bool(super().has_permission(user))
