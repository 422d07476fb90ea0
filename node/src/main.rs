//! The `comity` binary.

fn main() -> std::process::ExitCode {
    comity_node::cli::main()
}
