//! What one run of a guest hypervisor leaves behind: the facts that L1 and L2 can see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rootmode_arch::record::{Observer, Payload, Record, Stop};

use crate::guests::layout::PRINT_PORT;

/// An observer that keeps every record.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Record>>>);

impl Recorder {
    /// What was recorded so far; the recorder is empty afterwards.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.0.lock().expect("no observer panics while it records"))
    }
}

impl Observer for Recorder {
    fn observe(&mut self, record: &Record) {
        self.0.lock().expect("no observer panics while it records").push(*record);
    }
}

/// What a memory that begins at 0 holds. Pages of zeroes take no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its size in bytes, a multiple of 4096.
    pub bytes: u64,
    pages: BTreeMap<u64, Box<[u8; 4096]>>,
}

impl Contents {
    /// The first `bytes` bytes, which `read` reads a page at a time, at the address that it is given.
    pub fn read(bytes: u64, mut read: impl FnMut(u64, &mut [u8; 4096])) -> Self {
        let mut pages = BTreeMap::new();
        let mut page = Box::new(ZEROES);
        for number in 0..bytes / 4096 {
            read(number * 4096, &mut page);
            if *page != ZEROES {
                pages.insert(number, std::mem::replace(&mut page, Box::new(ZEROES)));
            }
        }
        Self { bytes, pages }
    }

    /// Page number `number`.
    pub fn page(&self, number: u64) -> &[u8; 4096] {
        self.pages.get(&number).map_or(&ZEROES, |page| page)
    }

    /// The numbers of the pages that are not the same in `other`.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        let numbers: BTreeSet<u64> = self.pages.keys().chain(other.pages.keys()).copied().collect();
        numbers.into_iter().filter(|number| self.page(*number) != other.page(*number))
    }

    /// The 8 bytes at `address`, a multiple of 8.
    pub fn word(&self, address: u64) -> u64 {
        let (words, []) = self.page(address / 4096).as_chunks() else {
            unreachable!("4096 is a multiple of 8")
        };
        u64::from_le_bytes(words[(address % 4096 / 8) as usize])
    }
}

const ZEROES: [u8; 4096] = [0; 4096];

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Why it stopped.
    pub stop: Stop,
    /// L1's time when it stopped.
    pub ticks: u64,
    /// Everything observed, in order.
    pub records: Vec<Record>,
    /// L1's memory.
    pub memory: Contents,
    /// L1's general-purpose registers and RIP.
    pub registers: [u64; 17],
}

impl Run {
    /// What was printed through the print port.
    pub fn output(&self) -> String {
        let printed = self.records.iter().filter_map(|record| match record.payload {
            Payload::Port { port, write: true, value, .. } if u32::from(port) == PRINT_PORT => {
                Some(value as u8)
            }
            _ => None,
        });
        String::from_utf8_lossy(&printed.collect::<Vec<_>>()).into_owned()
    }
}
