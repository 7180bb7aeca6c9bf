# shellcheck shell=sh
# What the scripts here share; sourced by each of them, in the directory above this one.

# Over `su`, root's PATH may lack the directories of dockerd and iptables.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
mkdir -p .cache

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# is_new_enough PYTHON
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# What setup.cfg requires, without its extras, in the lowest version that it allows: a line NAME==VERSION for each.
lowest_versions() {
    sed -n '/^install_requires/,/^$/s/^    \([A-Za-z0-9._-]*\)>=\([0-9.]*\).*/\1==\2/p' setup.cfg
}

is_root() { [ "$(id -u)" = 0 ]; }

can_apt() { is_root && has apt-get; }

# apt_install PACKAGE...: one at a time, since apt-get itself waits for some of its locks only.
apt_install() {
    say "Installing $* with apt-get."
    exec 9>.cache/apt.lock
    flock 9
    # A new machine has no package lists, another one old lists; where they are good, this saves half a minute.
    if ! apt_get install "$@" >.cache/apt.log 2>&1; then
        # A foreign source that is broken fails the update, but not what comes from Debian.
        apt_get update >>.cache/apt.log 2>&1 || true
        apt_get install "$@" >>.cache/apt.log 2>&1 || {
            tail -n 20 .cache/apt.log >&2
            die "apt-get could not install $*; see above, or .cache/apt.log for all of it."
        }
    fi
    exec 9>&-
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive \
        apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" </dev/null
}
