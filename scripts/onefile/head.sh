#!/bin/sh
# Reactorcide in one file, for Linux on @MACHINE@ with glibc @GLIBC@ or later. The archive after the last line is
# unpacked once into the user's cache, and run from there.
set -eu

fail() {
    printf 'reactorcide: %s\n' "$*" >&2
    exit 1
}

case ${XDG_CACHE_HOME:-} in
    /*) cache=$XDG_CACHE_HOME/reactorcide ;;
    *) cache=${HOME:-}/.cache/reactorcide ;;
esac
unpacked=$cache/@NAME@

unpack() {
    mkdir -p "$cache" || fail "cannot unpack; set XDG_CACHE_HOME to a directory that this user can write"
    [ -O "$cache" ] || fail "$cache belongs to another user; set XDG_CACHE_HOME to a directory of yours"
    part=$(mktemp -d "$cache/.part.XXXXXX") || fail "cannot unpack into $cache"
    trap 'rm -rf "$part"' EXIT
    trap 'exit 1' HUP INT TERM
    tail -c +@OFFSET@ "$0" | tar -xzf - -C "$part" ||
        fail "cannot unpack into $cache: it needs 100 MB there, and this file has to be complete"
    # Another start may have been faster.
    mv -T "$part/reactorcide" "$unpacked" 2>/dev/null || [ -x "$unpacked/reactorcide" ] ||
        fail "cannot unpack to $unpacked"
    rm -rf "$part"
    trap - EXIT HUP INT TERM
}

[ -x "$unpacked/reactorcide" ] || (umask 077 && unpack) || exit 1
[ -O "$unpacked" ] || fail "$unpacked belongs to another user; set XDG_CACHE_HOME to a directory of yours"
exec "$unpacked/reactorcide" "$@"
