# Every task by name. Each recipe is a command that also works without just.

# What there is.
default:
    @just --list

# The whole of Plaza in one process, on http://127.0.0.1:5000.
run *arguments:
    cargo run --release -- {{arguments}}

# All tests, and what they need; with words, only the tests whose names contain one of them.
test *words:
    scripts/test {{words}}

# Formatting, and lints with no warning left.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Formats the sources.
fmt:
    cargo fmt --all

# Writes the generated pages of docs/ anew.
docs:
    PLAZA_BLESS=1 cargo test -p plaza-tests --test system docs::

# The trace of one message over two edges, as text: from the client's frame to the last edge.
trace-demo:
    scripts/trace-demo

# Collector, Jaeger, Prometheus and, where it is installed, Grafana on this machine, beside `just run`.
observe *arguments:
    scripts/observe {{arguments}}

# Fuzzes every parser of foreign bytes: `just fuzz --seconds 600 username`, or all of them for 10 seconds each.
fuzz *arguments:
    scripts/fuzz {{arguments}}

# The chart without a cluster: renders, rules, refusals.
chart:
    cargo test -p plaza-tests --test chart

# The chart in a real Kubernetes: a node of this machine, or PLAZA_TEST_KUBECONFIG; with words, only some checks.
cluster *words:
    cargo build --workspace --bins
    cargo test -p plaza-tests --test cluster -- {{words}}

# Records what the chart renders now, and its table of values; read the difference.
chart-bless:
    scripts/chart-readme
    PLAZA_BLESS=1 cargo test -p plaza-tests --test chart golden::

# The three images; `just images --push PREFIX` pushes them, the rest goes to docker, podman or buildah.
images *arguments:
    scripts/images {{arguments}}

# A cluster in kind with Plaza in it, on http://localhost:5000.
kind: images
    k8s/kind/up

# Licences, advisories, bans and sources of all dependencies; needs `cargo install cargo-deny`.
deny:
    cargo deny --all-features check

# The benchmarks' table; `just bench --help` names the arguments.
bench *arguments:
    tests/bench/run {{arguments}}

# Breaks Plaza on purpose, row by row, and checks that no message is lost, doubled or out of order;
# `just chaos --help` lists the rows. An interactive terminal shows the progress.
chaos *arguments:
    scripts/chaos {{arguments}}
