//! Ioctls of a VM about interrupt controllers, interrupts and counters of events.

use super::{Answer, DONE, Instance, copy_in, copy_list, copy_out};
use crate::kvm::Errno;
use crate::kvm::abi::request as r;
use crate::kvm::abi::{
    Ioeventfd, IrqLevel, IrqRoutingEntry, IrqRoutingHead, Irqchip, Irqfd, Msi, Object, PIT_SPEAKER_DUMMY,
    PitConfig, PitState, PitState2, Plain, absent,
};
use crate::kvm::vm::{ClientMemory, Failure, MOST_ROUTES};

impl Instance {
    pub(super) fn chip_call(
        &mut self,
        number: u32,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        match number {
            r::CREATE_IRQCHIP => self.vm.create_irqchip()?,
            r::IRQ_LINE => drop(self.vm.irq_line(&copy_in(client, argument)?)?),
            r::IRQ_LINE_STATUS => {
                let asked: IrqLevel = copy_in(client, argument)?;
                let status = self.vm.irq_line(&asked)?;
                // The status lies where the interrupt's number was.
                copy_out(client, argument, &IrqLevel { irq: status as u32, ..asked })?;
            }
            // Which chip comes first of all, but not where there is none.
            r::GET_IRQCHIP => {
                let state = self.vm.irqchip(&copy_in::<Irqchip>(client, argument)?)?;
                copy_out(client, argument, &state)?;
            }
            r::SET_IRQCHIP => self.vm.set_irqchip(&copy_in(client, argument)?)?,
            // The older calls: with the speaker's port, and without flags.
            r::CREATE_PIT => {
                self.vm.create_pit2(&PitConfig { flags: PIT_SPEAKER_DUMMY, ..PitConfig::default() })?;
            }
            r::GET_PIT => {
                let channels = self.vm.pit2()?.channels;
                copy_out(client, argument, &PitState { channels })?;
            }
            r::SET_PIT => {
                let PitState { channels } = copy_in(client, argument)?;
                self.vm.set_pit2(&PitState2 { channels, ..PitState2::default() })?;
            }
            r::CREATE_PIT2 => self.vm.create_pit2(&copy_in(client, argument)?)?,
            r::GET_PIT2 => {
                let state = self.vm.pit2()?;
                copy_out(client, argument, &state)?;
            }
            r::SET_PIT2 => self.vm.set_pit2(&copy_in(client, argument)?)?,
            r::SIGNAL_MSI => {
                return Ok(Answer::Value(self.vm.signal_msi(&copy_in::<Msi>(client, argument)?)?));
            }
            r::SET_GSI_ROUTING => {
                let head: IrqRoutingHead = copy_in(client, argument)?;
                if head.nr > MOST_ROUTES || head.flags != 0 {
                    return Err(Errno::Einval.into());
                }
                let at = argument + IrqRoutingHead::SIZE as u64;
                let entries: Vec<IrqRoutingEntry> = copy_list(client, at, head.nr as usize)?;
                self.vm.set_gsi_routing(&entries)?;
            }
            r::IRQFD => {
                let asked: Irqfd = copy_in(client, argument)?;
                self.vm.irqfd(&asked, |descriptor| client.event(descriptor))?;
            }
            r::IOEVENTFD => {
                let asked: Ioeventfd = copy_in(client, argument)?;
                let event = client.event(asked.fd)?;
                self.vm.ioeventfd(&asked, event)?;
            }
            _ => return Err(absent(Object::Vm, number).into()),
        }
        Ok(DONE)
    }
}
