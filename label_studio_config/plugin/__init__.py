"""The Django app that runs inside Label Studio: actions, templates, pages. Never torch."""
