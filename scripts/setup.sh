#!/bin/sh
# Makes sure that what the build needs is there: a cargo that is new enough, a C compiler for zstd and mimalloc, the
# sources of all dependencies, and the components of the toolchain that are named as arguments. Says nothing if all is
# there, and otherwise in one line what is missing.
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" > /dev/null 2>&1; }
fail() { echo "$*" >&2; exit 1; }

rustup="the Rust toolchain with rustup (https://www.rust-lang.org/tools/install)"
have cargo && have rustc || fail "cargo is missing: install $rustup"

# Older ones stumble over the edition before they say what they lack.
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(rustc --version | cut -d' ' -f2)
oldest=$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n1)
[ "$oldest" = "$needed" ] || fail "rustc $found is too old, $needed is needed: install $rustup, or run rustup update"

if ! have cc; then
    install="install the package build-essential (Debian) or gcc"
    [ "$(id -u)" = 0 ] && have apt-get || fail "a C compiler is missing: $install"
    echo "installing the package build-essential (a C compiler)"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y build-essential; } > /dev/null 2>&1 \
        || fail "a C compiler is missing, and its package cannot be installed: $install"
fi

host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked --target "$host" 2> /dev/null || cargo fetch --locked --target "$host" >&2 \
    || fail "the sources of the dependencies cannot be downloaded: see above, and run this again with a network"

for component in "$@"; do
    if ! have "cargo-${component#rust}"; then
        have rustup || fail "$component is missing: install this component of the Rust toolchain"
        rustup -q component add "$component"
    fi
done
