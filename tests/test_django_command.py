"""What a command of Label Studio's process says of its end, from what it has logged."""

import pytest

from hpc_jobs.errors import told as told_by_job
from label_studio_config.django_command import error_of

FULL = "the disk of the database is full: make room, and start it again"


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("Traceback …\nValueError: no such thing\n", "ValueError: no such thing"),
        ("CommandError: shards of another version", "shards of another version"),
        ("", "it was killed"),
        (
            "Traceback …\npsycopg.errors.DiskFull: could not extend file: No space left on device\n"
            'HINT:  Check free disk space.\nCONTEXT:  COPY task, line 3: "server/a.png"\n',
            f"{FULL} (psycopg.errors.DiskFull: could not extend file: No space left on device "
            'HINT:  Check free disk space. CONTEXT:  COPY task, line 3: "server/a.png")',
        ),
        (
            "django.db.utils.OperationalError: database or disk is full",
            f"{FULL} (django.db.utils.OperationalError: database or disk is full)",
        ),
        (
            "OSError: [Errno 28] No space left on device: 'x'",
            "the disk is full: make room, and start it again "
            "(OSError: [Errno 28] No space left on device: 'x')",
        ),
        (
            "psycopg.OperationalError: connection failed: refused",
            "psycopg.OperationalError: connection failed: refused Is the database running?",
        ),
        (
            "psycopg.errors.AdminShutdown: terminating connection",
            "psycopg.errors.AdminShutdown: terminating connection Is the database running?",
        ),
        (
            "psycopg.errors.SyntaxError: unterminated quoted string",
            "psycopg.errors.SyntaxError: unterminated quoted string",
        ),
    ],
)
def test_the_error_is_named_with_what_to_do(log, told):
    error = error_of(log)
    assert str(error) == told
    assert error.refused == log.startswith("CommandError")


def test_a_job_that_ends_by_it_says_it_once():
    error = error_of("psycopg.errors.DiskFull: could not extend: No space left on device")
    assert told_by_job(error) == f"DjangoCommandError: {error}"
