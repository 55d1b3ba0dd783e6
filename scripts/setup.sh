#!/bin/sh
# Makes sure that what the build needs is there: cargo, a C compiler for zstd and mimalloc, and the components of the
# toolchain that are named as arguments. Says nothing if all is there.
set -eu

have() { command -v "$1" > /dev/null 2>&1; }

if ! have cargo; then
    echo "cargo is missing: install the Rust toolchain with rustup (https://www.rust-lang.org/tools/install)" >&2
    exit 1
fi

if ! have cc; then
    if [ "$(id -u)" = 0 ] && have apt-get; then
        echo "installing the package build-essential (a C compiler)"
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y build-essential > /dev/null
    else
        echo "a C compiler is missing: install the package build-essential (Debian) or gcc" >&2
        exit 1
    fi
fi

for component in "$@"; do
    if ! have "cargo-${component#rust}"; then
        if have rustup; then
            rustup -q component add "$component"
        else
            echo "$component is missing: install this component of the Rust toolchain" >&2
            exit 1
        fi
    fi
done
