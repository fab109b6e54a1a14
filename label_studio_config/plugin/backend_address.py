"""One exception to Label Studio's guard against requests to local addresses: our own backend.

The guard stays on. Without this, Label Studio refuses a backend on 127.0.0.1 (the backend row, the
webhook it makes, and each request). Only an address with the backend's scheme, host and port
passes, only in the four places that talk to a backend, and a redirect from there to anywhere else
meets the guard again. Importing tasks from an address, storages and exports are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import ml.api_connector
import ml.serializers
import webhooks.serializers
import webhooks.utils
from core.utils.io import ssrf_safe_session
from requests.adapters import HTTPAdapter

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address without user name; None if it is not such a one."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if port is None or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port


def allow(backend_url: str) -> None:
    """Let Label Studio's backend and webhook code reach `backend_url`, nothing else local.

    Raises
    ------
    ValueError
        If `backend_url` is no http address.
    """
    backend = origin(backend_url)
    if backend is None:
        raise ValueError(
            f"backend_url {backend_url!r} is not http(s)://host:port: fix settings.json"
        )
    scheme, host, port = backend
    base = f"{scheme}://{host}:{port}"

    def unless_backend(validate: Callable[..., None]) -> Callable[..., None]:
        def validate_unless_backend(url: str, *args: Any, **kwargs: Any) -> None:
            if origin(url) != backend:
                validate(url, *args, **kwargs)

        return validate_unless_backend

    ml.serializers.validate_upload_url = unless_backend(ml.serializers.validate_upload_url)
    webhooks.serializers.validate_url_for_ssrf = unless_backend(
        webhooks.serializers.validate_url_for_ssrf
    )

    send_guarded = webhooks.utils.ssrf_safe_post

    def send_webhook(url: str, *args: Any, **kwargs: Any) -> Any:
        if origin(url) != backend:
            return send_guarded(url, *args, **kwargs)
        with ssrf_safe_session(trusted_origin=base) as session:
            return session.post(url, *args, **kwargs)

    webhooks.utils.ssrf_safe_post = send_webhook

    create_guarded = ml.api_connector.BaseHTTPAPI.create_session

    def create_session(self: Any) -> Any:
        session = create_guarded(self)
        # The trailing slash keeps http://127.0.0.1:9090.example.org from matching.
        session.mount(f"{base}/", HTTPAdapter(max_retries=self._max_retries))
        return session

    ml.api_connector.BaseHTTPAPI.create_session = create_session
