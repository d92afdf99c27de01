# What the set-up scripts share: messages, the cache folder, asking for system packages.
# Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${GRAPHLET_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/graphlet}

# Bold on a terminal only (https://no-color.org).
bold= plain=
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# packages WHY NAME...: installs Debian packages that are missing. As root or in CI it does so at
# once; otherwise it shows the command and asks.
packages() {
    local why=$1 missing=() package answer
    shift
    have apt-get || die "$why: $* (Debian's names) are needed, and this system has no apt-get" \
        "install their counterparts with your package manager, then run the command again"
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "$why: installing ${missing[*]}"
    if [ "$(id -u)" = 0 ]; then
        apt_install "" "${missing[@]}"
    elif [ -n "${CI:-}" ]; then
        apt_install sudo "${missing[@]}"
    else
        note "sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
        [ -t 0 ] || die "system packages are missing" "run the command above, then this one again"
        read -r -p "    Run it now? [y/N] " answer
        [ "$answer" = y ] || [ "$answer" = Y ] || die "system packages are missing" "run the command above, then this one again"
        apt_install sudo "${missing[@]}"
    fi
}

apt_install() {
    local as=$1
    shift
    $as apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive $as apt-get install -y -qq --no-install-recommends "$@" >"$cache/apt.log" 2>&1 ||
        die "apt-get could not install $*" "see $cache/apt.log; on Debian 12 the Rust packages come from bookworm-security"
}
