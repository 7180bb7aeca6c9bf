"""``reactorcide token`` and ``reactorcide user``: for the operator, against the database directly.

They work while a service runs, which sees what they changed with its next request, and while none does.
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

_data_dir = settings_options("data_dir")
_email = click.option("--email", help="For the operator; no mail is sent.")
_role = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.USER.value,
    show_default=True,
    help="An admin sees everybody's jobs.",
)


@contextmanager
def _accounts(options: dict[str, Any]) -> Iterator[AccountContext]:
    from reactorcide.app import open_accounts

    with open_accounts(settings_from(options)) as context:
        yield context


@click.group()
def token() -> None:
    """Make, list and revoke tokens, in the database directly."""


@token.command("create")
@click.option(
    "--user", "username", metavar="NAME", default=users.ADMIN_NAME, show_default=True, help="Whose."
)
@click.option("--name", default="command line", show_default=True, help="What it is for.")
@click.option("--expires-in", type=click.IntRange(1, _MAX_DAYS), metavar="DAYS", help="Never by default.")
@click.option("--value", help="A value of at least 16 characters, in place of a random one.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="What it may be used for; may be given more than once. Whatever the user may, by default.",
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
    """Make a token; its value is printed, and never to be had again."""
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
        render.say(f"{username} is disabled, so that it will not be accepted", err=True)


@token.command("list")
@click.option("--user", "username", metavar="NAME", help="Only theirs.")
@_data_dir
def list_tokens(username: str | None, **options: Any) -> None:
    """List tokens, never their values."""
    with _accounts(options) as context:
        names = {user.user_id: user.username for user in users.everybody(context)}
        if username is None:
            listed = tokens.of_everybody(context)
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
    """Revoke a token: from the next request on it is not accepted."""
    with _accounts(options) as context:
        tokens.revoke_of_anybody(context, token_id, by=operator())
    render.say(f"{token_id} revoked")


@click.group()
def user() -> None:
    """Make, invite, list, change and remove users, in the database directly."""


@user.command("create")
@click.argument("username", metavar="NAME")
@_email
@_role
@_data_dir
def create_user(username: str, email: str | None, role: str, **options: Any) -> None:
    """Make a user; prints the id."""
    with _accounts(options) as context:
        created = users.create(context, username, email=email, role=Role(role), by=operator())
    render.say(created.user_id)
    render.say(f"for a token: reactorcide token create --user {username}", err=True)


@user.command("list")
@_data_dir
def list_users(**options: Any) -> None:
    """List users."""
    with _accounts(options) as context:
        everybody = users.everybody(context)
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
    """Disable a user: from the next request on none of their tokens is accepted."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, is_active=False, by=operator())
    render.say(f"{username} disabled")


@user.command("enable")
@click.argument("username", metavar="NAME")
@_data_dir
def enable_user(username: str, **options: Any) -> None:
    """Enable a user again, with the tokens they have."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, is_active=True, by=operator())
    render.say(f"{username} enabled")


@user.command("role")
@click.argument("username", metavar="NAME")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@_data_dir
def change_role(username: str, role: str, **options: Any) -> None:
    """Make a user an admin, or an admin a user."""
    with _accounts(options) as context:
        user_id = users.by_name(context, username).user_id
        users.change(context, user_id, role=Role(role), by=operator())
    render.say(f"{username} is {role} now")


@user.command("remove")
@click.argument("username", metavar="NAME")
@_data_dir
def remove_user(username: str, **options: Any) -> None:
    """Remove a user without unfinished jobs, and their tokens; the jobs stay, for admins to see."""
    with _accounts(options) as context:
        users.remove(context, users.by_name(context, username).user_id, by=operator())
    render.say(f"{username} removed")


@user.command("invite")
@_email
@_role
@click.option("--expires-in", type=click.IntRange(1, _MAX_DAYS), metavar="DAYS", default=7, show_default=True)
@_data_dir
def invite_user(email: str | None, role: str, expires_in: int, **options: Any) -> None:
    """Make an invitation; whoever has it becomes a user by POST /api/v1/register, once."""
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
