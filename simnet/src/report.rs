//! Reports of a run: [`jsonl`] for programs, [`html`] for people.

pub mod html;
pub mod jsonl;
