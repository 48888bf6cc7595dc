//! Exits of L1, and what L0 emulates for whoever runs: CPUID, ports, MSRs, HLT.

use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{Cr4, Gpr, GuestPhysical, vector};
use rootmode_svm::ExitCode;
use rootmode_svm::encode::IoioInfo;
use rootmode_svm::vmcb::{Field, Intercept};

use super::super::backend::Nested;
use super::super::machine::HostBug;
use super::SvmVcpu;
use crate::kvm::interception::Access;

impl SvmVcpu {
    pub(super) async fn handle_l1_exit(&mut self, code: ExitCode) -> Result<(), HostBug> {
        if code == ExitCode::NPF {
            return self.fault_in().await;
        }
        match code.intercept() {
            Some(Intercept::CPUID) => self.emulate_cpuid(),
            Some(Intercept::HLT) => self.halt(),
            Some(Intercept::IOIO_PROT) => self.emulate_port(Level::L1),
            Some(Intercept::MSR_PROT) => self.emulate_msr(),
            Some(Intercept::SHUTDOWN) => self.m().stop = Some(Stop::TripleFault),
            Some(
                intercept @ (Intercept::VMRUN
                | Intercept::VMLOAD
                | Intercept::VMSAVE
                | Intercept::STGI
                | Intercept::CLGI
                | Intercept::INVLPGA),
            ) => {
                let nested = self.nested_instruction(intercept).await?;
                self.settle(nested);
            }
            // No hypercall is offered.
            Some(Intercept::VMMCALL) => self.inject(vector::UD, None),
            _ => self.unmodelled(),
        }
        Ok(())
    }

    /// Does what an exit that belongs to nesting leaves to do.
    pub(super) fn settle(&self, nested: Nested) {
        match nested {
            Nested::Resumes => {}
            Nested::Again => self.requeue_interrupted(),
            Nested::Raises(event) => self.inject(event.vector, event.error_code),
            Nested::Device { .. } | Nested::Missing | Nested::Abort | Nested::Unmodelled => self.unmodelled(),
        }
    }

    /// An exit of L2: L0's own, or one that belongs to nesting.
    pub(super) async fn handle_l2_exit(&mut self, code: ExitCode) -> Result<(), HostBug> {
        if self.belongs_to_l1(code) {
            let nested = self.nested_exit(code).await?;
            self.settle(nested);
            return Ok(());
        }
        if code == ExitCode::NPF {
            let mapped = self.map_touched()?;
            self.went_in(mapped);
            return Ok(());
        }
        match code.intercept() {
            Some(Intercept::CPUID) => self.emulate_cpuid(),
            Some(Intercept::HLT) => self.halt(),
            Some(Intercept::IOIO_PROT) => self.emulate_port(Level::L2),
            Some(Intercept::MSR_PROT) => self.emulate_msr(),
            Some(Intercept::SHUTDOWN) => self.m().stop = Some(Stop::TripleFault),
            Some(Intercept::VMMCALL) => self.inject(vector::UD, None),
            _ => self.unmodelled(),
        }
        Ok(())
    }

    /// L1 touched a page of its memory that the tables do not have yet.
    async fn fault_in(&self) -> Result<(), HostBug> {
        self.mmu.acquire().await;
        let mapped = self.map_touched();
        self.mmu.release().await;
        self.went_in(mapped?);
        Ok(())
    }

    fn map_touched(&self) -> Result<bool, HostBug> {
        let address = GuestPhysical(self.get(self.vmcb(), Field::ExitInfo2));
        self.m().map01(address, true)
    }

    fn went_in(&self, mapped: bool) {
        if mapped {
            self.requeue_interrupted();
        } else {
            self.unmodelled();
        }
    }

    pub(super) fn emulate_cpuid(&self) {
        let vmcb = self.vmcb();
        let cr4 = Cr4(self.get(vmcb, Field::Cr4));
        let leaf = self.get(vmcb, Field::Rax) as u32;
        let values = {
            let mut m = self.m();
            let subleaf = m.gpr(Gpr::Rcx) as u32;
            let values = m.cpuid(&self.model, leaf, subleaf, cr4);
            for (gpr, value) in [Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].into_iter().zip(&values[1..]) {
                m.set_gpr(gpr, u64::from(*value));
            }
            values
        };
        self.set(vmcb, Field::Rax, values[0].into());
        self.skip();
    }

    /// Nothing on this board wakes a halted vCPU.
    pub(super) fn halt(&self) {
        self.skip();
        self.m().stop = Some(Stop::Idle);
    }

    /// The next instruction's address is in EXITINFO2.
    pub(super) fn emulate_port(&self, level: Level) {
        let vmcb = self.vmcb();
        let info = IoioInfo::decode(self.get(vmcb, Field::ExitInfo1));
        let size = info.size;
        if info.string || size == 0 {
            return self.unmodelled();
        }
        let rax = self.get(vmcb, Field::Rax);
        if info.input {
            let value = u64::from(self.m().port(level, info.port, size, None));
            let rax = match size {
                1 => rax & !0xff | value,
                2 => rax & !0xffff | value,
                _ => value,
            };
            self.set(vmcb, Field::Rax, rax);
        } else {
            self.m().port(level, info.port, size, Some(rax as u32));
        }
        self.advance(self.get(vmcb, Field::ExitInfo2));
        self.m().charge();
    }

    pub(super) fn emulate_msr(&mut self) {
        let vmcb = self.vmcb();
        let write = self.get(vmcb, Field::ExitInfo1) & 1 != 0;
        let (index, rdx) = {
            let m = self.m();
            (m.gpr(Gpr::Rcx) as u32, m.gpr(Gpr::Rdx))
        };
        let access = if write { Access::Write } else { Access::Read };
        let done = if !self.filter.allows(index, access, self.config.regressions) {
            None
        } else if write {
            self.write_msr(index, self.get(vmcb, Field::Rax) & 0xffff_ffff | rdx << 32)
        } else {
            self.read_msr(index).map(|value| {
                self.set(vmcb, Field::Rax, value & 0xffff_ffff);
                self.m().set_gpr(Gpr::Rdx, value >> 32);
            })
        };
        match done {
            Some(()) => self.skip(),
            None => self.inject(vector::GP, Some(0)),
        }
    }
}
