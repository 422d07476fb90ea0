//! One network namespace a site, and a router in this process that all their packets pass.

use std::io::{self, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::delayer::{Delayer, Sender};
use super::rules::Rules;
use super::tun::{self, DEVICE};
use crate::process::run;

/// The mesh port of every node: each has an address of its own.
pub const MESH_PORT: u16 = 7422;

/// The first two bytes of every address; the third is the site's number.
const PREFIX: [u8; 2] = [10, 91];

/// A program that ends when whoever started it does, however that ends.
const DIES_WITH_US: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// A packet for a site.
type Addressed = (usize, Vec<u8>);

/// The namespaces of one network.
#[derive(Debug)]
pub struct Namespaces {
    // Dropped first: it writes to the holders.
    _wire: Delayer<Addressed>,
    sites: Vec<Site>,
}

#[derive(Debug)]
struct Site {
    holder: Child,
    /// The last byte of its address.
    host: u8,
    number: usize,
    reader: Option<JoinHandle<()>>,
}

impl Namespaces {
    /// Makes the namespaces and the router between them.
    pub(super) fn new(count: usize, rules: Arc<Rules>) -> Self {
        let mut holders: Vec<Child> = (0..count).map(start_holder).collect();
        let mut inputs: Vec<ChildStdin> =
            holders.iter_mut().map(|holder| holder.stdin.take().expect("piped")).collect();
        let wire = Delayer::new(move |(to, packet): Addressed| {
            // A site whose holder has ended is one whose test is over.
            let _gone = inputs.get_mut(to).map(|input| tun::write_packet(input, &packet));
        });
        let sites = holders.into_iter().enumerate().map(|(number, mut holder)| {
            let mut output = BufReader::new(holder.stdout.take().expect("piped"));
            wait_until_ready(&mut output, number);
            let (sender, rules) = (wire.sender(), rules.clone());
            let reader = Some(thread::spawn(move || route(number, count, output, &rules, &sender)));
            Site { holder, host: 1, number, reader }
        });
        Namespaces { sites: sites.collect(), _wire: wire }
    }

    pub(super) fn len(&self) -> usize {
        self.sites.len()
    }

    pub(super) fn address(&self, site: usize) -> Ipv4Addr {
        self.sites[site].address()
    }

    /// The command behind which a program runs at a site.
    pub(super) fn entrance(&self, site: usize) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.sites[site].holder.id());
        ["nsenter".to_owned(), namespace].into_iter().chain(DIES_WITH_US.map(str::to_owned)).collect()
    }

    /// Gives a site another address in place of its own.
    pub(super) fn move_away(&mut self, site: usize) {
        let entrance = self.entrance(site);
        let at = &mut self.sites[site];
        let before = at.address();
        at.host += 1;
        for (verb, address) in [("add", at.address()), ("delete", before)] {
            let mut command = Command::new(&entrance[0]);
            command.args(&entrance[1..]).args(["ip", "address", verb, &format!("{address}/32")]);
            run(command.args(["dev", DEVICE])).success();
        }
        // The route went with the address that it was made for.
        let mut command = Command::new(&entrance[0]);
        command.args(&entrance[1..]).args(["ip", "route", "replace", "default", "dev", DEVICE]);
        run(&mut command).success();
    }
}

impl Site {
    fn address(&self) -> Ipv4Addr {
        address(self.number, self.host)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Its namespace goes with it; whoever still runs there sees a network on which nothing moves.
        let _ended = self.holder.kill();
        let _ended = self.holder.wait();
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

fn address(site: usize, host: u8) -> Ipv4Addr {
    let site = u8::try_from(site).expect("fewer sites than SITES_MAX");
    Ipv4Addr::new(PREFIX[0], PREFIX[1], site, host)
}

/// Starts this program again, in a network namespace of its own, as its holder.
fn start_holder(site: usize) -> Child {
    let program = std::env::current_exe().expect("the system tells a process its program");
    let mut command = Command::new("unshare");
    command.arg("--net").args(DIES_WITH_US).arg(program).args([tun::HOLD, &address(site, 1).to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

fn wait_until_ready(output: &mut BufReader<ChildStdout>, site: usize) {
    match tun::read_packet(output) {
        Ok(Some(packet)) if packet.is_empty() => {}
        other => panic!("no namespace for site {site}: {other:?}"),
    }
}

/// Reads what a site sends until its holder ends.
fn route(from: usize, sites: usize, mut output: impl io::Read, rules: &Rules, wire: &Sender<Addressed>) {
    while let Ok(Some(packet)) = tun::read_packet(&mut output) {
        match destination(&packet).filter(|to| *to < sites && *to != from) {
            Some(to) => {
                if let Some(delay) = rules.fate(from, to) {
                    wire.send((to, packet), delay);
                }
            }
            None => rules.count_stray(),
        }
    }
}

/// For which site an IPv4 packet is. All else, such as IPv6's questions for neighbours, is for nobody.
fn destination(packet: &[u8]) -> Option<usize> {
    let is_v4 = packet.first()? >> 4 == 4;
    let to = packet.get(16..20)?;
    (is_v4 && to[..2] == PREFIX).then(|| usize::from(to[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_for_a_site_are_carried() {
        let packet = |version: u8, to: [u8; 4]| {
            let mut packet = vec![0; 20];
            packet[0] = version << 4 | 5;
            packet[16..].copy_from_slice(&to);
            packet
        };
        assert_eq!(destination(&packet(4, [10, 91, 2, 1])), Some(2));
        assert_eq!(destination(&packet(4, [10, 92, 2, 1])), None);
        assert_eq!(destination(&packet(4, [192, 0, 2, 1])), None);
        assert_eq!(destination(&packet(6, [10, 91, 2, 1])), None);
        assert_eq!(destination(&packet(4, [10, 91, 2, 1])[..19]), None);
        assert_eq!(destination(&[]), None);
    }
}
