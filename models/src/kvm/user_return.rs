//! User-return MSRs: guest values that stay in the processor after an exit, until it returns to user mode.
//!
//! [`Processor`] is the state of one physical processor, [`UserReturn`] that of a vCPU. Which MSRs a vCPU needs in the
//! hardware is rebuilt when EFER or CPUID changes; EFER itself is switched by the VMCS instead where it can be.

use rootmode_arch::{Efer, msr};

use super::{Regression, Regressions};

/// Slots of the table, in VMX's order on 64-bit hosts.
pub const SLOTS: [u32; 7] = [
    msr::IA32_FMASK,
    msr::IA32_LSTAR,
    msr::IA32_CSTAR,
    msr::IA32_EFER,
    msr::IA32_TSC_AUX,
    msr::IA32_STAR,
    TSX_CTRL,
];
/// IA32_TSX_CTRL.
pub const TSX_CTRL: u32 = 0x122;
/// Its bit that hides TSX from CPUID: always the host's.
const CPUID_CLEAR: u64 = 1 << 1;

/// Places in [`SLOTS`].
pub mod slot {
    /// IA32_FMASK.
    pub const FMASK: usize = 0;
    /// IA32_LSTAR.
    pub const LSTAR: usize = 1;
    /// IA32_CSTAR: storage for the guest, never loaded.
    pub const CSTAR: usize = 2;
    /// IA32_EFER.
    pub const EFER: usize = 3;
    /// IA32_TSC_AUX.
    pub const TSC_AUX: usize = 4;
    /// IA32_STAR.
    pub const STAR: usize = 5;
    /// IA32_TSX_CTRL.
    pub const TSX: usize = 6;
}
use slot::{CSTAR, EFER, FMASK, LSTAR, STAR, TSC_AUX, TSX};

/// The processor's MSRs, as the host's kernel reaches them.
pub trait MsrAccess {
    /// RDMSR of an MSR that exists.
    fn rdmsr(&mut self, index: u32) -> u64;
    /// WRMSR. False: it faulted.
    fn wrmsr(&mut self, index: u32, value: u64) -> bool;
}

/// WRMSR faulted: nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What the kernel keeps of one physical processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    host: [u64; 7],
    /// What the hardware has now.
    current: [u64; 7],
    /// The notifier waits for the next return to user mode.
    registered: bool,
    /// Entries of that notifier in the kernel's list.
    notifiers: u32,
    /// The task for which it was registered.
    task: u32,
    bugs: Regressions,
}

impl Processor {
    /// The processor comes online.
    pub fn online(hardware: &mut dyn MsrAccess, bugs: Regressions) -> Self {
        let host = SLOTS.map(|index| hardware.rdmsr(index));
        Self { host, current: host, registered: false, notifiers: 0, task: 0, bugs }
    }

    /// What the kernel believes the hardware has.
    pub const fn current(&self) -> &[u64; 7] {
        &self.current
    }

    /// Entries of the notifier in the kernel's list.
    pub const fn notifiers(&self) -> u32 {
        self.notifiers
    }

    /// Puts a guest's value into the hardware, the bits of `mask` that is.
    ///
    /// # Errors
    /// [`Refused`] if WRMSR faults.
    pub fn set(
        &mut self,
        hardware: &mut dyn MsrAccess,
        task: u32,
        slot: usize,
        value: u64,
        mask: u64,
    ) -> Result<(), Refused> {
        let bugs = self.bugs;
        let mask = if bugs.has(Regression::UserReturnMaskIgnored) { u64::MAX } else { mask };
        let value = value & mask | self.host[slot] & !mask;
        let there = if bugs.has(Regression::ComparedWithHost) { self.host[slot] } else { self.current[slot] };
        if value == there {
            return Ok(());
        }
        if !hardware.wrmsr(SLOTS[slot], value) {
            return Err(Refused);
        }
        self.current[slot] = value;
        if !self.registered || bugs.has(Regression::NotifierRegisteredTwice) {
            self.registered = true;
            self.notifiers += 1;
            self.task = task;
        }
        Ok(())
    }

    /// `task` goes back to user mode on this processor.
    pub fn user_return(&mut self, hardware: &mut dyn MsrAccess, task: u32) {
        if !self.registered || self.bugs.has(Regression::NotifierBoundToTask) && task != self.task {
            return;
        }
        self.registered = false;
        self.notifiers -= 1;
        for (slot, index) in SLOTS.iter().enumerate() {
            if self.host[slot] != self.current[slot] {
                // The value was the hardware's own.
                hardware.wrmsr(*index, self.host[slot]);
                self.current[slot] = self.host[slot];
            }
        }
    }
}

/// What decides which MSRs a vCPU needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestModes {
    /// IA32_EFER.
    pub efer: u64,
    /// CPUID has RDTSCP or RDPID.
    pub tsc_aux: bool,
    /// The processor can switch EFER at entries and exits.
    pub efer_controls: bool,
    /// EPT is in use.
    pub ept: bool,
}

/// How EFER is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EferSwitch {
    /// Not at all: guest and host have the same.
    Equal,
    /// By the VMCS, or by its MSR-load lists.
    Atomic {
        /// Loaded at entries.
        guest: u64,
        /// Loaded at exits.
        host: u64,
    },
    /// As a user-return MSR.
    UserReturn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    slot: usize,
    data: u64,
    mask: u64,
}

