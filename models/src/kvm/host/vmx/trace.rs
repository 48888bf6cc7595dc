//! Where KVM's tracepoints stand, and what they read. Without tracing they read nothing.

use rootmode_vmx::{ExitReason, Field};

use super::super::machine::HostBug;
use super::VmxVcpu;
use crate::kvm::Regression;
use crate::kvm::trace::{ExitTrace, Tracepoint};

/// Valid, and with an error code.
const WITH_CODE: u64 = 1 << 31 | 1 << 11;

impl VmxVcpu {
    fn traces(&self) -> bool {
        self.m().trace.is_some()
    }

    fn trace(&self, tracepoint: Tracepoint) {
        if let Some(trace) = &mut self.m().trace {
            trace.push(tracepoint);
        }
    }

    /// `kvm_entry`, before changed registers are written.
    pub(super) fn trace_entry(&self) -> Result<(), HostBug> {
        if !self.traces() {
            return Ok(());
        }
        let stale = self.config.regressions.has(Regression::EntryTracesOldRip);
        let rip = if stale { self.vmread_now(Field::GuestRip)? } else { self.vmread(Field::GuestRip)? };
        self.trace(Tracepoint::Entry { vcpu: self.processor.into(), rip });
        Ok(())
    }

    /// `kvm_exit`, and `kvm_nested_vmexit` of the same exit if L2 ran, whoever will handle it.
    pub(super) fn trace_exit(&self) -> Result<(), HostBug> {
        let bugs = self.config.regressions;
        if !self.traces() {
            if self.nested.running && bugs.has(Regression::TracingOffReads) {
                self.vmread(Field::ExitInterruptionErrorCode)?;
            }
            return Ok(());
        }
        let exit = self.exit_record()?;
        let mut own = exit;
        if bugs.has(Regression::ExitTracesInterruption) {
            own.info2 = exit.intr_info.into();
        }
        if bugs.has(Regression::VectoringReadLate) {
            own.info2 = 0;
        }
        if bugs.has(Regression::ReasonFlagsDropped) {
            own.reason &= 0xffff;
        }
        self.trace(Tracepoint::Exit(own));
        if self.nested.running && !bugs.has(Regression::OnlyReflectedTraced) {
            let mut nested = exit;
            if bugs.has(Regression::NestedTraceDiffers) {
                nested.rip = 0;
            }
            self.trace(Tracepoint::NestedVmexit(nested));
        }
        Ok(())
    }

    /// The hardware's fields now.
    fn exit_record(&self) -> Result<ExitTrace, HostBug> {
        let bugs = self.config.regressions;
        let reason = self.vmread(Field::ExitReason)? as u32;
        let mut exit = ExitTrace {
            vcpu: self.processor.into(),
            reason,
            rip: self.vmread(Field::GuestRip)?,
            info1: self.vmread(Field::ExitQualification)?,
            ..ExitTrace::default()
        };
        // A failed entry leaves the other fields as they were.
        if reason & ExitReason::ENTRY_FAILURE != 0 && !bugs.has(Regression::FailedEntryTracesOld) {
            return Ok(exit);
        }
        let intr_info = self.vmread(Field::ExitInterruptionInfo)?;
        exit.intr_info = intr_info as u32;
        exit.info2 = self.vmread(Field::IdtVectoringInfo)?;
        if intr_info & WITH_CODE == WITH_CODE || bugs.has(Regression::OldErrorTraced) {
            exit.error_code = self.vmread(Field::ExitInterruptionErrorCode)? as u32;
        }
        Ok(exit)
    }

    /// `kvm_nested_vmexit_inject`: vmcs12 as L1 will read it.
    pub(super) fn trace_inject(&self) {
        if !self.traces() {
            return;
        }
        let field = |field| self.nested.vmcs12.value(field);
        self.trace(Tracepoint::NestedVmexitInject(ExitTrace {
            vcpu: self.processor.into(),
            reason: field(Field::ExitReason) as u32,
            rip: 0,
            info1: field(Field::ExitQualification),
            info2: field(Field::IdtVectoringInfo),
            intr_info: field(Field::ExitInterruptionInfo) as u32,
            error_code: field(Field::ExitInterruptionErrorCode) as u32,
        }));
    }
}
