//! The part of a namespace that runs inside of it: a process that holds the namespace, makes its TUN device, and carries
//! packets between the device and its own standard input and output.
//!
//! Each packet is preceded by its length, two bytes, the high one first. A packet of length 0 says that the device is
//! there. The process ends when its standard input does, and the namespace with it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::ioctl::{self, Setter};

/// The one argument after which a test program holds a namespace instead of testing anything.
pub const HOLD: &str = "--hold-namespace";

/// The device's name.
pub const DEVICE: &str = "mesh0";

/// Bytes of the largest packet: room for QUIC's 1,200 at least, and for the headers of a tunnel around it.
pub const PACKET_MAX: usize = 1500;

const TUN: &str = "/dev/net/tun";
/// `TUNSETIFF`, as of Linux's `if_tun.h`: `_IOW('T', 202, int)`, though it takes an `ifreq`.
const TUNSETIFF: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const NAME_BYTES: usize = 16;

/// `struct ifreq` as far as `TUNSETIFF` looks at it, and as long as the kernel copies.
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    flags: i16,
    rest: [u8; 22],
}

/// Holds the namespace in which this process runs, for a site of this address. Returns when the test program has gone.
pub fn hold(address: &str) -> ExitCode {
    match address.parse::<Ipv4Addr>().map_err(io::Error::other).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot hold a namespace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: Ipv4Addr) -> io::Result<()> {
    let device = open()?;
    configure(address)?;
    let mut outwards = device.try_clone()?;
    write_packet(&mut io::stdout(), &[])?;
    thread::spawn(move || {
        let mut packet = [0; PACKET_MAX];
        // The device is there as long as this process.
        while let Ok(length) = outwards.read(&mut packet) {
            if write_packet(&mut io::stdout(), &packet[..length]).is_err() {
                return;
            }
        }
    });
    carry_in(&mut io::stdin().lock(), device)
}

fn carry_in(from: &mut impl Read, mut device: File) -> io::Result<()> {
    while let Some(packet) = read_packet(from)? {
        // A packet that the device does not take is lost, as on any network.
        let _lost = device.write(&packet);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "no safe way to make a TUN device")]
fn open() -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open(TUN);
    let device = device.map_err(|error| io::Error::new(error.kind(), format!("{TUN}: {error}")))?;
    let mut request = Request { name: [0; NAME_BYTES], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, whose 40 bytes `Request` has; it keeps no reference to them.
    unsafe { ioctl::ioctl(device.as_fd(), Setter::<TUNSETIFF, Request>::new(request)) }?;
    Ok(device)
}

fn configure(address: Ipv4Addr) -> io::Result<()> {
    let address = format!("{address}/32");
    let mtu = PACKET_MAX.to_string();
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", &address, "dev", DEVICE],
        &["link", "set", DEVICE, "mtu", &mtu, "up"],
        &["route", "add", "default", "dev", DEVICE],
    ] {
        let done = Command::new("ip").args(arguments).output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(io::Error::other(format!("ip {}: {said}", arguments.join(" "))));
        }
    }
    Ok(())
}

/// Writes a packet and its length at once.
pub(super) fn write_packet(to: &mut impl Write, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), packet].concat())?;
    to.flush()
}

/// Reads a packet; `None` at the end.
pub(super) fn read_packet(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    from.read_exact(&mut packet)?;
    Ok(Some(packet))
}
