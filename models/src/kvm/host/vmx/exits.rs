//! Exits of L1, and what L0 emulates for whoever runs: CPUID, ports, MSRs, control registers, HLT.

use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{Cr0, Cr4, Gpr, GuestPhysical, vector};
use rootmode_cpu::DeliveryKind;
use rootmode_vmx::qualification::{CrAccess, CrAccessKind, Io};
use rootmode_vmx::{ExitReason, Field};

use super::super::backend::{Arrival, Injection, Nested};
use super::super::machine::HostBug;
use super::super::point::Point;
use super::VmxVcpu;
use crate::kvm::interception::Access;

impl VmxVcpu {
    pub(super) async fn handle_l1_exit(&mut self, reason: ExitReason) -> Result<(), HostBug> {
        match reason {
            ExitReason::CPUID => self.emulate_cpuid(),
            ExitReason::HLT => self.halt(),
            ExitReason::IO_INSTRUCTION => self.emulate_port(Level::L1),
            ExitReason::RDMSR => self.emulate_msr(Access::Read).await,
            ExitReason::WRMSR => self.emulate_msr(Access::Write).await,
            ExitReason::CR_ACCESS => self.emulate_cr(),
            ExitReason::EPT_VIOLATION => self.fault_in().await,
            ExitReason::TRIPLE_FAULT => {
                self.m().stop = Some(Stop::TripleFault);
                Ok(())
            }
            ExitReason::VMCALL => {
                // No hypercall is offered: -KVM_ENOSYS.
                self.m().set_gpr(Gpr::Rax, -1000_i64 as u64);
                self.skip()
            }
            _ if reason.is_vmx_instruction() => {
                let nested = self.nested_instruction(reason).await?;
                self.settle(nested)
            }
            _ => self.unmodelled(),
        }
    }

    /// An exit of L2: L0's own, or one that belongs to nesting.
    pub(super) async fn handle_l2_exit(&mut self, reason: ExitReason) -> Result<(), HostBug> {
        if self.belongs_to_l1(reason)? {
            let nested = self.nested_exit(reason).await?;
            return self.settle(nested);
        }
        match reason {
            ExitReason::EPT_VIOLATION => {
                let mapped = self.map_touched()?;
                self.went_in(mapped)
            }
            ExitReason::IO_INSTRUCTION => self.emulate_port(Level::L2),
            ExitReason::RDMSR => self.emulate_msr(Access::Read).await,
            ExitReason::WRMSR => self.emulate_msr(Access::Write).await,
            ExitReason::HLT => self.halt(),
            _ => self.unmodelled(),
        }
    }

    /// Does what an exit that belongs to nesting leaves to do.
    pub(super) fn settle(&self, nested: Nested) -> Result<(), HostBug> {
        match nested {
            Nested::Resumes => Ok(()),
            Nested::Again => self.requeue_interrupted(),
            Nested::Raises(Injection { vector: vector::UD, .. }) => self.inject_undefined(),
            Nested::Raises(event) => self.inject(event.vector, event.error_code.unwrap_or(0)),
            Nested::Device { .. } | Nested::Missing | Nested::Abort | Nested::Unmodelled => self.unmodelled(),
        }
    }

    /// L1 touched a page of its memory that the tables do not have yet.
    async fn fault_in(&self) -> Result<(), HostBug> {
        self.mmu.acquire().await;
        let mapped = self.map_touched();
        self.mmu.release().await;
        self.went_in(mapped?)
    }

    fn map_touched(&self) -> Result<bool, HostBug> {
        let address = GuestPhysical(self.vmread(Field::GuestPhysicalAddress)?);
        self.m().map01(address, true)
    }

    fn went_in(&self, mapped: bool) -> Result<(), HostBug> {
        if mapped { self.requeue_interrupted() } else { self.unmodelled() }
    }

    /// An event whose delivery the exit interrupted is injected again by the next entry.
    pub(super) fn requeue_interrupted(&self) -> Result<(), HostBug> {
        let vectoring = self.vmread(Field::IdtVectoringInfo)?;
        if vectoring >> 31 & 1 != 0 {
            // Bit 12 is undefined there and reserved here.
            self.vmwrite(Field::EntryInterruptionInfo, vectoring & 0x8000_0fff)?;
            self.vmwrite(Field::EntryErrorCode, self.vmread(Field::IdtVectoringErrorCode)?)?;
            self.vmwrite(Field::EntryInstructionLength, self.vmread(Field::ExitInstructionLength)?)?;
        }
        Ok(())
    }

    /// Injects a hardware exception with an error code into L1.
    pub(super) fn inject(&self, vector: u8, code: u32) -> Result<(), HostBug> {
        self.set_resume_flag(true)?;
        self.vmwrite(Field::EntryInterruptionInfo, 0x8000_0b00 | u64::from(vector))?;
        self.vmwrite(Field::EntryErrorCode, code.into())
    }

