//! A fault that the black-box tests ask for, so that they see their own checks fail.
//!
//! Only builds with debug assertions have it. In a released binary nothing reads the variable.

use comity_protocol::jsonrpc::Message;

/// Names which progress notification this node loses on its way to a caller: `3` for the third that it serves.
#[cfg(debug_assertions)]
const LOSE_VARIABLE: &str = "COMITY_TEST_LOSE_PROGRESS";

/// Whether this message of a server is to be lost.
#[cfg(debug_assertions)]
pub(super) fn loses(message: &Message) -> bool {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LOST: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var(LOSE_VARIABLE).ok().and_then(|number| number.parse().ok()));
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let Some(lost) = *LOST else { return false };
    let is_progress = message.method() == Some("notifications/progress");
    is_progress && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == lost
}

/// Whether this message of a server is to be lost: none ever is.
#[cfg(not(debug_assertions))]
pub(super) const fn loses(_: &Message) -> bool {
    false
}
