"""Registers what Planktrait adds to Label Studio, through its named surfaces."""

from django.apps import AppConfig
from django.conf import settings


class PlanktraitConfig(AppConfig):
    """The plugin: actions in the Data Manager, labeling configs in the create-project dialog."""

    name = "label_studio_config.plugin"
    label = "planktrait"
    verbose_name = "Planktrait"

    def ready(self) -> None:
        """Called by Django once all apps are loaded."""
        from label_studio_config.plugin import (
            access,
            actions,
            backend_address,
            blind_tasks,
            data_manager_columns,
            export_action,
            gallery_signals,
            judging_actions,
            label_stream,
            owner_only,
            second_opinion,
            second_opinion_views,
            templates,
        )

        actions.register()
        judging_actions.register()
        export_action.register()
        label_stream.register()
        second_opinion.guard()
        second_opinion_views.register()
        data_manager_columns.register()
        templates.register()
        owner_only.guard()
        access.guard_actions()
        blind_tasks.guard()
        gallery_signals.connect()
        backend_address.allow(settings.PLANKTRAIT_HOME.settings.backend_url)
