//! T3: real `comity` processes over a network that is delayed, thinned out, cut and healed. See docs/simulation.md.
//!
//! ```sh
//! cargo test -p comity-tests --test network                        # all scenarios
//! cargo test -p comity-tests --test network -- heal                # those whose name holds "heal"
//! cargo test -p comity-tests --test network -- --repeat 20 heal    # again and again, until one fails
//! COMITY_NETWORK=loopback cargo test -p comity-tests --test network   # without namespaces, as on machines that refuse them
//! ```
//!
//! This is a program of its own rather than one of Rust's test harness, because it starts itself again: inside namespaces,
//! and as the process that holds one.

mod lab;
mod runner;
mod scenarios;

use std::process::ExitCode;

use comity_tests::binary::{self, BINARY_VARIABLE};
use comity_tests::cut::enter::{Entered, enter, helped};
use comity_tests::fixtures::Python;

fn main() -> ExitCode {
    if let Some(code) = helped() {
        return code;
    }
    let wish = runner::Wish::of_arguments();
    if wish.is_settled() {
        return ExitCode::SUCCESS;
    }
    let entered = enter(|| {
        // Inside there is no way out to build or to install anything.
        Python::get();
        vec![(BINARY_VARIABLE, binary::comity().into())]
    });
    match entered {
        Entered::Ended(code) => code,
        Entered::Here(backend) => runner::run(&wish, backend),
    }
}
