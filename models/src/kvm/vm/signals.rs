//! Event counters (`eventfd`) that a guest's writes count up, and that interrupt it: `KVM_IOEVENTFD`, `KVM_IRQFD`.

use super::guard::Sent;
use crate::kvm::Errno;
use crate::kvm::abi::{Ioeventfd, Irqfd};

/// An event counter of the client's, open for as long as this exists.
pub trait EventCounter: Send {
    /// Which counter it is: descriptors that were duplicated are one.
    fn id(&self) -> u64;

    /// Counts one more.
    fn signal(&self);

    /// Takes what was counted; whether there was anything.
    fn take(&self) -> bool;
}

/// `KVM_IOEVENTFD_FLAG_*`.
const DATA_MATCH: u32 = 1;
const PORT: u32 = 2;
const DEASSIGN: u32 = 4;
/// `KVM_IRQFD_FLAG_*`.
const IRQ_DEASSIGN: u32 = 1;
const RESAMPLE: u32 = 2;

/// What makes a write count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    port: bool,
    address: u64,
    /// 0: of any size.
    len: u32,
    data: Option<u64>,
}

impl Match {
    /// Whether a write that the one makes count could be one that the other does.
    fn collides(&self, other: &Self) -> bool {
        let data = self.data.is_none() || other.data.is_none() || self.data == other.data;
        let len = self.len == 0 || other.len == 0 || self.len == other.len;
        self.port == other.port && self.address == other.address && len && data
    }

    fn takes(&self, sent: &Sent) -> bool {
        let (port, address, size, value) = match *sent {
            Sent::Mmio { address, size, value } => (false, address.0, size, value),
            Sent::Port { port, size, value } => (true, port.into(), size, value.into()),
        };
        let mask = u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        self.port == port
            && self.address == address
            && (self.len == 0 || self.len == u32::from(size))
            && self.data.is_none_or(|data| data & mask == value & mask)
    }
}

/// The counters that writes count up.
#[derive(Default)]
pub(super) struct IoEvents(Vec<(Match, Box<dyn EventCounter>)>);

impl IoEvents {
    /// `KVM_IOEVENTFD` with its counter.
    ///
    /// # Errors
    /// [`Errno::Einval`], [`Errno::Eexist`] if a write would count twice, [`Errno::Enoent`] if there is none to take away.
    pub(super) fn change(&mut self, asked: &Ioeventfd, event: Box<dyn EventCounter>) -> Result<(), Errno> {
        let matches = Self::check(asked)?;
        if asked.flags & DEASSIGN != 0 {
            let found =
                self.0.iter().position(|(other, counter)| *other == matches && counter.id() == event.id());
            self.0.remove(found.ok_or(Errno::Enoent)?);
            return Ok(());
        }
        if self.0.iter().any(|(other, _)| other.collides(&matches)) {
            return Err(Errno::Eexist);
        }
        self.0.push((matches, event));
        Ok(())
    }

    fn check(asked: &Ioeventfd) -> Result<Match, Errno> {
        let Ioeventfd { datamatch, addr, len, flags, .. } = *asked;
        let data = (flags & DATA_MATCH != 0).then_some(datamatch);
        if flags & !(DATA_MATCH | PORT | DEASSIGN) != 0
            || !matches!(len, 0 | 1 | 2 | 4 | 8)
            || addr.checked_add(len.into()).is_none()
            || len == 0 && data.is_some()
        {
            return Err(Errno::Einval);
        }
        Ok(Match { port: flags & PORT != 0, address: addr, len, data })
    }

    /// Counts a write, if it is one that counts.
    pub(super) fn takes(&self, sent: &Sent) -> bool {
        let found = self.0.iter().find(|(matches, _)| matches.takes(sent));
        if let Some((_, event)) = found {
            event.signal();
        }
        found.is_some()
    }
}

/// A counter that interrupts.
struct IrqEvent {
    gsi: u32,
    event: Box<dyn EventCounter>,
    /// Its line stays high until the interrupt ends, which this one is told.
    resample: Option<Box<dyn EventCounter>>,
}

/// The counters that interrupt.
#[derive(Default)]
pub(super) struct IrqEvents(Vec<IrqEvent>);

/// What a counter that was counted up does to its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fired {
    /// High and low again.
    Pulse(u32),
    /// High, until the interrupt ends.
    Raise(u32),
}

impl IrqEvents {
    /// Whether `asked` takes a counter away, and whether it has a second one.
    ///
    /// # Errors
    /// [`Errno::Einval`] for other flags.
    pub(super) const fn kind(asked: &Irqfd) -> Result<(bool, bool), Errno> {
        if asked.flags & !(IRQ_DEASSIGN | RESAMPLE) != 0 {
            return Err(Errno::Einval);
        }
        Ok((asked.flags & IRQ_DEASSIGN != 0, asked.flags & RESAMPLE != 0))
    }

    /// # Errors
    /// [`Errno::Ebusy`] if the counter interrupts already.
    pub(super) fn add(
        &mut self,
        gsi: u32,
        event: Box<dyn EventCounter>,
        resample: Option<Box<dyn EventCounter>>,
    ) -> Result<(), Errno> {
        if self.0.iter().any(|other| other.event.id() == event.id()) {
            return Err(Errno::Ebusy);
        }
        self.0.push(IrqEvent { gsi, event, resample });
        Ok(())
    }

    pub(super) fn remove(&mut self, gsi: u32, event: &dyn EventCounter) {
        self.0.retain(|other| other.gsi != gsi || other.event.id() != event.id());
    }

    /// What was counted since the last call.
    pub(super) fn fired(&self) -> Vec<Fired> {
        let fired = self.0.iter().filter(|irq| irq.event.take());
        fired
            .map(|irq| if irq.resample.is_some() { Fired::Raise(irq.gsi) } else { Fired::Pulse(irq.gsi) })
            .collect()
    }

    /// The interrupt ended: tells those whose line is high. Whether there are any.
    pub(super) fn resample(&self, gsi: u32) -> bool {
        let mut any = false;
        for resample in self.0.iter().filter(|irq| irq.gsi == gsi).filter_map(|irq| irq.resample.as_ref()) {
            resample.signal();
            any = true;
        }
        any
    }
}
