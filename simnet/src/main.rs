//! The `simnet` binary.

fn main() -> std::process::ExitCode {
    comity_simnet::cli::main()
}
