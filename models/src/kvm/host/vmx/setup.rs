//! The fields of vmcs01 and vmcs02 that do not depend on what L1 does, and L1's start state.

use rootmode_arch::{Cr0, Cr4, Efer, Feature, Gpr, SegmentName};
use rootmode_cpu::{Instruction, gate_address};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::drive::{offered::REVISION, segment_fields};
use rootmode_vmx::{EntryControls, ExitControls, Field, PinControls, PrimaryControls, SecondaryControls};

use super::super::machine::HostBug;
use super::super::state::{Start, State};
use super::{EPTP_BITS, VPID01, VmxVcpu};

/// What L0 wants of each word, whoever runs.
pub(super) const PIN: u32 = PinControls::EXTERNAL_INTERRUPT_EXITING.0 | PinControls::NMI_EXITING.0;
pub(super) const PRIMARY: u32 = PrimaryControls::HLT_EXITING.0
    | PrimaryControls::UNCONDITIONAL_IO_EXITING.0
    | PrimaryControls::USE_TSC_OFFSETTING.0
    | PrimaryControls::ACTIVATE_SECONDARY.0;
pub(super) const SECONDARY: u32 = SecondaryControls::ENABLE_EPT.0
    | SecondaryControls::ENABLE_VPID.0
    | SecondaryControls::UNRESTRICTED_GUEST.0
    | SecondaryControls::ENABLE_RDTSCP.0
    | SecondaryControls::ENABLE_INVPCID.0
    | SecondaryControls::ENABLE_XSAVES.0;
pub(super) const EXIT: u32 = ExitControls::HOST_ADDRESS_SPACE_SIZE.0
    | ExitControls::SAVE_DEBUG_CONTROLS.0
    | ExitControls::ACKNOWLEDGE_INTERRUPT.0
    | ExitControls::SAVE_EFER.0
    | ExitControls::LOAD_EFER.0
    | ExitControls::SAVE_PAT.0
    | ExitControls::LOAD_PAT.0;
pub(super) const ENTRY: u32 =
    EntryControls::LOAD_DEBUG_CONTROLS.0 | EntryControls::LOAD_EFER.0 | EntryControls::LOAD_PAT.0;

impl VmxVcpu {
    /// The value nearest to `wanted` that the processor allows.
    pub(super) fn allowed(&self, word: Word, wanted: u32) -> u64 {
        self.capabilities.allowed_value(word).nearest(wanted.into())
    }

    /// Enters VMX operation, and fills both VMCSs.
    pub(super) fn set_up(&mut self, start: &Start) -> Result<(), HostBug> {
        {
            let mut m = self.m();
            let page_table = m.frame(1)?;
            let vmxon = m.frame(1)?;
            let gate = gate_address(self.processor.into()).0;
            let has_xsave = self.model.has(Feature::Xsave);
            let cpu = m.cpu_mut();
            cpu.enter_long_mode(page_table.0, gate, 0);
            cpu.cr4 = Cr4::PAE.with(Cr4::VMXE).set(Cr4::OSXSAVE, has_xsave);
            cpu.refresh();
            m.board.memory.write_u32(vmxon, REVISION);
            m.vmx(Instruction::Vmxon { region: vmxon.0 })?;
        }
        for (region, bitmap) in [(self.vmcs02.region, self.bitmap02), (self.vmcs01.region, self.bitmap01)] {
            self.m().board.memory.write_u32(region, REVISION);
            self.m().vmx(Instruction::Vmclear { region: region.0 })?;
            self.m().vmx(Instruction::Vmptrld { region: region.0 })?;
            self.constant_fields()?;
            self.vmwrite(Field::MsrBitmap, bitmap.0)?;
        }
        let page = self.intercepts.map.as_page();
        self.m().board.memory.write(self.bitmap01, page);
        self.controls_of_l1()?;
        self.start_state(&start.state)?;
        let mut m = self.m();
        m.cpu_mut().gpr = start.state.gpr;
        m.cpu_mut().msrs = start.msrs;
        m.cpu_mut().cr2 = start.state.cr2;
        Ok(())
    }

    /// Host state, and what never changes.
    fn constant_fields(&self) -> Result<(), HostBug> {
        let (cr0, cr3, cr4, efer, pat) = {
            let m = self.m();
            let cpu = m.cpu();
            (cpu.cr0.0, cpu.cr3.0, cpu.cr4.0, cpu.efer.0, cpu.msrs.pat)
        };
        for (field, value) in [
            (Field::LinkPointer, u64::MAX),
            (Field::HostCr0, cr0),
            (Field::HostCr3, cr3),
            (Field::HostCr4, cr4),
            (Field::HostEfer, efer),
            (Field::HostPat, pat),
            (Field::HostCsSelector, 0x08),
            (Field::HostSsSelector, 0x10),
            (Field::HostTrSelector, 0x18),
            (Field::HostRip, gate_address(self.processor.into()).0),
            (Field::ExitControls, self.allowed(Word::Exit, EXIT)),
        ] {
            self.vmwrite(field, value)?;
        }
        Ok(())
    }

    fn controls_of_l1(&self) -> Result<(), HostBug> {
        let root = self.m().tables01.root();
        let primary = PRIMARY | PrimaryControls::USE_MSR_BITMAPS.0;
        for (field, value) in [
            (Field::PinControls, self.allowed(Word::Pin, PIN)),
            (Field::PrimaryControls, self.allowed(Word::Primary, primary)),
            (Field::SecondaryControls, self.allowed(Word::Secondary, SECONDARY)),
            (Field::EntryControls, self.allowed(Word::Entry, ENTRY | EntryControls::IA32E_MODE_GUEST.0)),
            (Field::Vpid, VPID01),
            (Field::Eptp, root.0 | EPTP_BITS),
            // L1 does not see that CR4.VMXE is always 1, nor may it clear CR0.NE.
            (Field::Cr4Mask, Cr4::VMXE.0),
            (Field::Cr0Mask, Cr0::NE.0),
        ] {
            self.vmwrite(field, value)?;
        }
        Ok(())
    }

    pub(super) fn start_state(&self, start: &State) -> Result<(), HostBug> {
        for name in SegmentName::ALL {
            let segment = start.segment(name);
            let values =
                [segment.selector.0.into(), segment.limit.into(), segment.rights.0.into(), segment.base];
            for (field, value) in segment_fields(name).into_iter().zip(values) {
                self.vmwrite(field, value)?;
            }
        }
        for (field, value) in [
            (Field::GuestCr0, start.cr0 | Cr0::NE.0),
            (Field::Cr0Shadow, start.cr0),
            (Field::GuestCr3, start.cr3),
            (Field::GuestCr4, start.cr4 | Cr4::VMXE.0),
            (Field::Cr4Shadow, start.cr4),
            (Field::GuestEfer, start.efer & !Efer::SVME.0),
            (Field::GuestPat, start.pat),
            (Field::GuestDr7, start.dr7),
            (Field::GuestRip, start.rip),
            (Field::GuestRsp, start.gpr[Gpr::Rsp as usize]),
            (Field::GuestRflags, start.rflags),
            (Field::GuestGdtrBase, start.gdtr.base),
            (Field::GuestGdtrLimit, start.gdtr.limit.into()),
            (Field::GuestIdtrBase, start.idtr.base),
            (Field::GuestIdtrLimit, start.idtr.limit.into()),
            (Field::GuestSysenterCs, start.sysenter[0]),
            (Field::GuestSysenterEsp, start.sysenter[1]),
            (Field::GuestSysenterEip, start.sysenter[2]),
        ] {
            self.vmwrite(field, value)?;
        }
        Ok(())
    }
}
