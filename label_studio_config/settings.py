"""Django settings of the Label Studio that Planktrait hosts (`DJANGO_SETTINGS_MODULE`).

Everything comes from the home named by `$PLANKTRAIT_HOME`; the only other environment variables
that matter are Label Studio's own for PostgreSQL (`DJANGO_DB=default`, `POSTGRE_HOST`, …).

Closed, compared with Label Studio's defaults: sign-up without an invite link, requests from other
origins (CORS), host names other than loopback and `settings.json`'s `allowed_hosts`, every call to
the outside (Sentry, analytics, version check, the tips of the start page).
Opened: files under the one images root are served to logged-in people, and the address of our own
backend, only that one, passes the guard against requests to local addresses
(`plugin/backend_address.py`; see docs/security.md).
"""

import importlib.util
import logging
import os
import sys
from urllib.parse import urlsplit

from label_studio_config.home import Home
from label_studio_config.imported_later import imported_later

PLANKTRAIT_HOME = Home()
_home_settings = PLANKTRAIT_HOME.settings

# Label Studio's apps import each other as top-level packages (`core`, `projects`, …). Its folder
# goes on the path here and not in PYTHONPATH, where its sitecustomize.py would run too.
_spec = importlib.util.find_spec("label_studio")
if _spec is None or not _spec.submodule_search_locations:
    raise ImportError("label-studio is not installed: pip install --no-deps -r requirements.lock")
sys.path.insert(0, str(_spec.submodule_search_locations[0]))

# A variable with this prefix wins over one without, so that `HOST`, `DEBUG` or `CI` of the shell
# change nothing.
os.environ.update(
    {
        "SECRET_KEY": PLANKTRAIT_HOME.secrets.django_secret_key,
        "LABEL_STUDIO_BASE_DATA_DIR": str(PLANKTRAIT_HOME.label_studio_folder),
        # Empty: links are relative, so that localhost and 127.0.0.1 both work.
        "LABEL_STUDIO_HOST": "",
        "LABEL_STUDIO_DEBUG": "false",
        "LABEL_STUDIO_CI": "false",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_CORS_ALLOW_ALL_ORIGINS": "false",
        "LABEL_STUDIO_CORS_ALLOWED_ORIGINS": "",
        "LABEL_STUDIO_CORS_ALLOWED_ORIGIN_REGEXES": "",
        "LABEL_STUDIO_SENTRY_DSN": "",
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "true",
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "true",
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": _home_settings.images_root or "",
        # Without it each import of predictions recounts the whole project.
        "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
    }
)
if not _home_settings.images_root:
    os.environ["LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED"] = "false"

# Before Label Studio imports its SDK: config_xml puts off a part of it. With nltk, which is for
# exports of marked text, that is a quarter of the start.
import label_studio_config.config_xml  # noqa: F401

with imported_later({"nltk.tokenize.treebank": ["TreebankWordTokenizer"]}):
    from core.settings.base import *
    from core.settings.label_studio import *

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *_home_settings.allowed_hosts]
CSRF_TRUSTED_ORIGINS = [
    f"{scheme}://{host}" for scheme in ("https", "http") for host in _home_settings.allowed_hosts
]
CORS_ALLOW_ALL_ORIGINS = False
CORS_ALLOWED_ORIGINS: list[str] = []
INTERNAL_PORT = str(urlsplit(_home_settings.label_studio_url).port or 80)

INSTALLED_APPS += ["label_studio_config.plugin.apps.PlanktraitConfig"]
ROOT_URLCONF = "label_studio_config.plugin.urls"
MIDDLEWARE += ["label_studio_config.plugin.page_link.GalleryLink"]
PROJECT_MIXIN = "label_studio_config.plugin.project_access.ProjectMixin"
DATA_MANAGER_CHECK_ACTION_PERMISSION = "label_studio_config.plugin.access.may_act"
DATA_MANAGER_GET_ALL_COLUMNS = "label_studio_config.plugin.data_manager_columns.get_all_columns"

_database = DATABASES["default"]
if _database["ENGINE"].endswith("sqlite3"):
    _database["OPTIONS"] = {
        # Readers do not wait for the writer, and a transaction takes the write lock when it
        # begins: SQLite cannot wait for a lock that is asked for half-way.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 60,
    }
else:
    _database["CONN_MAX_AGE"] = 60
    _database["CONN_HEALTH_CHECKS"] = True

LOGGING["loggers"]["label_studio_config"] = {"level": "INFO"}


def _say_remedy(record: logging.LogRecord) -> bool:
    record.exc_info = None
    record.msg, record.args = f"{record.getMessage()} Planktrait: see docs/security.md.", ()
    return True


# A refused host name is one line in the log, which says what to do, without a traceback.
LOGGING.setdefault("filters", {})["say_remedy"] = {
    "()": "django.utils.log.CallbackFilter",
    "callback": _say_remedy,
}
LOGGING["loggers"]["django.security.DisallowedHost"] = {
    "handlers": ["console"],
    "filters": ["say_remedy"],
    "propagate": False,
}
