//! What one run of a guest hypervisor leaves behind: the facts that L1 and L2 can see.

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
    pub memory: Vec<u8>,
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
