//! EPT violations that the guest takes as virtualization exceptions, and VM functions
//! (SDM Vol. 3C (325384-083, Mar 2024) "Virtualization Exceptions", "VM Functions").

use super::Vmx;
use crate::decide::{Exit, Processor, Table, View, converts_to_virtualization_exception};
use crate::definitions::capabilities::EptVpid;
use crate::{ExitReason, Field, SecondaryControls};
use rootmode_arch::event::{GuestPhysicalAccess, VmxInstruction};
use rootmode_arch::{Event, EventClass, HostPhysical, Reaction, vector};
use rootmode_cpu::{Context, Cpu, Fault, Outcome, Result};
use rootmode_mmu::{PhysicalMemory, SecondStage};

/// Offset of the part of the information area that must be 0 for a #VE, and what the processor writes there.
const BUSY: u64 = 4;
const BUSY_VALUE: u32 = u32::MAX;

impl Vmx {
    fn exception_area(&self) -> HostPhysical {
        HostPhysical(self.vmcs.value(Field::VirtualizationExceptionAddress))
    }

    /// Whether the guest has not looked yet at the information of the #VE before.
    pub(super) fn virtualization_exception_busy(&self, memory: &PhysicalMemory) -> bool {
        self.controls.has_secondary(SecondaryControls::EPT_VIOLATION_VE)
            && memory.read_u32(self.exception_area().offset(BUSY)) != 0
    }

    /// An EPT violation that does not exit: #VE, with the information in the guest's area.
    pub(super) fn virtualization_exception(
        &self,
        ctx: &mut Context<'_>,
        processor: &Processor,
        access: &GuestPhysicalAccess,
    ) -> Reaction {
        if !converts_to_virtualization_exception(&self.controls, processor, access) {
            return Reaction::Proceed;
        }
        let bitmaps = super::view::MemoryBitmaps { memory: ctx.memory, vmcs: &self.vmcs };
        let view = View { controls: &self.controls, processor, bitmaps: &bitmaps };
        let [violation, ..] = Table::BUILT_IN.of(EventClass::SecondStage) else { return Reaction::Proceed };
        let exit = Exit::new(&view, &Event::SecondStage(*access), violation);
        let area = self.exception_area();
        ctx.memory.write_u32(area, exit.reason.0.into());
        ctx.memory.write_u32(area.offset(BUSY), BUSY_VALUE);
        ctx.memory.write_u64(area.offset(8), exit.qualification);
        ctx.memory.write_u64(area.offset(16), exit.guest_linear.map_or(0, |linear| linear.0));
        ctx.memory.write_u64(area.offset(24), access.address.0);
        ctx.memory.write_u16(area.offset(32), self.vmcs.value(Field::EptpIndex) as u16);
        Reaction::Exception(vector::VE, 0)
    }

    /// VMFUNC of a function that is enabled: EPTP switching is the only one.
    pub(super) fn vm_function(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        function: u32,
        index: u32,
    ) -> Result<Outcome> {
        if function != 0 {
            return Err(Fault::UD);
        }
        let list = HostPhysical(self.vmcs.value(Field::EptpListAddress));
        let eptp = ctx.memory.read_u64(list.offset(8 * u64::from(index)));
        if !self.is_eptp(cpu, eptp) {
            let event = Event::Vmx {
                instruction: VmxInstruction::Vmfunc,
                operand: None,
                register: None,
                value: u64::from(function) | u64::from(index) << 32,
            };
            self.leave(cpu, ctx, &Exit::plain(ExitReason::VMFUNC, 0), Some(&event));
            return Ok(Outcome::Entered);
        }
        self.write(ctx, Field::Eptp, eptp);
        if self.controls.has_secondary(SecondaryControls::EPT_VIOLATION_VE) {
            self.write(ctx, Field::EptpIndex, index.into());
        }
        cpu.published.second_stage = SecondStage::Ept(self.ept(cpu));
        cpu.refresh();
        Ok(Outcome::Done)
    }

    /// Whether VM entry would accept `eptp`: memory type, walk length, flags, reserved bits.
    pub(super) fn is_eptp(&self, cpu: &Cpu, eptp: u64) -> bool {
        let supported = self.ept_vpid();
        let memory_type = match eptp & 7 {
            0 => supported.contains(EptVpid::MEMORY_UC),
            6 => supported.contains(EptVpid::MEMORY_WB),
            _ => false,
        };
        let length = match eptp >> 3 & 7 {
            3 => supported.contains(EptVpid::WALK_4),
            4 => supported.contains(EptVpid::WALK_5),
            _ => false,
        };
        let flags = eptp >> 6 & 1 == 0 || supported.contains(EptVpid::ACCESSED_DIRTY);
        memory_type && length && flags && eptp & 0xf80 == 0 && eptp >> cpu.model.physical_width() == 0
    }
}