    /// Injects #UD into L1.
    pub(super) fn inject_undefined(&self) -> Result<(), HostBug> {
        self.set_resume_flag(true)?;
        self.vmwrite(Field::EntryInterruptionInfo, 0x8000_0300 | u64::from(vector::UD))
    }

    pub(super) fn emulate_cpuid(&self) -> Result<(), HostBug> {
        let cr4 = self.cr4_of_l1()?;
        {
            let mut m = self.m();
            let (leaf, subleaf) = (m.gpr(Gpr::Rax) as u32, m.gpr(Gpr::Rcx) as u32);
            let values = m.cpuid(&self.model, leaf, subleaf, cr4);
            for (gpr, value) in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].into_iter().zip(values) {
                m.set_gpr(gpr, value.into());
            }
        }
        self.skip()
    }

    /// Nothing on this board wakes a halted vCPU.
    pub(super) fn halt(&self) -> Result<(), HostBug> {
        self.skip()?;
        self.m().stop = Some(Stop::Idle);
        Ok(())
    }

    pub(super) fn emulate_port(&self, level: Level) -> Result<(), HostBug> {
        let Some(io) = Io::decode(self.vmread(Field::ExitQualification)?) else { return self.unmodelled() };
        if io.string {
            return self.unmodelled();
        }
        {
            let mut m = self.m();
            let rax = m.gpr(Gpr::Rax);
            if io.input {
                let value = u64::from(m.port(level, io.port, io.size, None));
                let rax = match io.size {
                    1 => rax & !0xff | value,
                    2 => rax & !0xffff | value,
                    _ => value,
                };
                m.set_gpr(Gpr::Rax, rax);
            } else {
                m.port(level, io.port, io.size, Some(rax as u32));
            }
        }
        // A machine that the access stopped stops before the instruction is charged, as the board does.
        self.skip()
    }

    pub(super) async fn emulate_msr(&mut self, access: Access) -> Result<(), HostBug> {
        let (index, rax, rdx) = {
            let m = self.m();
            (m.gpr(Gpr::Rcx) as u32, m.gpr(Gpr::Rax), m.gpr(Gpr::Rdx))
        };
        let allowed = self.filter.allows(index, access, self.config.regressions);
        let done = match access {
            _ if !allowed => None,
            Access::Read => self.read_msr(index)?.map(|value| {
                let mut m = self.m();
                m.set_gpr(Gpr::Rax, value & 0xffff_ffff);
                m.set_gpr(Gpr::Rdx, value >> 32);
            }),
            Access::Write => self.write_msr(index, rax & 0xffff_ffff | rdx << 32)?,
        };
        match done {
            Some(()) => self.skip(),
            None => self.raise(vector::GP, 0).await,
        }
    }

    /// An exception of the guest that runs: L1 gets the exit if it intercepts it in L2.
    pub(super) async fn raise(&mut self, vector: u8, code: u32) -> Result<(), HostBug> {
        let kind = DeliveryKind::Hardware;
        let event = Injection { kind, vector, error_code: Some(code), length: 0 };
        let arrival = Arrival::Exception(event, 0);
        if self.nested.running && self.l1_takes(arrival) {
            let nested = self.exit_for(arrival).await?;
            return self.settle(nested);
        }
        self.inject(vector, code)
    }

    /// MOV to CR0 or CR4 that changes a bit which L0 owns.
    fn emulate_cr(&self) -> Result<(), HostBug> {
        let CrAccess { cr, kind } = CrAccess::decode(self.vmread(Field::ExitQualification)?);
        let CrAccessKind::MovTo(gpr) = kind else { return self.unmodelled() };
        let value = if gpr == Gpr::Rsp { self.vmread(Field::GuestRsp)? } else { self.m().gpr(gpr) };
        match cr {
            0 => {
                self.vmwrite(Field::Cr0Shadow, value)?;
                self.vmwrite(Field::GuestCr0, value | Cr0::NE.0)?;
            }
            4 => {
                let known = self.model.cr4_bits().with(Cr4::VMXE).0;
                if value & !known != 0 || self.leaves_vmx(value) {
                    return self.inject(vector::GP, 0);
                }
                self.vmwrite(Field::Cr4Shadow, value)?;
                self.vmwrite(Field::GuestCr4, value | Cr4::VMXE.0)?;
            }
            _ => return self.unmodelled(),
        }
        self.skip()
    }

    /// Reads L1's memory at a point where L0 can be preempted.
    pub(super) async fn before_guest_memory(&self) {
        self.tasks.point(Point::GuestMemory).await;
    }
}
