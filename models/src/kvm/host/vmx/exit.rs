//! VM exit from L2 to L1: vmcs12 from vmcs02, and L1's host state.

use rootmode_arch::record::{Level, Payload};
use rootmode_arch::{AccessRights, Cr0, Cr4, Efer, RFlags, SegmentName, Vendor, vector};
use rootmode_vmx::definitions::field::Kind;
use rootmode_vmx::drive::segment_fields;
use rootmode_vmx::information::Interruption;
use rootmode_vmx::{EntryControls, ExitControls, ExitReason, Field};

use super::super::backend::{Arrival, Nested};
use super::super::machine::HostBug;
use super::super::point::Point;
use super::VmxVcpu;
use crate::kvm::Regression;

/// VM-exit information that L1 gets as the processor left it.
const INFORMATION: [Field; 8] = [
    Field::ExitQualification,
    Field::ExitInterruptionInfo,
    Field::IdtVectoringInfo,
    Field::IdtVectoringErrorCode,
    Field::ExitInstructionLength,
    Field::ExitInstructionInfo,
    Field::GuestLinearAddress,
    Field::GuestPhysicalAddress,
];

impl VmxVcpu {
    fn exit12(&self) -> ExitControls {
        ExitControls(self.nested.vmcs12.value(Field::ExitControls) as u32)
    }

    /// The exit that the processor just made goes to L1.
    pub(super) async fn exit_to_l1(&mut self, reason: ExitReason) -> Result<Nested, HostBug> {
        self.point(Point::NestedExit).await?;
        let bugs = self.config.regressions;
        if bugs.has(Regression::InjectTracedEarly) {
            self.trace_inject();
        }
        self.save_l2()?;
        for field in INFORMATION {
            let value = self.vmread(field)?;
            self.nested.vmcs12.set(field, value);
        }
        // Without an error code its field is left alone.
        let with_code = u64::from(Interruption::VALID) | 1 << 11;
        if self.vmread(Field::ExitInterruptionInfo)? & with_code == with_code {
            let code = self.vmread(Field::ExitInterruptionErrorCode)?;
            self.nested.vmcs12.set(Field::ExitInterruptionErrorCode, code);
        } else if bugs.has(Regression::ErrorFieldOverwritten) {
            self.nested.vmcs12.set(Field::ExitInterruptionErrorCode, 0x5a5a);
        }
        self.finish_exit(reason).await
    }

    /// An exit to L1 that no processor made: L2 is left as it is.
    pub(super) async fn exit_for(&mut self, arrival: Arrival) -> Result<Nested, HostBug> {
        if matches!(arrival, Arrival::Exception(event, _) if event.is_fault()) {
            self.set_resume_flag(true)?;
        }
        self.save_l2()?;
        let (reason, info, code, qualification) = match arrival {
            Arrival::Interrupt(vector) => {
                let info = vector.map_or(0, |vector| u64::from(Interruption::VALID) | u64::from(vector));
                (ExitReason::EXTERNAL_INTERRUPT, info, None, 0)
            }
            Arrival::Nmi => {
                let info = u64::from(Interruption::VALID) | 2 << 8 | u64::from(vector::NMI);
                (ExitReason::EXCEPTION_OR_NMI, info, None, 0)
            }
            Arrival::Init => (ExitReason::INIT, 0, None, 0),
            Arrival::Trap => (ExitReason::MONITOR_TRAP_FLAG, 0, None, 0),
            Arrival::Exception(event, detail) => {
                let with_code = u64::from(event.error_code.is_some()) << 11;
                let kind = (event.kind as u64) << 8;
                let info = u64::from(Interruption::VALID) | kind | with_code | u64::from(event.vector);
                let reports = matches!(event.vector, vector::PF | vector::DB);
                (ExitReason::EXCEPTION_OR_NMI, info, event.error_code, if reports { detail } else { 0 })
            }
        };
        let vmcs12 = &mut self.nested.vmcs12;
        vmcs12.set(Field::ExitInterruptionInfo, info);
        if let Some(code) = code {
            vmcs12.set(Field::ExitInterruptionErrorCode, code.into());
        }
        vmcs12.set(Field::ExitQualification, qualification);
        vmcs12.set(Field::IdtVectoringInfo, 0);
        let nested = self.finish_exit(reason).await?;
        if arrival == Arrival::Nmi {
            // It has been taken (SDM Vol. 3C "VM Exits", "Loading Host State": blocking by NMI).
            let blocking = self.vmread(Field::GuestInterruptibility)?;
            self.vmwrite(Field::GuestInterruptibility, blocking | 1 << 3)?;
        }
        Ok(nested)
    }

