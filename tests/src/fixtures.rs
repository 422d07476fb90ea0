//! Installs the MCP servers and clients that the tests run: pinned, once, into `.fixtures/` beside `target/`.
//!
//! A stamp holds the pins that are installed; where they differ from those of the repository, the installation is made
//! anew. A file lock keeps test programs that run at the same time from doing so twice.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Finished, run, run_within};
use crate::{fixture_file, workspace};

/// One step of an installation: downloads on a slow line.
const INSTALL_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Downloads fail now and then for no reason of ours.
const ATTEMPTS: usize = 3;
/// The oldest Python that the pinned packages run on.
const PYTHON_MIN: (u32, u32) = (3, 10);

/// Programs from PyPI, in a virtual environment of their own.
#[derive(Debug)]
pub struct Python {
    bin: PathBuf,
}

impl Python {
    /// The installation; made on first use.
    ///
    /// # Panics
    /// When it cannot be made. The message says what is missing.
    pub fn get() -> &'static Self {
        static PYTHON: OnceLock<Python> = OnceLock::new();
        PYTHON.get_or_init(|| Python {
            bin: installed("python", &["python/requirements.txt"], install_python).join("venv/bin"),
        })
    }

    /// A program of it: `python`, `mcp-server-time`, `mcp-server-git`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Programs from npm, and a Node new enough to run them.
#[derive(Debug)]
pub struct Npm {
    modules: PathBuf,
}

impl Npm {
    /// The installation; made on first use.
    ///
    /// # Panics
    /// When it cannot be made. The message says what is missing.
    pub fn get() -> &'static Self {
        static NPM: OnceLock<Npm> = OnceLock::new();
        NPM.get_or_init(|| {
            let inputs = ["npm/package.json", "npm/package-lock.json"];
            Npm { modules: installed("npm", &inputs, install_npm).join("node_modules") }
        })
    }

    /// The pinned Node.
    pub fn node(&self) -> PathBuf {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => panic!("tests/fixtures/npm/package.json pins no Node for {other}: add it there"),
        };
        self.modules.join(format!("node-linux-{arch}/bin/node"))
    }

    /// A script of an installed package, such as `@modelcontextprotocol/server-everything/dist/index.js`.
    pub fn script(&self, path: &str) -> PathBuf {
        self.modules.join(path)
    }
}

/// The directory of one installation, made or renewed where its pins differ.
fn installed(name: &str, inputs: &[&str], install: fn(&Path)) -> PathBuf {
    let root = workspace().join(".fixtures");
    fs::create_dir_all(&root).unwrap_or_else(|error| panic!("cannot make {}: {error}", root.display()));
    let lock = File::create(root.join(format!("{name}.lock"))).expect("a lock file can be made");
    lock.lock().expect("a file can be locked");
    let (dir, stamp) = (root.join(name), root.join(format!("{name}.stamp")));
    let pins = pins(inputs, &root);
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&pins) {
        eprintln!("[tests] installing {name} fixtures into {} (once)", dir.display());
        remove(&stamp, |path| fs::remove_file(path));
        remove(&dir, |path| fs::remove_dir_all(path));
        fs::create_dir_all(&dir).expect("an empty directory can be made");
        install(&dir);
        fs::write(&stamp, pins).expect("a stamp can be written");
        eprintln!("[tests] installed {name} fixtures");
    }
    dir
}

/// What an installation depends on: the pins, and where it stands (an environment of Python cannot be moved).
fn pins(inputs: &[&str], root: &Path) -> String {
    let read = |name: &&str| fs::read_to_string(fixture_file(name)).expect("the repository holds its pins");
    format!("{}\n{}", root.display(), inputs.iter().map(read).collect::<String>())
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> std::io::Result<()>) {
    match how(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            panic!("cannot remove {}: {error}", path.display())
        }
        _ => {}
    }
}

fn install_python(dir: &Path) {
    let python = python3();
    let venv = dir.join("venv");
    let made = run_within(Command::new(&python).args(["-m", "venv"]).arg(&venv), "", INSTALL_DEADLINE);
    assert_eq!(
        made.code,
        Some(0),
        "{python} cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)\n{}{}",
        made.stdout,
        made.stderr
    );
    attempt("pip install", || {
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
        ]);
        pip.arg(fixture_file("python/requirements.txt"));
        pip
    });
}

/// A Python that is new enough, by the names under which systems have one.
fn python3() -> String {
    let (major, minor) = PYTHON_MIN;
    let check = format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))");
    let names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
    let fits = |name: &&str| {
        Command::new(name).args(["-c", &check]).output().is_ok_and(|done| done.status.success())
    };
    match names.iter().copied().find(fits) {
        Some(name) => name.to_owned(),
        None => panic!("the tests need python3, {major}.{minor} or later, on PATH"),
    }
}

fn install_npm(dir: &Path) {
    assert!(Command::new("npm").arg("--version").output().is_ok(), "the tests need npm on PATH");
    for name in ["package.json", "package-lock.json"] {
        fs::copy(fixture_file("npm").join(name), dir.join(name)).expect("the pins can be copied");
    }
    attempt("npm ci", || {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(dir);
        npm
    });
    let node = run(Command::new(Npm { modules: dir.join("node_modules") }.node()).arg("--version"));
    eprintln!("[tests] node {}", node.success().trim());
}

fn attempt(what: &str, mut command: impl FnMut() -> Command) {
    let mut last: Option<Finished> = None;
    for _ in 0..ATTEMPTS {
        let done = run_within(&mut command(), "", INSTALL_DEADLINE);
        if done.code == Some(0) {
            return;
        }
        eprintln!("[tests] {what} failed; trying again");
        last = Some(done);
    }
    panic!("{what} failed {ATTEMPTS} times: {last:?}");
}
