//! Which commit this is, for reports and replay lines.

use std::process::Command;

/// The commit that was built, when the build said so (`COMITY_COMMIT`); else that of the source tree in the current
/// directory, with a `+` when it has changes; else `unknown`.
#[must_use]
pub fn current() -> String {
    option_env!("COMITY_COMMIT").map(str::to_owned).or_else(from_git).unwrap_or_else(|| "unknown".to_owned())
}

fn from_git() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(format!("{commit}{}", if changed { "+" } else { "" }))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