    async fn finish_exit(&mut self, reason: ExitReason) -> Result<Nested, HostBug> {
        let vmcs12 = &mut self.nested.vmcs12;
        vmcs12.set(Field::ExitReason, reason.0.into());
        let injected = vmcs12.value(Field::EntryInterruptionInfo);
        vmcs12.set(Field::EntryInterruptionInfo, injected & !u64::from(Interruption::VALID));
        if !self.config.regressions.has(Regression::InjectTracedEarly) {
            self.trace_inject();
        }
        let vmcs12 = &self.nested.vmcs12;
        let second_stage = matches!(reason, ExitReason::EPT_VIOLATION | ExitReason::EPT_MISCONFIGURATION);
        let record = Payload::Exit {
            vendor: Vendor::Intel,
            code: reason.0.into(),
            info1: vmcs12.value(Field::ExitQualification),
            info2: if second_stage { vmcs12.value(Field::GuestPhysicalAddress) } else { 0 },
            rip: vmcs12.value(Field::GuestRip),
        };
        self.m().emit(Level::L2, record);
        for number in 0..self.nested.vmcs12.value(Field::ExitMsrStoreCount) {
            if !self.store_msr12(number)? {
                return Ok(Nested::Abort);
            }
        }
        let pat = self.vmread(Field::GuestPat)?;
        self.nested.running = false;
        self.nested.pending = false;
        *self.nested.trap.get_mut() = false;
        self.load_vmcs(false).await?;
        // L2 may have written the TSC.
        self.vmwrite(Field::TscOffset, self.tsc_offset01)?;
        if !self.exit12().contains(ExitControls::LOAD_PAT) {
            self.vmwrite(Field::GuestPat, pat)?;
        }
        self.load_host12().await
    }

    /// Guest state of vmcs02 into vmcs12, as far as L1's exit controls say that it is saved.
    pub(super) fn save_l2(&mut self) -> Result<(), HostBug> {
        let exit = self.exit12();
        let saved = |field: Field| match field {
            Field::GuestDr7 | Field::GuestDebugCtl => exit.contains(ExitControls::SAVE_DEBUG_CONTROLS),
            Field::GuestEfer => exit.contains(ExitControls::SAVE_EFER),
            Field::GuestPat => exit.contains(ExitControls::SAVE_PAT),
            Field::PreemptionTimer => exit.contains(ExitControls::SAVE_PREEMPTION_TIMER),
            Field::LinkPointer | Field::GuestSmbase => false,
            Field::GuestPdpte0 | Field::GuestPdpte1 | Field::GuestPdpte2 | Field::GuestPdpte3 => false,
            _ => true,
        };
        for field in Field::ALL {
            if field.kind() == Kind::Guest && self.fields12.has(field) && saved(field) {
                let value = self.vmread(field)?;
                self.nested.vmcs12.set(field, value);
            }
        }
        let ia32e = self.vmread(Field::EntryControls)? & u64::from(EntryControls::IA32E_MODE_GUEST.0);
        let entry = self.nested.vmcs12.value(Field::EntryControls);
        let entry = entry & !u64::from(EntryControls::IA32E_MODE_GUEST.0) | ia32e;
        self.nested.vmcs12.set(Field::EntryControls, entry);
        Ok(())
    }

    fn store_msr12(&self, number: u64) -> Result<bool, HostBug> {
        let at = self.nested.vmcs12.value(Field::ExitMsrStoreAddress).wrapping_add(16 * number);
        let index = self.m().l1().quadword(at);
        let Some(index) = index.and_then(|index| u32::try_from(index).ok()) else { return Ok(false) };
        let Some(value) = self.read_msr(index)? else { return Ok(false) };
        let mut m = self.m();
        let at = rootmode_arch::GuestPhysical(at.wrapping_add(8));
        let Some(host) = m.place(at, true) else { return Ok(false) };
        m.board.memory.write_u64(host, value);
        Ok(true)
    }

