"""The rights matrix as a table: for every command a line of it, and who may use it in the own channel and in another one.

``u`` is muted there, ``m`` a member, ``o`` a moderator, ``w`` the owner, ``d`` an admin of the server; of the other channel, which is
public, none of them is a member. In a private channel that one is not in nobody may anything, whoever it is, and who has not logged in
may nothing anywhere: these columns are the same for all.
"""

import attrs

ALL = "umowd"
MODERATORS = "owd"  # who moderates the own channel
OWNERS = "wd"
ADMINS = "d"
NOBODY = ""

ROLES = {"u": "muted", "m": "member", "o": "moderator", "w": "owner", "d": "admin"}


@attrs.frozen
class Row:
    """``line`` as typed in the place, {place} is its name; ``inside`` False: outside of any channel. ``own`` and ``other``: who may."""

    line: str
    own: str
    other: str
    inside: bool = True


def by_moderators(line):
    return Row(line, MODERATORS, ADMINS)


def by_admins(line):
    return Row(line, ADMINS, ADMINS)


def by_all(line):
    return Row(line, ALL, ALL)


TABLE = {
    "announce-only": by_moderators("announce-only on"),
    "audit": by_moderators("audit"),
    "ban": by_admins("ban lone 1h rude"),
    "ban-preview": by_admins("ban-preview lone"),
    "banned-users": by_admins("banned-users"),
    "broadcast": by_admins("broadcast hear"),
    "cancel-question": by_moderators("cancel-question {question}"),
    "channel-ban": by_moderators("channel-ban victim 1h rude"),
    "channel-unban": by_moderators("channel-unban exiled"),
    "channels": by_all("channels"),
    "clear": by_moderators("clear 1"),
    "close-report": by_moderators("close-report {report}"),
    "color": by_all("color red"),
    "command-history": by_all("command-history"),
    "create-channel": by_all("create-channel fresh"),
    "delete-channel": Row("delete-channel {place}", OWNERS, ADMINS, inside=False),
    "disable-command": by_moderators("disable-command users here"),
    "enable-command": by_moderators("enable-command users here"),
    "filter": by_moderators("filter add eggs"),
    "help": by_all("help"),
    "history-mode": Row("history-mode none", OWNERS, ADMINS),
    "ignore": by_all("ignore victim"),
    "ignored": by_all("ignored"),
    "invite-only": by_moderators("invite-only on"),
    "invite-user": by_moderators("invite-user lone"),
    "join-channel": Row("join-channel {place}", ALL, ALL, inside=False),
    "kick": by_moderators("kick victim rude"),
    "leave-channel": Row("leave-channel", ALL, NOBODY),
    "lockdown": by_admins("lockdown members"),
    "mute": by_moderators("mute victim 1h rude"),
    "perm": by_all("perm victim"),
    "plugins": by_admins("plugins"),
    "questions": by_all("questions"),
    "reload-commands": by_admins("reload-commands"),
    "report": Row("report victim rude", ALL, NOBODY),
    "reports": by_moderators("reports"),
    "sanctions": by_moderators("sanctions"),
    "server-filter": by_admins("server-filter add eggs"),
    "set-prefix": by_moderators("set-prefix !"),
    "set-user-perm": Row("set-user-perm victim moderator", OWNERS, ADMINS),
    "slow-mode": by_moderators("slow-mode 5"),
    "tell": by_all("tell victim hi"),
    "topic": by_moderators("topic tea"),
    "unban": by_admins("unban outcast"),
    "unignore": by_all("unignore victim"),
    "uninvite-user": by_moderators("uninvite-user guest"),
    "unmute": by_moderators("unmute victim"),
    "user-count": by_all("user-count"),
    "users": by_all("users"),
    "why": by_all("why"),
}
