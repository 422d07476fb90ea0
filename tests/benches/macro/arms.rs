//! The ways to the server that are compared.

use std::time::Duration;

use crate::load::{Endpoint, Sample};
use crate::pipe::Pipe;
use crate::site::{Cpu, Site, tool};
use crate::upstream::Era;

/// One way.
pub(crate) struct Arm {
    /// Its name.
    pub(crate) name: &'static str,
    /// The direct way that it is compared with.
    pub(crate) baseline: &'static str,
    way: Way,
}

enum Way {
    Http(Endpoint),
    Pipe(Pipe),
}

/// One measurement of one arm.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) arm: &'static str,
    pub(crate) baseline: &'static str,
    pub(crate) round: usize,
    pub(crate) in_flight: usize,
    pub(crate) bytes: usize,
    pub(crate) sample: Sample,
    pub(crate) cpu: Cpu,
}

fn working_directly(site: &Site) -> Way {
    let name = tool("direct", "work", Era::Modern);
    Way::Http(Endpoint::open(&site.server().url(Era::Modern, &name), &name, Era::Modern))
}

impl Arm {
    /// Every way, the direct ones first.
    pub(crate) fn all(site: &Site) -> Vec<Arm> {
        let direct = |era: Era| {
            let name = tool("direct", "http", era);
            Way::Http(Endpoint::open(&site.server().url(era, &name), &name, era))
        };
        let through = |place: &str, transport: &str, era: Era| {
            // The node's clients speak the era of the server behind it.
            Way::Http(Endpoint::open(site.node_url(), &tool(place, transport, era), era))
        };
        let arm = |name, baseline, way| Arm { name, baseline, way };
        vec![
            arm("direct http modern", "direct http modern", direct(Era::Modern)),
            arm("direct http legacy", "direct http legacy", direct(Era::Legacy)),
            arm("direct working modern", "direct working modern", working_directly(site)),
            arm("direct stdio", "direct stdio", Way::Pipe(Pipe::start())),
            arm("one hop http modern", "direct http modern", through("near", "http", Era::Modern)),
            arm("one hop http legacy", "direct http legacy", through("near", "http", Era::Legacy)),
            arm("one hop working modern", "direct working modern", through("near", "work", Era::Modern)),
            arm("one hop stdio", "direct stdio", through("near", "stdio", Era::Modern)),
            arm("two hops http modern", "direct http modern", through("far", "http", Era::Modern)),
            arm("two hops http legacy", "direct http legacy", through("far", "http", Era::Legacy)),
            arm("two hops working modern", "direct working modern", through("far", "work", Era::Modern)),
            arm("two hops stdio", "direct stdio", through("far", "stdio", Era::Modern)),
        ]
    }

    /// Whether it leads past every node.
    pub(crate) fn is_direct(&self) -> bool {
        self.name == self.baseline
    }

    /// Whether it is measured with large calls too: over pipes a client that writes before it reads could wait for
    /// ever, and the eras do not differ.
    pub(crate) fn carries_large(&self) -> bool {
        self.baseline == "direct http modern"
    }

    /// The server that this program has started for it.
    pub(crate) fn child(&self) -> Option<u32> {
        match &self.way {
            Way::Http(_) => None,
            Way::Pipe(pipe) => Some(pipe.pid()),
        }
    }

    /// Calls for `phase`, always with `in_flight` calls.
    pub(crate) fn run(&mut self, in_flight: usize, bytes: usize, phase: Duration) -> Sample {
        match &mut self.way {
            Way::Http(endpoint) => endpoint.run(in_flight, bytes, phase),
            Way::Pipe(pipe) => pipe.run(in_flight, bytes, phase),
        }
    }
}
