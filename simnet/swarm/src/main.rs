//! The binary `simnet-swarm`. See [`comity_swarm::cli`].

fn main() -> std::process::ExitCode {
    comity_swarm::cli::main()
}
