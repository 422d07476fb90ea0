//! Where randomness comes from in a run: a seed.
//!
//! Everything in this process that wants random bytes asks the C library's `getrandom`: std for the keys of its hash tables, and
//! the packages `getrandom` and `rand` for all else (they look the symbol up by name). This program defines that symbol itself. On a
//! thread that has been [`seed`]ed the bytes follow from the seed alone; on every other thread the kernel gives them.
//!
//! [`crate::linked`] asserts at the start of every run that it is so.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_uint, c_void};

thread_local! {
    /// The state of this thread's generator; `None` where the kernel is asked.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    static DRAWS: Cell<u64> = const { Cell::new(0) };
}

/// From now on the random bytes of this thread follow from `seed`.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// How often this thread has asked for seeded bytes.
#[must_use]
pub fn draws() -> u64 {
    DRAWS.get()
}

/// The next eight bytes that this thread will be given, if it is seeded.
#[must_use]
pub fn peek() -> Option<u64> {
    STATE.get().map(|state| split_mix(state).1)
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): the next state, and the number that comes of it.
const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

fn fill(mut state: u64, buffer: &mut [u8]) -> u64 {
    for chunk in buffer.chunks_mut(8) {
        let (next, number) = split_mix(state);
        state = next;
        chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
    }
    state
}

/// The C library's `getrandom`, see getrandom(2).
///
/// # Safety
/// As for the original: `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(state) = STATE.get() else {
        // SAFETY: the caller's promise is the kernel's condition.
        let given = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(given).unwrap_or(-1);
    };
    if length > 0 {
        // SAFETY: the caller promises that so many bytes can be written; nobody else has the buffer meanwhile. Bytes that
        // were never initialised are only written.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        STATE.set(Some(fill(state, buffer)));
        DRAWS.set(DRAWS.get() + 1);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_draws_what_follows_from_the_seed_and_others_do_not() {
        let drawn = |chosen: Option<u64>| {
            let draw = move || {
                chosen.into_iter().for_each(seed);
                let mut bytes = [0; 20];
                getrandom::fill(&mut bytes).unwrap();
                bytes
            };
            std::thread::spawn(draw).join().unwrap()
        };
        assert_eq!(drawn(Some(1)), drawn(Some(1)));
        assert_ne!(drawn(Some(1)), drawn(Some(2)));
        assert_ne!(drawn(None), drawn(None));
    }

    #[test]
    fn the_generator_is_split_mix() {
        // From the reference implementation, seed 1234567.
        let mut bytes = [0; 16];
        fill(1_234_567, &mut bytes);
        let numbers = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973];
        assert_eq!(bytes[..8], numbers[0].to_le_bytes());
        assert_eq!(bytes[8..], numbers[1].to_le_bytes());
    }
}
