//! [`Vcpu`]: a virtual processor outside of `KVM_RUN`: its registers, as the client reads and writes them.

use std::sync::Arc;

use rootmode_arch::{Cr0, Cr4, Efer, Feature};
use rootmode_cpu::Model;

use super::cpuid::model_of;
use super::debug::Debugger;
use super::events::Events;
use super::exit::ClientExit;
use super::pv::Paravirtual;
use super::registers::{self, Beside};
use super::run::Pending;
use super::{Failure, Shared, cpuid, xsave};
use crate::kvm::Errno;
use crate::kvm::abi::{CpuidEntry2, DebugRegs, Fpu, Plain, Regs, Sregs, Sregs2, VcpuEvents, Xcr, Xcrs};
use crate::kvm::host::{Backend, HostBug, State};

/// Whether a vCPU runs, by the numbers of `KVM_MP_STATE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum RunState {
    /// It does.
    Runnable = 0,
    /// It waits for INIT.
    Uninitialized = 1,
    /// It waits for a start-up IPI.
    InitReceived = 2,
    /// It executed HLT.
    Halted = 3,
}

/// `KVM_SREGS2_FLAGS_PDPTRS_VALID`.
const PDPTRS_VALID: u64 = 1;
/// Bytes that `struct kvm_sregs` and `struct kvm_sregs2` have in common, at their beginnings.
const COMMON_SREGS: usize = core::mem::offset_of!(Sregs, interrupt_bitmap);
const _: () = assert!(COMMON_SREGS == core::mem::offset_of!(Sregs2, flags));

/// A virtual processor.
pub(super) struct Vcpu {
    pub(super) backend: Box<dyn Backend>,
    /// What the client calls it.
    pub(super) id: u32,
    /// The physical processor that it is on.
    pub(super) processor: u8,
    /// The processor that the guest sees.
    pub(super) model: Arc<Model>,
    cpuid: Vec<CpuidEntry2>,
    pub(super) events: Events,
    pub(super) pending: Pending,
    pub(super) exit: ClientExit,
    pub(super) cr8: u64,
    pub(super) apic_base: u64,
    pub(super) run_state: RunState,
    /// A vector whose end the client is told next.
    pub(super) ended: Option<u8>,
    pub(super) pv: Paravirtual,
    /// The translations that its processor may hold.
    pub(super) generation: u64,
    /// `kvm_run.request_interrupt_window`, `kvm_run.immediate_exit`.
    pub(super) request_interrupt_window: bool,
    pub(super) immediate_exit: bool,
    pub(super) debugger: Debugger,
    /// CR2, or the causes in DR6, of the exception that waits.
    pub(super) detail: u64,
    /// INIT waits for L1 to see it.
    pub(super) init_waits: bool,
    /// L2 is left again right behind its entry.
    pub(super) hurries: bool,
    /// L0 completed an instruction since the guest was left.
    pub(super) stepped: bool,
}