/// A vCPU's user-return MSRs.
#[derive(Clone, Debug)]
pub struct UserReturn {
    /// The active ones come first.
    entries: [Entry; 7],
    active: usize,
    loaded: bool,
    efer: EferSwitch,
    modes: Option<GuestModes>,
    bugs: Regressions,
}

impl UserReturn {
    /// A vCPU whose MSRs are all 0.
    pub fn new(bugs: Regressions) -> Self {
        let entries = core::array::from_fn(|slot| Entry {
            slot,
            data: 0,
            mask: if slot == TSX { !CPUID_CLEAR } else { u64::MAX },
        });
        Self { entries, active: 0, loaded: false, efer: EferSwitch::Equal, modes: None, bugs }
    }

    /// How EFER is switched now.
    pub const fn efer(&self) -> EferSwitch {
        self.efer
    }

    fn position(&self, slot: usize) -> usize {
        self.entries.iter().position(|entry| entry.slot == slot).expect("compaction permutes the slots")
    }

    /// The guest's value of an MSR of the table.
    pub fn data(&self, slot: usize) -> u64 {
        self.entries[self.position(slot)].data
    }

    /// The slots whose values the hardware has while the guest runs, as value and mask.
    pub fn active(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        self.entries[..self.active].iter().map(|entry| (entry.slot, entry.data, entry.mask))
    }

    /// EFER or CPUID changed.
    pub fn rebuild(&mut self, modes: GuestModes, processor: &Processor) {
        let bugs = self.bugs;
        let long = Efer(modes.efer).contains(Efer::LMA);
        let was_long = self.modes.is_some_and(|old| Efer(old.efer).contains(Efer::LMA | Efer::SCE));
        let loses = was_long && !Efer(modes.efer).contains(Efer::LMA | Efer::SCE);
        self.modes = Some(modes);
        self.set_up_efer(&modes, processor.host[EFER]);
        if loses && bugs.has(Regression::ActiveSetNotRebuilt) {
            return;
        }
        let syscall = long && Efer(modes.efer).contains(Efer::SCE);
        let twice = bugs.has(Regression::EferSwitchedTwice) && self.efer != EferSwitch::Equal;
        let wanted = [
            (STAR, syscall),
            (LSTAR, syscall),
            (FMASK, syscall),
            (EFER, self.efer == EferSwitch::UserReturn || twice),
            (TSC_AUX, modes.tsc_aux || bugs.has(Regression::TscAuxAlwaysLoaded)),
            (TSX, true),
        ];
        self.active = 0;
        for (slot, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let from = self.position(slot);
            self.entries.swap(from, self.active);
            self.active += 1;
        }
        self.loaded = false;
    }

    fn set_up_efer(&mut self, modes: &GuestModes, host: u64) {
        // Without EPT, L0's tables need NX.
        let guest = if modes.ept { modes.efer } else { modes.efer | Efer::NXE.0 };
        let long = guest & Efer::LMA.0 != 0;
        let ignored = (Efer::LMA | Efer::LME).0 | if long { 0 } else { Efer::SCE.0 };
        let differs_in_nx = modes.ept && (guest ^ host) & Efer::NXE.0 != 0;
        if modes.efer_controls || differs_in_nx {
            self.efer = if guest == host { EferSwitch::Equal } else { EferSwitch::Atomic { guest, host } };
        } else {
            self.efer = EferSwitch::UserReturn;
        }
        let at = self.position(EFER);
        self.entries[at].data = guest & !ignored | host & ignored;
        self.entries[at].mask = !ignored;
    }

    /// Before an entry: the active values go into the hardware, unless they are there.
    pub fn before_entry(&mut self, processor: &mut Processor, hardware: &mut dyn MsrAccess, task: u32) {
        if self.loaded {
            return;
        }
        self.loaded = true;
        if self.efer != EferSwitch::UserReturn {
            // Exits will load the host's EFER: what another vCPU left would no longer be there.
            let _ = processor.set(hardware, task, EFER, processor.host[EFER], u64::MAX);
        }
        for n in 0..self.active {
            let Entry { slot, data, mask } = self.entries[n];
            let slot = if self.bugs.has(Regression::PositionTakenForSlot) { n } else { slot };
            // A value that the hardware refuses was refused when the guest wrote it.
            let _ = processor.set(hardware, task, slot, data, mask);
        }
    }

    /// The vCPU's host state was restored: others may use the processor.
    pub const fn put(&mut self) {
        self.loaded = false;
    }

    /// A guest's WRMSR, while the vCPU is loaded.
    ///
    /// # Errors
    /// [`Refused`] if the hardware does not take the value; the guest's value stays.
    pub fn write(
        &mut self,
        processor: &mut Processor,
        hardware: &mut dyn MsrAccess,
        task: u32,
        slot: usize,
        value: u64,
    ) -> Result<(), Refused> {
        let at = self.position(slot);
        let old = self.entries[at].data;
        self.entries[at].data = value;
        // CSTAR is storage only: no Intel processor uses it.
        if at >= self.active || slot == CSTAR {
            return Ok(());
        }
        let Entry { mask, .. } = self.entries[at];
        let set = processor.set(hardware, task, slot, value, mask);
        if set.is_err() && !self.bugs.has(Regression::RefusedValueKept) {
            self.entries[at].data = old;
        }
        set
    }
}
