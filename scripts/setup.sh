#!/bin/sh
# Makes sure that what the build needs is there: a cargo that is new enough, a C compiler for zstd and mimalloc, the
# sources of all dependencies, and what is named as arguments: components of the toolchain, rocksdb for what its build
# needs, or s3 for the server of the S3 tests. Says nothing if all is there, and otherwise in one line what is missing.
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

# The server of the S3 tests, a Python program, in an environment of its own; docs/0016-s3.md says why this one. A new list
# of packages makes a new environment.
s3_server() {
    home=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-s3
    cmp -s scripts/s3_requirements.txt "$home/installed" && return
    have python3 || package python3 "python3 (for the server of the S3 tests)" "Python 3.10 or newer"
    python3 -c 'import ensurepip' 2> /dev/null || package python3-venv "Python's venv" "Python 3.10 or newer with venv"
    echo "installing moto, the server of the S3 tests, into $home"
    rm -rf "$home"
    { python3 -m venv "$home" && "$home/bin/pip" install --quiet --disable-pip-version-check -r scripts/s3_requirements.txt; } >&2 \
        || fail "the server of the S3 tests cannot be installed: see above, and run this again with a network"
    cp scripts/s3_requirements.txt "$home/installed"
}

have cc || package build-essential "a C compiler" gcc

host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked --target "$host" 2> /dev/null || cargo fetch --locked --target "$host" >&2 \
    || fail "the sources of the dependencies cannot be downloaded: see above, and run this again with a network"

for component in "$@"; do
    if [ "$component" = rocksdb ]; then
        have c++ || package build-essential "a C++ compiler" g++
        have_libclang || package libclang-dev libclang "libclang, and name its directory in LIBCLANG_PATH"
    elif [ "$component" = s3 ]; then
        s3_server
    elif ! have "cargo-${component#rust}"; then
        have rustup || fail "$component is missing: install this component of the Rust toolchain"
        rustup -q component add "$component"
    fi
done
