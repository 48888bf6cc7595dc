//! Exits of L2: L0's own, and those that L1 gets.

use rootmode_arch::{Gpr, GuestPhysical, Vendor, vector};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps, IoBitmaps};
use rootmode_vmx::information::Interruption;
use rootmode_vmx::qualification::{CrAccess, CrAccessKind, Io};
use rootmode_vmx::{ExitReason, Field, PinControls, PrimaryControls, SecondaryControls};

use super::super::backend::{Arrival, Nested, Shadowed};
use super::super::machine::HostBug;
use super::super::second_stage::{Access12, Guest12, Refused};
use super::VmxVcpu;
use crate::kvm::interception::Access;
use crate::kvm::nested::{Handler, VirtualApic, Vmcs12, vmx_msr_exit_handler};
use crate::kvm::slots::Reader;

/// L1's I/O bitmaps, read from L1's memory. What cannot be read exits.
struct Bitmaps12<'a> {
    reader: Reader<'a>,
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
    /// Whether L2's exit is L1's to see, or to decide about.
    pub(super) fn belongs_to_l1(&self, reason: ExitReason) -> Result<bool, HostBug> {
        let primary = self.primary12();
        Ok(match reason {
            ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION => self.has_ept12(),
            // The host's own.
            ExitReason::EXTERNAL_INTERRUPT => false,
            ExitReason::EXCEPTION_OR_NMI => {
                let info = self.vmread(Field::ExitInterruptionInfo)?;
                info >> 8 & 7 != 2 && self.nested.vmcs12.value(Field::ExceptionBitmap) >> (info & 31) & 1 != 0
                    || info & 0xff == vector::PF.into()
            }
            ExitReason::IO_INSTRUCTION => self.l1_wants_port()?,
            ExitReason::RDMSR => self.l1_wants_msr(Access::Read),
            ExitReason::WRMSR => self.l1_wants_msr(Access::Write),
            ExitReason::HLT => primary.contains(PrimaryControls::HLT_EXITING),
            ExitReason::MOV_DR => primary.contains(PrimaryControls::MOV_DR_EXITING),
            ExitReason::INTERRUPT_WINDOW => primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING),
            ExitReason::NMI_WINDOW => primary.contains(PrimaryControls::NMI_WINDOW_EXITING),
            ExitReason::CR_ACCESS => {
                let CrAccess { cr, kind } = CrAccess::decode(self.vmread(Field::ExitQualification)?);
                match kind {
                    CrAccessKind::MovTo(_) if cr == 8 => primary.contains(PrimaryControls::CR8_LOAD_EXITING),
                    CrAccessKind::MovFrom(_) if cr == 8 => {
                        primary.contains(PrimaryControls::CR8_STORE_EXITING)
                    }
                    _ => true,
                }
            }
            _ => true,
        })
    }

    /// Does what belongs to nesting of L2's exit.
    pub(super) async fn nested_exit(&mut self, reason: ExitReason) -> Result<Nested, HostBug> {
        match reason {
            ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION => self.second_stage_exit().await,
            _ => self.exit_to_l1(reason).await,
        }
    }

    /// Whether L1 sees an arrival while L2 runs.
    pub(super) fn l1_takes(&self, arrival: Arrival) -> bool {
        let vmcs12 = &self.nested.vmcs12;
        let pin = PinControls(vmcs12.value(Field::PinControls) as u32);
        match arrival {
            Arrival::Interrupt(_) => pin.contains(PinControls::EXTERNAL_INTERRUPT_EXITING),
            Arrival::Nmi => pin.contains(PinControls::NMI_EXITING),
            Arrival::Init | Arrival::Trap => true,
            Arrival::Exception(event, _) => {
                let listed = vmcs12.value(Field::ExceptionBitmap) >> event.vector & 1 != 0;
                if event.vector != vector::PF {
                    return listed;
                }
                let code = u64::from(event.error_code.unwrap_or(0));
                let matches = code & vmcs12.value(Field::PageFaultErrorMask)
                    == vmcs12.value(Field::PageFaultErrorMatch);
                matches == listed
            }
        }
    }

    pub(super) fn has_ept12(&self) -> bool {
        self.secondary12(SecondaryControls::ENABLE_EPT)
    }

    pub(super) fn primary12(&self) -> PrimaryControls {
        PrimaryControls(self.nested.vmcs12.value(Field::PrimaryControls) as u32)
    }

    fn l1_wants_port(&self) -> Result<bool, HostBug> {
        let Some(io) = Io::decode(self.vmread(Field::ExitQualification)?) else { return Ok(true) };
        let primary = self.primary12();
        if !primary.contains(PrimaryControls::USE_IO_BITMAPS) {
            return Ok(primary.contains(PrimaryControls::UNCONDITIONAL_IO_EXITING));
        }
        let pages = [Field::IoBitmapA, Field::IoBitmapB].map(|field| self.nested.vmcs12.value(field));
        let mut m = self.m();
        Ok(IoBitmaps::access_exits(&Bitmaps12 { reader: m.l1(), pages }, io.port, io.size))
    }

    fn l1_wants_msr(&self, access: Access) -> bool {
        let mut m = self.m();
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

    /// L2 touched a page that the shadow does not allow: L1's tables decide whose business that is.
    async fn second_stage_exit(&mut self) -> Result<Nested, HostBug> {
        let page = GuestPhysical(self.vmread(Field::GuestPhysicalAddress)?);
        let qualification = self.vmread(Field::ExitQualification)?;
        self.mmu.acquire().await;
        self.before_guest_memory().await;
        let outcome = self.shadow(page, qualification);
        self.mmu.release().await;
        match outcome? {
            Shadowed::Mapped(_) => Ok(Nested::Again),
            Shadowed::Device(at) => Ok(Nested::Device { page: page.page_base(), at: at.page_base() }),
            Shadowed::Refused(refused) => self.refused(qualification, refused).await,
        }
    }

    /// L1's tables refuse L2's access: L1 gets the exit.
    pub(super) async fn refused(&mut self, qualification: u64, refused: Refused) -> Result<Nested, HostBug> {
        // The emulator may have come across it.
        if self.vmread(Field::IdtVectoringInfo)? & u64::from(Interruption::VALID) == 0 {
            self.set_resume_flag(true)?;
        }
        if refused.malformed {
            self.vmwrite(Field::ExitQualification, 0)?;
            return self.exit_to_l1(ExitReason::EPT_MISCONFIGURATION).await;
        }
        // Bits 5:3 are what L1's own tables allow.
        let qualification = qualification & !0x38 | u64::from(refused.rights) << 3;
        self.vmwrite(Field::ExitQualification, qualification)?;
        self.exit_to_l1(ExitReason::EPT_VIOLATION).await
    }

    /// Puts the page into the shadow, as far as L1's tables lead to it.
    pub(super) fn shadow(&self, address: GuestPhysical, qualification: u64) -> Result<Shadowed, HostBug> {
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
        match tables.walk(&mut m, address, access) {
            Ok(mapped) => Ok(match m.map_shadow(address, mapped, access.write)? {
                Some(()) => Shadowed::Mapped(mapped.guest),
                None => Shadowed::Device(mapped.guest),
            }),
            Err(refused) => Ok(Shadowed::Refused(refused)),
        }
    }
}
