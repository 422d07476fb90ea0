# What CI does, by name. `.ci/run` calls these where `just` is not installed too: it runs the same commands.

# List the recipes.
default:
    @just --list

# Everything that CI checks.
ci:
    ./.ci/run

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Every test. The first run installs pinned MCP servers and clients into .fixtures/.
test *ARGS:
    cargo test --workspace --locked {{ ARGS }}

# The tests over real processes, alone.
blackbox *ARGS:
    cargo test --package comity-tests --locked {{ ARGS }}

# Real nodes over a network that is cut and healed: `just network heal`, `just network --repeat 20 heal`.
network *ARGS:
    cargo test --package comity-tests --locked --test network -- {{ ARGS }}

# That the core stays pure.
purity:
    cargo test --package comity-tests --locked --test blackbox purity

# Three organisations at work on this machine.
demo *ARGS:
    cargo run --locked --bin comity -- demo {{ ARGS }}

# The simulator's first tier at length: three hundred seeds, and a federation of a thousand nodes.
simulate:
    cargo build --locked --package comity-simnet
    target/debug/simnet soak mixed --seeds 210
    target/debug/simnet soak calm split edge hostile residency narrow-trust clocks lossy disks --seeds 10
    target/debug/simnet run thousand

# The simulator's figures for a federation of so many nodes.
figures NODES="1000":
    cargo run --locked --bin simnet -- figures --nodes {{ NODES }}

# Many seeds of every built-in scenario, until one breaks an invariant or the time is up.
soak SEEDS="100" MINUTES="3":
    cargo run --locked --bin simnet -- soak --seeds {{ SEEDS }} --minutes {{ MINUTES }}

# Real nodes over libp2p in virtual time, in two processes that must come to the same.
swarm SCENARIO="scenarios/fifty.toml" SEED="1":
    cd simnet/swarm && cargo run --locked -- run {{ SCENARIO }} --seed {{ SEED }} --twice

# The benchmarks of the pure parts.
bench *ARGS:
    cargo bench --workspace --locked {{ ARGS }}

# Licences, sources and advisories of the dependencies; needs cargo-deny.
deny:
    cargo deny check

# The documentation of the code, warnings being errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Many calls of many kinds over two hops: 100,000, against an optimised binary.
soak-calls:
    cargo build --release --locked --bin comity
    COMITY_TEST_BINARY=target/release/comity cargo test --package comity-tests --locked --test blackbox -- --ignored --nocapture soak

# One fuzzer: frames, envelope or events.
fuzz TARGET SECONDS="600":
    fuzz/run {{ TARGET }} {{ SECONDS }}