impl Vcpu {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        (id, processor): (u32, u8),
        (bootstrap, waits): (bool, bool),
        model: Arc<Model>,
    ) -> Result<Self, HostBug> {
        let mut vcpu = Self {
            backend,
            id,
            processor,
            cpuid: Vec::new(),
            events: Events::default(),
            pending: Pending::None,
            exit: ClientExit::Unknown,
            cr8: 0,
            apic_base: 0xfee0_0800 | if bootstrap { 0x100 } else { 0 },
            run_state: if waits { RunState::Uninitialized } else { RunState::Runnable },
            ended: None,
            pv: Paravirtual::default(),
            generation: 0,
            request_interrupt_window: false,
            immediate_exit: false,
            debugger: Debugger::default(),
            detail: 0,
            init_waits: false,
            hurries: false,
            stepped: false,
            model,
        };
        vcpu.backend.load(&State::reset(vcpu.model.signature()))?;
        Ok(vcpu)
    }

    /// Bits of a linear address.
    pub(super) fn model_width(&self) -> u32 {
        if self.model.has(Feature::La57) { 57 } else { 48 }
    }

    /// `KVM_GET_REGS`.
    pub(super) fn regs(&self) -> Result<Regs, HostBug> {
        Ok(registers::regs(&self.backend.save()?))
    }

    /// `KVM_SET_REGS`. An exception that waited belongs to the old RIP.
    pub(super) fn set_regs(&mut self, regs: &Regs) -> Result<(), HostBug> {
        let mut state = self.backend.save()?;
        registers::set_regs(&mut state, regs);
        self.events.exception = None;
        self.backend.load(&state)
    }

    /// `KVM_GET_SREGS`.
    pub(super) fn sregs(&self, shared: &Shared) -> Result<Sregs, HostBug> {
        let beside = Beside { cr8: self.cr8(shared), apic_base: self.apic_base };
        Ok(registers::sregs(&self.backend.save()?, beside, self.events.interrupt))
    }

    /// `KVM_SET_SREGS`.
    pub(super) fn set_sregs(&mut self, shared: &Shared, sregs: &Sregs) -> Result<(), Failure> {
        let state = self.state_with(sregs)?;
        let pdptes = self.pdptes(shared, &state);
        self.put_sregs(shared, sregs, state, pdptes)?;
        let words = sregs.interrupt_bitmap.iter().enumerate().rev();
        let highest =
            words.filter(|(_, word)| **word != 0).map(|(n, word)| n as u32 * 64 + word.ilog2()).next();
        if let Some(vector) = highest {
            self.events.interrupt = Some(vector as u8);
        }
        Ok(())
    }

    /// `KVM_GET_SREGS2`.
    pub(super) fn sregs2(&self, shared: &Shared) -> Result<Sregs2, HostBug> {
        let state = self.backend.save()?;
        // What both structures begin with; then flags and PDPTEs instead of the interrupt bitmap.
        let common = &self.sregs(shared)?.to_bytes()[..COMMON_SREGS];
        let mut sregs = Sregs2::from_bytes(common);
        if uses_pdptes(&state) {
            (sregs.flags, sregs.pdptrs) = (PDPTRS_VALID, state.pdptes);
        }
        Ok(sregs)
    }

    /// `KVM_SET_SREGS2`.
    pub(super) fn set_sregs2(&mut self, shared: &Shared, s: &Sregs2) -> Result<(), Failure> {
        let sregs = Sregs::from_bytes(&s.to_bytes()[..COMMON_SREGS]);
        let state = self.state_with(&sregs)?;
        let valid = s.flags & PDPTRS_VALID != 0;
        if s.flags & !PDPTRS_VALID != 0 || valid && !uses_pdptes(&state) {
            return Err(Errno::Einval.into());
        }
        let pdptes = if valid { s.pdptrs } else { self.pdptes(shared, &state) };
        self.put_sregs(shared, &sregs, state, pdptes)
    }

    fn state_with(&self, sregs: &Sregs) -> Result<State, Failure> {
        let mut state = self.backend.save()?;
        registers::set_sregs(&mut state, sregs, self.model.cr4_bits())?;
        if !self.model.has(Feature::Svm) {
            state.efer &= !Efer::SVME.0;
        }
        if self.backend.fixes(state.cr0, state.cr4) {
            return Err(Errno::Einval.into());
        }
        if sregs.apic_base >> self.model.physical_width() != 0 || sregs.apic_base & 0x2ff != 0 {
            return Err(Errno::Einval.into());
        }
        Ok(state)
    }

    fn put_sregs(
        &mut self,
        shared: &Shared,
        sregs: &Sregs,
        mut state: State,
        pdptes: [u64; 4],
    ) -> Result<(), Failure> {
        self.set_apic_base(shared, sregs.apic_base, true)?;
        state.pdptes = pdptes;
        self.backend.load(&state)?;
        self.set_cr8(shared, sregs.cr8);
        // Translations that the guest's old tables gave.
        self.generation = 0;
        Ok(())
    }

    /// The PDPTEs that CR3 leads to; the old ones where paging has none or they cannot be read.
    fn pdptes(&self, shared: &Shared, state: &State) -> [u64; 4] {
        if !uses_pdptes(state) {
            return state.pdptes;
        }
        let mut bytes = [0; 32];
        let from = state.cr3 & 0xffff_ffe0;
        if !shared.memory(self.processor, |memory, below| memory.read(below, from, &mut bytes)) {
            return state.pdptes;
        }
        core::array::from_fn(|n| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * n..8 * n + 8]);
            u64::from_le_bytes(word)
        })
    }

    /// `KVM_SET_CPUID2`.
    pub(super) fn set_cpuid(&mut self, shared: &Shared, entries: &[CpuidEntry2]) -> Result<(), Failure> {
        if entries.len() > cpuid::MOST_ENTRIES {
            return Err(Errno::E2big.into());
        }
        let model = Arc::new(model_of(self.model.vendor(), entries));
        self.cpuid = entries.to_vec();
        self.backend.set_model(model.clone())?;
        shared.rooms().irqchip.set_model(self.processor.into(), &model);
        self.model = model;
        Ok(())
    }

    /// `KVM_GET_CPUID2`.
    pub(super) fn cpuid(&self) -> &[CpuidEntry2] {
        &self.cpuid
    }

    /// `KVM_GET_VCPU_EVENTS`.
    pub(super) fn vcpu_events(&self) -> Result<VcpuEvents, HostBug> {
        let state = self.backend.save()?;
        Ok(self.events.get((state.sti_shadow, state.mov_ss_shadow), state.nmi_blocked))
    }

    /// `KVM_SET_VCPU_EVENTS`.
    pub(super) fn set_vcpu_events(&mut self, events: &VcpuEvents) -> Result<(), Failure> {
        let shadows = self.events.set(events)?;
        let mut state = self.backend.save()?;
        if let Some((sti, mov_ss)) = shadows {
            (state.sti_shadow, state.mov_ss_shadow) = (sti, mov_ss);
        }
        state.nmi_blocked = events.nmi.masked != 0;
        Ok(self.backend.load(&state)?)
    }

    /// `KVM_GET_DEBUGREGS`.
    pub(super) fn debug_regs(&self, shared: &Shared) -> Result<DebugRegs, HostBug> {
        let state = self.backend.save()?;
        let db = shared.with(self.processor, |machine, _| machine.cpu().dr);
        Ok(DebugRegs { db, dr6: state.dr6, dr7: state.dr7, flags: 0, reserved: [0; 9] })
    }

    /// `KVM_SET_DEBUGREGS`.
    pub(super) fn set_debug_regs(&mut self, shared: &Shared, regs: &DebugRegs) -> Result<(), Failure> {
        if regs.flags != 0 || regs.dr6 >> 32 != 0 || regs.dr7 >> 32 != 0 {
            return Err(Errno::Einval.into());
        }
        let mut state = self.backend.save()?;
        (state.dr6, state.dr7) = (regs.dr6, regs.dr7 | 0x400);
        shared.with(self.processor, |machine, _| machine.cpu_mut().dr = regs.db);
        Ok(self.backend.load(&state)?)
    }

    /// `KVM_GET_FPU`.
    pub(super) fn fpu(&self, shared: &Shared) -> Fpu {
        shared.with(self.processor, |machine, _| xsave::fpu(&machine.cpu().vectors))
    }

    /// `KVM_SET_FPU`.
    pub(super) fn set_fpu(&self, shared: &Shared, fpu: &Fpu) {
        shared.with(self.processor, |machine, _| xsave::set_fpu(&mut machine.cpu_mut().vectors, fpu));
    }

    /// `KVM_GET_XSAVE`.
    pub(super) fn xsave(&self, shared: &Shared) -> Vec<u8> {
        shared.with(self.processor, |machine, _| xsave::save(machine.cpu()))
    }

    /// `KVM_SET_XSAVE`.
    pub(super) fn set_xsave(&self, shared: &Shared, bytes: &[u8]) -> Result<(), Errno> {
        let supported = supported_xcr0(&self.model);
        shared.with(self.processor, |machine, _| xsave::restore(machine.cpu_mut(), bytes, supported))
    }

    /// `KVM_GET_XCRS`.
    pub(super) fn xcrs(&self, shared: &Shared) -> Xcrs {
        let mut xcrs = Xcrs { nr_xcrs: 1, ..Xcrs::default() };
        xcrs.xcrs[0] =
            Xcr { xcr: 0, reserved: 0, value: shared.with(self.processor, |machine, _| machine.cpu().xcr0) };
        xcrs
    }

    /// `KVM_SET_XCRS`.
    pub(super) fn set_xcrs(&self, shared: &Shared, xcrs: &Xcrs) -> Result<(), Errno> {
        if xcrs.nr_xcrs > 16 || xcrs.flags != 0 {
            return Err(Errno::Einval);
        }
        let given = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize).find(|xcr| xcr.xcr == 0);
        if let Some(Xcr { value, .. }) = given {
            // AVX state only with SSE state.
            if value & 1 == 0 || value & 6 == 4 || value & !supported_xcr0(&self.model) != 0 {
                return Err(Errno::Einval);
            }
            shared.with(self.processor, |machine, _| {
                let cpu = machine.cpu_mut();
                cpu.xcr0 = *value;
                cpu.refresh();
            });
        }
        Ok(())
    }

    /// The time-stamp counter of L1, whoever runs.
    pub(super) fn tsc(&self, shared: &Shared) -> Result<u64, HostBug> {
        let host = shared.with(self.processor, |machine, _| machine.cpu().host_tsc());
        Ok(host.wrapping_add(self.backend.tsc_offset()?))
    }

    /// WRMSR of the time-stamp counter: L1's, by its offset, whoever runs.
    pub(super) fn write_tsc(&mut self, shared: &Shared, value: u64) -> Result<(), HostBug> {
        let offset = value.wrapping_sub(shared.with(self.processor, |machine, _| machine.cpu().host_tsc()));
        self.backend.set_tsc_offset(offset)?;
        shared.with(self.processor, |machine, rooms| {
            rooms.irqchip.set_tsc_offset(machine, self.processor.into(), offset);
        });
        self.update_clock(shared)
    }
}

/// Bits that XCR0 may have.
fn supported_xcr0(model: &Model) -> u64 {
    let registers = model.leaves().get(&(0xd, 0)).copied().unwrap_or_default();
    u64::from(registers[0]) | u64::from(registers[3]) << 32 | 3
}

/// Whether `state`'s paging goes by the PDPTE registers.
const fn uses_pdptes(state: &State) -> bool {
    state.cr0 & Cr0::PG.0 != 0 && state.cr4 & Cr4::PAE.0 != 0 && state.efer & Efer::LMA.0 == 0
}
