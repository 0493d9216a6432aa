#!/bin/sh
# Builds ../core.wasm, and notes in ../core.sources what it was made of; a test compares that with what is there.
#
# Needs the sources of Rust's library, which is built for size as well: `rustup component add rust-src`. Another compiler, such
# as Debian's rustc-web with rust-web-src, is named by KAIROS_WASM_RUSTC, and another linker, such as wasm-ld, by
# KAIROS_WASM_LINKER.
set -eu
cd "$(dirname "$0")"

target=wasm32-unknown-unknown
export RUSTC="${KAIROS_WASM_RUSTC:-rustc}"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="${KAIROS_WASM_LINKER:-rust-lld}"
# Building the library is not for stable compilers. A panic needs no message: nothing in the module may panic.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none -Zfmt-debug=none'
cargo build --release --locked --target "$target" --target-dir ../../../target/wasm \
    -Zbuild-std=core,alloc,std,panic_abort -Zbuild-std-features=optimize_for_size
cp "../../../target/wasm/$target/release/kairos_client_wasm.wasm" ../core.wasm
chmod 644 ../core.wasm

cd ../../..
{
    find client-sdk/core/src client-sdk/web/core -name '*.rs' -o -name '*.toml' -o -name '*.lock'
    # What the state machine uses of the protocol.
    for module in bson/mod bson/read checksum ids line operation request; do echo "service/protocol/src/$module.rs"; done
    echo service/protocol/Cargo.toml
    echo client-sdk/core/Cargo.toml
    echo client-sdk/web/core.wasm
} | grep -v '_tests\.rs$' | LC_ALL=C sort | xargs sha256sum > client-sdk/web/core.sources
