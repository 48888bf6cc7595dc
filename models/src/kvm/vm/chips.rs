//! The ioctls of a [`Vm`] about interrupt controllers, interrupts and counters of events.

use super::irqchip::Irqchip;
use super::{EntryPoint, EventCounter, Failure, Vm};
use crate::kvm::Errno;
use crate::kvm::abi::{
    Ioeventfd, IrqLevel, IrqRoutingEntry, Irqchip as ChipState, Irqfd, Msi, PitConfig, PitState2,
};
use crate::kvm::host::Machine;

/// One method a call: the name, the call, what it is.
macro_rules! chip_calls {
    ($($(#[$meta:meta])* $name:ident($($argument:ident: $type:ty),*) -> $answer:ty = |$chip:ident, $machine:ident| $call:expr;)*) => {
        impl Vm {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// Linux's.
                pub fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, Failure> {
                    self.alive(EntryPoint::Native)?;
                    Ok(self.shared.with(0, |machine, rooms| {
                        let ($chip, $machine): (&mut Irqchip, &mut Machine) = (&mut rooms.irqchip, machine);
                        $call
                    })?)
                }
            )*
        }
    };
}

chip_calls! {
    /// `KVM_CREATE_IRQCHIP`.
    create_irqchip() -> () = |chip, _machine| chip.create();
    /// `KVM_CAP_SPLIT_IRQCHIP`.
    split_irqchip(pins: u64) -> () = |chip, _machine| chip.split(pins);
    /// `KVM_GET_IRQCHIP`.
    irqchip(asked: &ChipState) -> ChipState = |chip, _machine| chip.chip(asked);
    /// `KVM_SET_IRQCHIP`.
    set_irqchip(state: &ChipState) -> () = |chip, machine| chip.set_chip(machine, state);
    /// `KVM_CREATE_PIT2`.
    create_pit2(config: &PitConfig) -> () = |chip, _machine| chip.create_pit(config);
    /// `KVM_GET_PIT2`.
    pit2() -> PitState2 = |chip, machine| chip.pit_state(machine);
    /// `KVM_SET_PIT2`.
    set_pit2(state: &PitState2) -> () = |chip, machine| chip.set_pit(machine, state);
    /// `KVM_IRQ_LINE`: so many got it; -1: nobody.
    irq_line(asked: &IrqLevel) -> i32 = |chip, machine| chip.line(machine, asked);
    /// `KVM_SIGNAL_MSI`: so many got it.
    signal_msi(msi: &Msi) -> i32 = |chip, machine| chip.signal(machine, msi);
    /// `KVM_SET_GSI_ROUTING`.
    set_gsi_routing(entries: &[IrqRoutingEntry]) -> () = |chip, _machine| chip.set_routes(entries);
    /// `KVM_IRQFD`; `open` opens a counter.
    irqfd(asked: &Irqfd, open: impl FnMut(i32) -> Result<Box<dyn EventCounter>, Errno>) -> ()
        = |chip, machine| chip.irqfd(machine, asked, open);
}

impl Vm {
    /// `KVM_IOEVENTFD` with its counter.
    ///
    /// # Errors
    /// Linux's.
    pub fn ioeventfd(&mut self, asked: &Ioeventfd, event: Box<dyn EventCounter>) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        Ok(self.shared.rooms().io_events.change(asked, event)?)
    }

    /// `KVM_SET_BOOT_CPU_ID`.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] behind the first vCPU.
    pub fn set_bootstrap(&mut self, id: u32) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        if self.has_vcpus() {
            return Err(Errno::Ebusy.into());
        }
        self.shared.rooms().bootstrap = id;
        Ok(())
    }
}
