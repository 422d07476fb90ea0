//! How the process asks the system for memory, and gives it back.
//!
//! glibc makes an arena for each thread that allocates at the same time as another, raises what it keeps for itself with
//! every large block that is freed, and never lowers it again: bodies of a megabyte left a node with 50 MiB that nobody
//! used. With fixed thresholds large blocks are the system's again the moment they are freed.

/// Arenas at most: one for each worker on a small machine; more threads share them.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: i32 = 2;

/// Blocks from this size on are mapped each by itself and unmapped when freed: bodies, not messages.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: i32 = 256 * 1024;

/// Free bytes that may stay at the end of the heap.
#[cfg(target_env = "gnu")]
const TRIM_FROM_BYTES: i32 = 512 * 1024;

/// Sets the allocator up; whether it took every setting. To be called before there is a second thread. Elsewhere than on
/// glibc there is nothing to set.
pub fn tune() -> bool {
    #[cfg(target_env = "gnu")]
    return [
        (libc::M_ARENA_MAX, ARENAS_MAX),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        (libc::M_TRIM_THRESHOLD, TRIM_FROM_BYTES),
    ]
    .into_iter()
    .all(|(parameter, value)| set(parameter, value));
    #[cfg(not(target_env = "gnu"))]
    true
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)] // There is no other way to the C library's allocator.
fn set(parameter: i32, value: i32) -> bool {
    // SAFETY: mallopt takes two integers and changes settings of the allocator, under its own lock.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_allocator_takes_every_setting_however_often() {
        assert!(super::tune() && super::tune());
    }
}
