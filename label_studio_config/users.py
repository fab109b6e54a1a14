"""Annotators: accounts in Label Studio, each with a token of its own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from label_studio_config.api import Api, ApiError
from label_studio_config.home import Home


class UserError(ValueError):
    """An account that cannot be made; the message says why."""


@dataclass(frozen=True)
class UserInfo:
    """An account. `password` is None if the account existed: it is not changed."""

    id: int
    email: str
    created: bool
    password: str | None = field(repr=False)
    token: str = field(repr=False)


def add_user(home: Home, email: str, password: str | None = None) -> UserInfo:
    """Add an annotator to the organisation; an existing one is returned as it is.

    Annotations that are sent with the returned token bear this person's name.

    Parameters
    ----------
    email : the log-in name
    password : at least 8 characters; generated if not given

    Raises
    ------
    UserError
        If Label Studio refuses the address or the password.
    """
    password = password or secrets.token_urlsafe(9)
    try:
        answer = Api(home).post("/api/planktrait/users", {"email": email, "password": password})
    except ApiError as error:
        raise UserError(f"cannot add {email!r}: {error}") from error
    return UserInfo(
        id=answer["id"],
        email=answer["email"],
        created=answer["created"],
        password=password if answer["created"] else None,
        token=answer["token"],
    )
