#!/usr/bin/env bash
# The tour of `make run`: builds the guide and lets it show the firewall at work, without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
if [ ! -x "$target/release/examples/tour" ] || [ loader/examples/tour.rs -nt "$target/release/examples/tour" ]; then
    cargo build --release --locked --quiet -p ebpf-manager --example tour
fi
exec "$target/release/examples/tour" "$target/release/ebpf-manager"
