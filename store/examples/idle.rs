//! What an open, idle store costs in resident memory, in KiB: empty, with records, and reopened.

use std::fs;

use comity_store::records::Advert;
use comity_store::{Options, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let before = resident_kib()?;
    let (store, _) = Store::open(dir.path().join("store"), Options::new([0; 32], 0))?;
    println!("opening an empty store   {:>6}", resident_kib()? - before);
    for number in 0..1000u64 {
        let node = *blake3::hash(&number.to_be_bytes()).as_bytes();
        let advert = Advert { received_at_ms: number, envelope: vec![0; 700] };
        store.adverts().put(&node, &advert)?.wait()?;
    }
    println!("1,000 adverts written    {:>6}", resident_kib()? - before);
    let read = store.adverts().iter().filter(Result::is_ok).count();
    println!("{read} adverts read       {:>6}", resident_kib()? - before);
    Ok(())
}

fn resident_kib() -> Result<i64, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no figure")?.parse()?)
}