    /// vmcs12's host state becomes L1's state, in vmcs01, which is current.
    pub(super) async fn load_host12(&mut self) -> Result<Nested, HostBug> {
        let exit = self.exit12();
        let host = |field| self.nested.vmcs12.value(field);
        let long = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        let efer = if exit.contains(ExitControls::LOAD_EFER) {
            host(Field::HostEfer)
        } else {
            Efer(self.vmread(Field::GuestEfer)?).set(Efer::LMA, long).set(Efer::LME, long).0
        };
        let cr4 =
            Cr4(host(Field::HostCr4)).set(Cr4::PAE, long || Cr4(host(Field::HostCr4)).contains(Cr4::PAE));
        let mut values = vec![
            (Field::GuestCr0, host(Field::HostCr0) | Cr0::NE.0 | Cr0::ET.0),
            (Field::Cr0Shadow, host(Field::HostCr0) | Cr0::ET.0),
            (Field::GuestCr3, host(Field::HostCr3)),
            (Field::GuestCr4, cr4.with(Cr4::VMXE).0),
            (Field::Cr4Shadow, cr4.0),
            (Field::GuestEfer, efer),
            (Field::GuestDr7, 0x400),
            (Field::GuestDebugCtl, 0),
            (Field::GuestSysenterCs, host(Field::HostSysenterCs)),
            (Field::GuestSysenterEsp, host(Field::HostSysenterEsp)),
            (Field::GuestSysenterEip, host(Field::HostSysenterEip)),
            (Field::GuestGdtrBase, host(Field::HostGdtrBase)),
            (Field::GuestGdtrLimit, 0xffff),
            (Field::GuestIdtrBase, host(Field::HostIdtrBase)),
            (Field::GuestIdtrLimit, 0xffff),
            (Field::GuestRsp, host(Field::HostRsp)),
            (Field::GuestRip, host(Field::HostRip)),
            (Field::GuestRflags, RFlags::ONE.0),
            (Field::GuestInterruptibility, 0),
            (Field::GuestActivity, 0),
            (Field::GuestPendingDebug, 0),
            (Field::EntryInterruptionInfo, 0),
        ];
        if exit.contains(ExitControls::LOAD_PAT) {
            values.push((Field::GuestPat, host(Field::HostPat)));
        }
        let ia32e = if long { EntryControls::IA32E_MODE_GUEST.0 } else { 0 };
        let entry = self.vmread(Field::EntryControls)? & !u64::from(EntryControls::IA32E_MODE_GUEST.0);
        values.push((Field::EntryControls, entry | u64::from(ia32e)));
        for (field, value) in values {
            self.vmwrite(field, value)?;
        }
        self.load_host_segments(long)?;
        for number in 0..self.nested.vmcs12.value(Field::ExitMsrLoadCount) {
            if !self.load_msr12(Field::ExitMsrLoadAddress, number)? {
                return Ok(Nested::Abort);
            }
        }
        Ok(Nested::Resumes)
    }

    fn load_host_segments(&self, long: bool) -> Result<(), HostBug> {
        let host = |field| self.nested.vmcs12.value(field);
        let code = AccessRights(0x809b).set(AccessRights::L, long).set(AccessRights::DB, !long);
        let unusable = AccessRights::UNUSABLE;
        let data = |name, selector: Field, base| {
            let selector = host(selector);
            let usable = selector != 0 || name == SegmentName::Ss && long;
            (name, selector, AccessRights(0xc093).set(unusable, !usable), u64::from(u32::MAX), base)
        };
        for (name, selector, rights, limit, base) in [
            (SegmentName::Cs, host(Field::HostCsSelector), code, u32::MAX.into(), 0),
            data(SegmentName::Ss, Field::HostSsSelector, 0),
            data(SegmentName::Ds, Field::HostDsSelector, 0),
            data(SegmentName::Es, Field::HostEsSelector, 0),
            data(SegmentName::Fs, Field::HostFsSelector, host(Field::HostFsBase)),
            data(SegmentName::Gs, Field::HostGsSelector, host(Field::HostGsBase)),
            (SegmentName::Tr, host(Field::HostTrSelector), AccessRights(0x8b), 0x67, host(Field::HostTrBase)),
            (SegmentName::Ldtr, 0, AccessRights(0x82).with(unusable), 0, 0),
        ] {
            let values = [selector, limit, rights.0.into(), base];
            for (field, value) in segment_fields(name).into_iter().zip(values) {
                self.vmwrite(field, value)?;
            }
        }
        Ok(())
    }
}
