"""``reactorcide token`` and ``reactorcide user``: for the operator, directly on the database.

They work with and without a running service. A running service sees the change at its next request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from reactorcide.accounts import AccountContext, invitations, tokens, users
from reactorcide.cli import render
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.domain.accounts import Role, Scope, Token
from reactorcide.domain.audit import operator
from reactorcide.lib.clock import now_ms, rfc3339

_DAY_MS = 86_400_000
_MAX_DAYS = 36_500
_MAX_NAME_CHARS = 255

_data_dir = settings_options("data_dir", "database")
_email = click.option("--email", help="Email address, for information; no mail is sent.")
_role = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.USER.value,
    show_default=True,
    help="Role; an admin sees the jobs of all users.",
)


@contextmanager
def _accounts(options: dict[str, Any]) -> Iterator[AccountContext]:
    from reactorcide.app.operator import open_accounts

    with open_accounts(settings_from(options)) as context:
        yield context


@click.group()
def token() -> None:
    """Create, list and revoke tokens, directly in the database."""


@token.command("create")
@click.option(
    "--user",
    "username",
    metavar="NAME",
    default=users.ADMIN_NAME,
    show_default=True,
    help="User of the token.",
)
@click.option("--name", default="command line", show_default=True, help="Name of the token.")
@click.option(
    "--expires-in",
    type=click.IntRange(1, _MAX_DAYS),
    metavar="DAYS",
    help="Days until the token expires; never by default.",
)
@click.option("--value", help="Value of the token, at least 16 characters; random by default.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="Scope of the token; repeatable. By default the token may do all that its user may.",
)
@_data_dir
def create_token(
    username: str,
    name: str,
    expires_in: int | None,
    value: str | None,
    scopes: tuple[str, ...],
    **options: Any,
) -> None:
    """Create a token and print its value. The value cannot be shown again."""
    if not 0 < len(name) <= _MAX_NAME_CHARS:
        raise click.BadParameter(f"1 to {_MAX_NAME_CHARS} characters", param_hint="--name")
    expires_at_ms = None if expires_in is None else now_ms() + expires_in * _DAY_MS
    with _accounts(options) as context:
        user = users.by_name(context, username)
        created, value = tokens.create(
            context,
            user,
            name,
            by=operator(),
            expires_at_ms=expires_at_ms,
            value=value,
            scopes=[Scope(scope) for scope in scopes] or None,
        )
    render.say(value)
    render.say(f"token {created.token_id} of {username}, expires: {_time(created.expires_at_ms)}", err=True)
    if not user.is_active:
        render.say(f"{username} is disabled: the token is refused until the user is enabled", err=True)


@token.command("list")
@click.option("--user", "username", metavar="NAME", help="List only the tokens of this user.")
@_data_dir
def list_tokens(username: str | None, **options: Any) -> None:
    """List tokens, without their values."""
    with _accounts(options) as context:
        names = {user.user_id: user.username for user in users.all_users(context)}
        if username is None:
            listed = tokens.of_all_users(context)
        else:
            listed = tokens.of_user(context, users.by_name(context, username))
    render.table(
        ("ID", "USER", "NAME", "CREATED", "EXPIRES", "LAST USED", "SCOPES"),
        [
            (
                item.token_id,
                names[item.user_id],
                item.name,
                rfc3339(item.created_at_ms),
                _expiry(item),
                _time(item.last_used_at_ms),
                "all" if item.scopes is None else ",".join(sorted(item.scopes)),
            )
            for item in listed
        ],
        flexible="NAME",
    )


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@_data_dir
def revoke_token(token_id: str, **options: Any) -> None:
    """Revoke a token. It is refused from the next request on."""
    with _accounts(options) as context:
        tokens.revoke_of_any_user(context, token_id, by=operator())
    render.say(f"{token_id} revoked")


@click.group()
def user() -> None:
    """Create, invite, list, change and remove users, directly in the database."""


@user.command("create")
@click.argument("username", metavar="NAME")
@_email
@_role
@_data_dir
def create_user(username: str, email: str | None, role: str, **options: Any) -> None:
    """Create a user and print the id."""
    with _accounts(options) as context:
        created = users.create(context, username, email=email, role=Role(role), by=operator())
    render.say(created.user_id)
    render.say(f"for a token: reactorcide token create --user {username}", err=True)


@user.command("list")
@_data_dir
def list_users(**options: Any) -> None:
    """List users."""
    with _accounts(options) as context:
        everybody = users.all_users(context)
    render.table(
        ("ID", "NAME", "ROLE", "STATE", "EMAIL", "CREATED"),
        [
            (
                item.user_id,
                item.username,
                item.role,
                "active" if item.is_active else "disabled",
                item.email or "",
                rfc3339(item.created_at_ms),
            )
            for item in everybody
        ],
        flexible="EMAIL",
    )


@user.command("disable")
@click.argument("username", metavar="NAME")
@_data_dir
def disable_user(username: str, **options: Any) -> None:
    """Disable a user. All their tokens are refused from the next request on."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, is_active=False, by=operator())
    render.say(f"{username} disabled")


@user.command("enable")
@click.argument("username", metavar="NAME")
@_data_dir
def enable_user(username: str, **options: Any) -> None:
    """Enable a user again. Their tokens are accepted again."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, is_active=True, by=operator())
    render.say(f"{username} enabled")


@user.command("role")
@click.argument("username", metavar="NAME")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@_data_dir
def change_role(username: str, role: str, **options: Any) -> None:
    """Change the role of a user to admin or user."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, role=Role(role), by=operator())
    render.say(f"{username} is {role} now")


@user.command("remove")
@click.argument("username", metavar="NAME")
@_data_dir
def remove_user(username: str, **options: Any) -> None:
    """Remove a user and their tokens. Finished jobs stay visible to admins; unfinished jobs prevent it."""
    with _accounts(options) as context:
        users.remove(context, users.by_name(context, username).user_id, by=operator())
    render.say(f"{username} removed")


@user.command("invite")
@_email
@_role
@click.option(
    "--expires-in",
    type=click.IntRange(1, _MAX_DAYS),
    metavar="DAYS",
    default=7,
    show_default=True,
    help="Days until the invitation expires.",
)
@_data_dir
def invite_user(email: str | None, role: str, expires_in: int, **options: Any) -> None:
    """Create an invitation and print it. Its holder registers once, with POST /api/v1/register."""
    expires_at_ms = now_ms() + expires_in * _DAY_MS
    with _accounts(options) as context:
        invitation, value = invitations.create(
            context, None, by=operator(), role=Role(role), email=email, expires_at_ms=expires_at_ms
        )
    render.say(value)
    render.say(f"invitation {invitation.invitation_id}, expires: {_time(invitation.expires_at_ms)}", err=True)


def _expiry(item: Token) -> str:
    if not item.is_active:
        return "disabled"
    if item.expires_at_ms is not None and item.expires_at_ms <= now_ms():
        return "expired"
    return _time(item.expires_at_ms)


def _time(unix_ms: int | None) -> str:
    return "never" if unix_ms is None else rfc3339(unix_ms)
