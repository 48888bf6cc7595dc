//! Which device a port belongs to: one byte a port, so that an access costs one look.

use std::sync::Arc;

/// The devices that ports lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Port {
    /// Nobody: reads are ones, writes are lost.
    Absent,
    /// Power-on self-test codes: written and forgotten.
    Diagnostic,
    Pic,
    Pit,
    Rtc,
    Keyboard,
    /// Fast A20 and reset.
    SystemControl,
    Uart,
    Apm,
    Power,
    FwCfg,
    PciAddress,
    PciData,
    TestRegister,
    TestFlush,
    TestLines,
    PciTest,
    DebugExit,
    Print,
    Shutdown,
}

/// The table. Snapshots share it until a function's ports move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortTable(Arc<[Port; 0x1_0000]>);

impl PortTable {
    pub(super) fn new() -> Self {
        Self(Arc::new([Port::Absent; 0x1_0000]))
    }

    pub(super) fn get(&self, port: u16) -> Port {
        self.0[usize::from(port)]
    }

    /// Gives `count` ports from `first` on to `device`.
    pub(super) fn set(&mut self, first: u16, count: u16, device: Port) {
        let table = Arc::make_mut(&mut self.0);
        let first = usize::from(first);
        let end = (first + usize::from(count)).min(table.len());
        table[first..end].fill(device);
    }

    /// Takes back what `device` had, then gives it `range`; ports of others stay theirs.
    pub(super) fn relocate(&mut self, device: Port, range: Option<(u16, u16)>) {
        let table = Arc::make_mut(&mut self.0);
        for owner in table.iter_mut().filter(|owner| **owner == device) {
            *owner = Port::Absent;
        }
        let Some((first, count)) = range else { return };
        for owner in table.iter_mut().skip(usize::from(first)).take(usize::from(count)) {
            if *owner == Port::Absent {
                *owner = device;
            }
        }
    }
}
