//! A process that writes for ever, and what must be true of what it leaves behind.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use comity_store::{Batch, Store, Tree};

const CHILD_DIR: &str = "COMITY_STORE_CHILD_DIR";
const WRITERS: u8 = 4;

/// The child's whole life. A test binary that spawns children has a test `child_process` that calls this.
pub fn run_if_child() {
    let Some(dir) = env::var_os(CHILD_DIR) else { return };
    let (store, _) = super::open_at(Path::new(&dir));
    say("open");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || write_for_ever(store, writer));
        }
    });
}

fn write_for_ever(store: &Store, writer: u8) {
    for number in count(store, writer).. {
        store.commit_blocking(pair(writer, number)).expect("accepted").wait().expect("durable");
        say(&format!("acked {writer} {number}"));
    }
}

/// One line in one write, so that a kill cannot tear it.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

/// Starts this test binary as a child that writes to `dir`.
pub fn spawn(dir: &Path, environment: &[(&str, &OsStr)]) -> Child {
    let mut command = Command::new(env::current_exe().expect("has a path"));
    command.envs(environment.iter().copied());
    start(command, dir)
}

/// As [`spawn`], but no file can grow above `bytes`: writes that would fail with `EFBIG`.
pub fn spawn_limited(dir: &Path, bytes: u64) -> Child {
    let mut command = Command::new("sh");
    // The limit counts in 512-byte blocks; without the trap its signal would kill.
    command.args([
        "-c",
        r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$@""#,
        "sh",
        &(bytes / 512).to_string(),
    ]);
    command.arg(env::current_exe().expect("has a path"));
    start(command, dir)
}

fn start(mut command: Command, dir: &Path) -> Child {
    command.args(["--exact", "child_process", "--nocapture", "--test-threads=1"]).env(CHILD_DIR, dir);
    command.env("RUST_BACKTRACE", "0"); // what it says on stderr must fit into the pipe
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// What a child that ended had to say.
pub fn stderr(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    text
}

/// `acked <writer> <number>`, if the line is one.
pub fn parse(line: &str) -> Option<(u8, u32)> {
    let mut words = line.strip_prefix("acked ")?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Two records that must appear together.
pub fn pair(writer: u8, number: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put_raw(Tree::Adverts, &key(writer, number), &value(number));
    batch.put_raw(Tree::Sequences, &key(writer, number), &number.to_be_bytes());
    batch
}

/// Every acknowledged pair is there, and none is torn.
pub fn check(store: &Store, acknowledged: &[(u8, u32)]) -> Result<(), String> {
    for &(writer, number) in acknowledged {
        let found = store.get(Tree::Adverts, &key(writer, number)).expect("reads");
        if found != Some(value(number)) {
            return Err(format!("{writer} {number} was acknowledged and is {found:?}"));
        }
    }
    (0..WRITERS).try_for_each(|writer| check_whole(store, writer))
}

fn check_whole(store: &Store, writer: u8) -> Result<(), String> {
    let count = count(store, writer);
    for number in 0..count + 2 {
        let there = |tree| store.get(tree, &key(writer, number)).expect("reads").is_some();
        let both = [Tree::Adverts, Tree::Sequences].map(there);
        if both != [number < count; 2] {
            return Err(format!("{writer} {number} of {count} is torn: {both:?}"));
        }
    }
    Ok(())
}

/// How many of a writer's records are there: all up to the first gap.
fn count(store: &Store, writer: u8) -> u32 {
    let there = |number: &u32| store.get(Tree::Adverts, &key(writer, *number)).expect("reads").is_some();
    u32::try_from((0..).take_while(there).count()).expect("few")
}

fn key(writer: u8, number: u32) -> Vec<u8> {
    [&[writer][..], &number.to_be_bytes()].concat()
}

fn value(number: u32) -> Vec<u8> {
    vec![number as u8; 1 + number as usize * 37 % 3000]
}
