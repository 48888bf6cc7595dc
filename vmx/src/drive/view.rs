//! What a decision reads, gathered from the processor; the bitmaps are looked up in simulated memory, in place.

use super::Vmx;
use super::state::interruptibility;
use crate::bitmap::{BitmapPage, Bitmaps};
use crate::decide::{Controls, Processor, Traits};
use crate::definitions::capabilities::{Basic, EptVpid};
use crate::{Capabilities, Field, Vmcs};
use rootmode_arch::{AccessRights, HostPhysical, SegmentName};
use rootmode_cpu::Cpu;
use rootmode_mmu::PhysicalMemory;

/// The bitmap pages of the current VMCS, in memory.
#[derive(Clone, Copy)]
pub(super) struct MemoryBitmaps<'a> {
    pub(super) memory: &'a PhysicalMemory,
    pub(super) vmcs: &'a Vmcs,
}

impl Bitmaps for MemoryBitmaps<'_> {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        let field = match page {
            BitmapPage::IoA => Field::IoBitmapA,
            BitmapPage::IoB => Field::IoBitmapB,
            BitmapPage::Msr => Field::MsrBitmap,
            BitmapPage::Vmread => Field::VmreadBitmap,
            BitmapPage::Vmwrite => Field::VmwriteBitmap,
        };
        self.memory.read_u8(HostPhysical(self.vmcs.value(field)).offset(offset.into()))
    }
}

/// What the capabilities say about how exits report.
pub(super) fn traits(capabilities: &Capabilities) -> Traits {
    Traits {
        ins_outs_information: capabilities.basic().is_some_and(|b| b.contains(Basic::INS_OUTS_INFORMATION)),
        advanced_ept_information: capabilities.ept_vpid().is_some_and(|e| e.contains(EptVpid::ADVANCED_EXIT)),
        sti_blocks_nmi_window: false,
    }
}

/// The controls of the current VMCS, for decisions until the next exit.
pub(super) fn controls(vmx: &Vmx) -> Controls {
    Controls::of(&vmx.vmcs, traits(&vmx.capabilities))
}

/// The processor as decisions see it now.
pub(super) fn processor(vmx: &Vmx, cpu: &Cpu, memory: &PhysicalMemory) -> Processor {
    Processor {
        cr0: cpu.cr0,
        cr4: cpu.cr4,
        efer: cpu.efer,
        rflags: cpu.rflags(),
        cs_long: cpu.segment(SegmentName::Cs).rights.contains(AccessRights::L),
        cpl: cpu.cpl,
        interruptibility: interruptibility(cpu),
        pause_loop: vmx.pause_loop,
        pending_mtf: vmx.pending_mtf,
        in_delivery: cpu.delivering.is_some(),
        iret_unblocks_nmi: cpu.unblocked_by_iret,
        xss: cpu.xss,
        vtpr: vmx.virtual_tpr(memory),
        apic_write_virtualized: vmx.apic.written,
        virtualization_exception_busy: vmx.virtualization_exception_busy(memory),
        ..Processor::default()
    }
}
