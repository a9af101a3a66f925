# `just` lists the recipes. `just check` runs exactly what CI runs.

_default:
    @just --list

# Everything that CI checks
check:
    .ci/run

# All tests, or those whose name contains a word: `just test merge`
test *ARGS:
    cargo test --workspace --locked {{ ARGS }}

# Format the code
fmt:
    cargo fmt --all

# Clippy, as strict as CI
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The API documentation, in target/doc
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# A local cluster: `just dev --workers 5`
dev *ARGS:
    cargo run --release --locked -p p2pctl -- dev {{ ARGS }}

# What calls cost, beside bare tonic, nginx, haproxy and NATS, in one run
bench *ARGS:
    scripts/measure_dataplane.py {{ ARGS }}
