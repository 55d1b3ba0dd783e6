#!/bin/sh
# Makes sure that what the build needs is there: a cargo that is new enough, a C compiler for zstd and mimalloc, the
# sources of all dependencies, and what is named as arguments: components of the toolchain, or rocksdb for what its build
# needs. Says nothing if all is there, and otherwise in one line what is missing.
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

# package NAME WHAT ELSEWHERE: installs a package of Debian's, or says what is missing.
package() {
    install="install the package $1 (Debian) or $3"
    [ "$(id -u)" = 0 ] && have apt-get || fail "$2 is missing: $install"
    echo "installing the package $1 ($2)"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1"; } \
        > /dev/null 2>&1 || fail "$2 is missing, and its package cannot be installed: $install"
}

# libclang reads RocksDB's header. Where LIBCLANG_PATH names it, it need not be where it is looked for.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    for lib in /usr/lib*/libclang.so* /usr/lib*/libclang-[0-9]*.so* /usr/lib/*/libclang.so* /usr/lib/*/libclang-[0-9]*.so* \
        /usr/lib/llvm*/lib/libclang.so* /usr/local/lib/libclang.so*; do
        [ -e "$lib" ] && return
    done
    return 1
}

have cc || package build-essential "a C compiler" gcc

host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked --target "$host" 2> /dev/null || cargo fetch --locked --target "$host" >&2 \
    || fail "the sources of the dependencies cannot be downloaded: see above, and run this again with a network"

for component in "$@"; do
    if [ "$component" = rocksdb ]; then
        have c++ || package build-essential "a C++ compiler" g++
        have_libclang || package libclang-dev libclang "libclang, and name its directory in LIBCLANG_PATH"
    elif ! have "cargo-${component#rust}"; then
        have rustup || fail "$component is missing: install this component of the Rust toolchain"
        rustup -q component add "$component"
    fi
done
