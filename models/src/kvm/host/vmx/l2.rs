//! Exits of L2: L0's own, and those that L1 gets.

use rootmode_arch::record::Level;
use rootmode_arch::{Gpr, GuestPhysical, Vendor};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps, IoBitmaps};
use rootmode_vmx::qualification::Io;
use rootmode_vmx::{ExitReason, Field, PrimaryControls, SecondaryControls};

use super::super::frames::SlotReader;
use super::super::machine::{HostBug, Machine};
use super::super::second_stage::{Access12, Guest12, Mapped12, Refused, Rights};
use super::VmxVcpu;
use crate::kvm::interception::Access;
use crate::kvm::nested::{Handler, VirtualApic, Vmcs12, vmx_msr_exit_handler};

/// L1's I/O bitmaps, read from L1's memory. What cannot be read exits.
struct Bitmaps12<'a> {
    reader: SlotReader<'a>,
    pages: [u64; 2],
}

impl Bitmaps for Bitmaps12<'_> {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        let base = if page == BitmapPage::IoB { self.pages[1] } else { self.pages[0] };
        let address = base.wrapping_add(offset.into());
        self.reader.quadword(address & !7).map_or(0xff, |word| (word >> (8 * (address & 7))) as u8)
    }
}

impl VmxVcpu {
    pub(super) async fn handle_l2_exit(&mut self, reason: ExitReason) -> Result<(), HostBug> {
        match reason {
            ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION => self.second_stage_exit().await,
            ExitReason::EXTERNAL_INTERRUPT => self.unmodelled(),
            ExitReason::IO_INSTRUCTION if !self.l1_wants_port()? => self.emulate_port(Level::L2),
            ExitReason::RDMSR if !self.l1_wants_msr(Access::Read) => self.emulate_msr(Access::Read).await,
            ExitReason::WRMSR if !self.l1_wants_msr(Access::Write) => self.emulate_msr(Access::Write).await,
            ExitReason::HLT if !self.primary12().contains(PrimaryControls::HLT_EXITING) => self.halt(),
            _ => self.exit_to_l1(reason).await,
        }
    }

    fn primary12(&self) -> PrimaryControls {
        PrimaryControls(self.nested.vmcs12.value(Field::PrimaryControls) as u32)
    }

    fn l1_wants_port(&self) -> Result<bool, HostBug> {
        let Some(io) = Io::decode(self.vmread(Field::ExitQualification)?) else { return Ok(true) };
        let primary = self.primary12();
        if !primary.contains(PrimaryControls::USE_IO_BITMAPS) {
            return Ok(primary.contains(PrimaryControls::UNCONDITIONAL_IO_EXITING));
        }
        let pages = [Field::IoBitmapA, Field::IoBitmapB].map(|field| self.nested.vmcs12.value(field));
        let m = self.m();
        Ok(IoBitmaps::access_exits(&Bitmaps12 { reader: m.l1(), pages }, io.port, io.size))
    }

    fn l1_wants_msr(&self, access: Access) -> bool {
        let m = self.m();
        let index = m.gpr(Gpr::Rcx) as u32;
        let vmcs12 = Vmcs12 {
            use_bitmaps: self.primary12().contains(PrimaryControls::USE_MSR_BITMAPS),
            bitmap: self.nested.vmcs12.value(Field::MsrBitmap),
            apic: VirtualApic::default(),
            enlightened: false,
            clean: false,
        };
        vmx_msr_exit_handler(&vmcs12, index, access, &mut m.l1(), self.config.regressions) == Handler::L1
    }

    /// L2 touched a page that the tables it runs on do not allow: L1's tables decide whose business that is.
    async fn second_stage_exit(&mut self) -> Result<(), HostBug> {
        let address = GuestPhysical(self.vmread(Field::GuestPhysicalAddress)?);
        let qualification = self.vmread(Field::ExitQualification)?;
        if !self.secondary12(SecondaryControls::ENABLE_EPT) {
            return match self.m().map01(address)? {
                true => self.requeue_interrupted(),
                false => self.unmodelled(),
            };
        }
        self.mmu.acquire().await;
        self.before_guest_memory().await;
        let walked = self.walk12(address, qualification);
        let outcome = match walked {
            Ok(mapped) => self.map_shadow(address, mapped).map(Ok),
            Err(refused) => Ok(Err(refused)),
        };
        self.mmu.release().await;
        match outcome? {
            Ok(()) => self.requeue_interrupted(),
            Err(refused) if refused.malformed => {
                self.vmwrite(Field::ExitQualification, 0)?;
                self.exit_to_l1(ExitReason::EPT_MISCONFIGURATION).await
            }
            Err(refused) => {
                // Bits 5:3 are what L1's own tables allow.
                let qualification = qualification & !0x38 | u64::from(refused.rights) << 3;
                self.vmwrite(Field::ExitQualification, qualification)?;
                self.exit_to_l1(ExitReason::EPT_VIOLATION).await
            }
        }
    }

    fn walk12(&self, address: GuestPhysical, qualification: u64) -> Result<Mapped12, Refused> {
        let eptp12 = self.nested.vmcs12.value(Field::Eptp);
        let tables = Guest12 {
            vendor: Vendor::Intel,
            root: eptp12,
            accessed_dirty: eptp12 >> 6 & 1 != 0,
            no_execute: true,
            physical_width: self.model.physical_width(),
        };
        let access = Access12 {
            read: qualification & 1 != 0,
            write: qualification & 2 != 0,
            fetch: qualification & 4 != 0,
        };
        let mut m = self.m();
        let Machine { board, slots, .. } = &mut *m;
        tables.walk(&mut board.memory, slots, address, access)
    }

    /// Puts the page into the shadow. A page of L1 that is not in the slot is left to the next exit.
    fn map_shadow(&self, address: GuestPhysical, mapped: Mapped12) -> Result<(), HostBug> {
        let mut m = self.m();
        let Some(host) = m.slots.host(mapped.guest.page_base()) else {
            m.stop = Some(rootmode_arch::record::Stop::Unmodelled(rootmode_arch::Linear(address.0)));
            return Ok(());
        };
        let Machine { board, frames, shadow, .. } = &mut *m;
        let rights = Rights { ..mapped.rights };
        match shadow {
            Some(shadow) => {
                shadow.map(&mut board.memory, frames, address, host, rights).ok_or(HostBug::OutOfFrames)
            }
            None => Ok(()),
        }
    }
}
