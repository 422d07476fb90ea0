//! A watchdog that outlives the node, so that no upstream does.
//!
//! A node that stops in good order ends its children itself. One that is killed cannot. Linux's
//! `PR_SET_PDEATHSIG` reaches only the direct child, and upstreams are often a package runner whose
//! grandchild does the work; it also fires when the *thread* that spawned the child ends. So one small
//! shell waits on a pipe from the node, and when the pipe closes, for whatever reason, it ends every
//! process group that it was told of. It needs no unsafe code and works on any Unix.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

/// Reads `add GROUP` and `del GROUP` until the node is gone, then ends the groups that are left.
const SCRIPT: &str = r#"groups=""
while read -r verb group; do
  case $verb in
    add) groups="$groups $group" ;;
    del) kept=""; for g in $groups; do [ "$g" = "$group" ] || kept="$kept $g"; done; groups=$kept ;;
  esac
done
[ -z "$groups" ] && exit 0
for g in $groups; do kill -s TERM -- "-$g" 2>/dev/null; done
sleep 1
for g in $groups; do kill -s KILL -- "-$g" 2>/dev/null; done"#;

/// The node's end of the watchdog. The shell starts with the first group that it is told of, so a
/// node without child processes has none. Dropping it ends what is left of the groups.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shell: Option<Shell>,
    groups: BTreeSet<i32>,
}

#[derive(Debug)]
struct Shell {
    process: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Has the process group ended when the node is gone.
    pub(crate) fn watch(&self, group: i32) {
        let mut state = self.lock();
        state.groups.insert(group);
        state.tell(&format!("add {group}\n"));
    }

    /// Forgets a group that has ended: its number may belong to others soon.
    pub(crate) fn release(&self, group: i32) {
        let mut state = self.lock();
        if state.groups.remove(&group) {
            state.tell(&format!("del {group}\n"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells the shell; one that is gone is replaced and told everything.
    fn tell(&mut self, line: &str) {
        if let Some(shell) = &mut self.shell {
            match shell.pipe.write_all(line.as_bytes()) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the watchdog of child processes is gone; starting another")
                }
            }
        }
        if let Some(shell) = self.shell.take() {
            shell.end();
        }
        if self.groups.is_empty() {
            return;
        }
        let all: String = self.groups.iter().map(|group| format!("add {group}\n")).collect();
        match Shell::start().and_then(|mut shell| shell.pipe.write_all(all.as_bytes()).map(|()| shell)) {
            Ok(shell) => self.shell = Some(shell),
            Err(error) => tracing::error!(
                %error,
                "no watchdog: MCP servers may outlive this node if it is killed"
            ),
        }
    }
}

impl Shell {
    fn start() -> io::Result<Self> {
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "comity-guard"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            // A group of its own: what is sent to the node's group, such as Ctrl-C, must not end it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = process.stdin.take().ok_or_else(|| io::Error::other("no pipe to the watchdog"))?;
        // A watchdog that somebody has stopped must not block the node: a full pipe is an error.
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
        Ok(Self { process, pipe })
    }

    fn end(self) {
        let Self { mut process, pipe } = self;
        drop(pipe);
        // It takes a second if groups are left; nobody waits for that but the process table.
        let reaper = std::thread::Builder::new().name("comity-guard".into());
        if let Err(error) = reaper.spawn(move || process.wait()) {
            tracing::debug!(%error, "the watchdog stays a zombie until the node ends");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(shell) = self.lock().shell.take() {
            shell.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    use std::os::unix::process::ExitStatusExt;

    /// A process in a group of its own that never ends by itself.
    fn sleeper(shell: &str) -> (Child, i32) {
        let child = Command::new("/bin/sh").args(["-c", shell]).process_group(0).spawn().unwrap();
        let group = i32::try_from(child.id()).unwrap();
        (child, group)
    }

    #[test]
    fn groups_that_are_left_end_with_the_node_and_no_others() {
        let guard = Guard::default();
        let (mut left, left_group) = sleeper("sleep 600 & sleep 600");
        let (mut released, released_group) = sleeper("sleep 600");
        guard.watch(left_group);
        guard.watch(released_group);
        guard.release(released_group);
        // What the pipe sees when the node is killed.
        drop(guard);
        assert_eq!(left.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
        assert!(released.try_wait().unwrap().is_none(), "released groups are left alone");
        kill_process_group(Pid::from_child(&released), Signal::KILL).unwrap();
        released.wait().unwrap();
    }

    #[test]
    fn a_server_that_ignores_term_is_killed() {
        let guard = Guard::default();
        let (mut stubborn, group) = sleeper("trap '' TERM; while :; do sleep 600; done");
        guard.watch(group);
        drop(guard);
        let signal = stubborn.wait().unwrap().signal();
        // The trap may not be set yet when TERM comes.
        assert!([Signal::KILL, Signal::TERM].map(|signal| Some(signal.as_raw())).contains(&signal));
    }

    #[test]
    fn a_watchdog_that_died_is_replaced() {
        let guard = Guard::default();
        let (mut first, first_group) = sleeper("sleep 600");
        guard.watch(first_group);
        {
            let mut state = guard.lock();
            let process = &mut state.shell.as_mut().unwrap().process;
            kill_process(Pid::from_child(process), Signal::KILL).unwrap();
            process.wait().unwrap();
        }
        let (mut second, second_group) = sleeper("sleep 600");
        guard.watch(second_group);
        drop(guard);
        assert!(!first.wait().unwrap().success());
        assert!(!second.wait().unwrap().success());
    }
}
