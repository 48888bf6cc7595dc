//! What a check sees of a context: values, or what is missing; and the terms in which the manual speaks.

use crate::context::{EntryContext, Item};
use crate::definitions::capabilities::{Allowed, Basic, EptVpid, Misc};
use crate::definitions::controls::{
    Control, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls, VmFunctions, Word,
};
use crate::definitions::field::{Field, FieldSet};
use core::cell::Cell;
use rootmode_arch::{AccessRights, Cr0, Cr4, Feature, HostPhysical, Linear, RFlags, msr};

/// What a rule would need to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// A VMCS field.
    Field(Field),
    /// A capability MSR: a judgement without it would be an assumption about the processor.
    Capability(u32),
    /// A value of the logical processor.
    Processor(Item),
    /// The CPUID features.
    Features,
    /// The 8 bytes of memory at this address.
    Memory(HostPhysical),
    /// Whether the processor has this MSR and which values it takes.
    Msr(u32),
}

/// What a check read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reads {
    /// VMCS fields.
    pub fields: FieldSet,
    /// Processor values, by bit `1 << Item`.
    pub items: u32,
    /// Capability MSRs, by bit `1 << (index - 0x480)`.
    pub capabilities: u32,
    /// Whether CPUID features were read.
    pub features: bool,
    /// The last two addresses read from memory, the latest first.
    pub memory: [Option<HostPhysical>; 2],
}

/// A context as a check sees it. With `PARTIAL` false everything is known and reads cannot fail (except from memory).
pub struct View<'a, const PARTIAL: bool> {
    context: &'a EntryContext<'a>,
    trace: Option<&'a Cell<Reads>>,
}

/// An event to be injected: the VM-entry interruption-information field with its valid bit set.
#[derive(Clone, Copy)]
pub(in crate::rules) struct Injection {
    pub(in crate::rules) vector: u8,
    pub(in crate::rules) kind: u8,
}

impl Injection {
    pub(in crate::rules) const EXTERNAL: u8 = 0;
    pub(in crate::rules) const NMI: u8 = 2;
    pub(in crate::rules) const HARDWARE: u8 = 3;
    pub(in crate::rules) const SOFTWARE_INTERRUPT: u8 = 4;
    pub(in crate::rules) const SOFTWARE_EXCEPTION: u8 = 6;
    pub(in crate::rules) const OTHER: u8 = 7;

    /// Software interrupt, privileged software exception or software exception.
    pub(in crate::rules) const fn is_software(self) -> bool {
        self.kind >= Self::SOFTWARE_INTERRUPT && self.kind <= Self::SOFTWARE_EXCEPTION
    }
}

type Known<T> = Result<T, Missing>;

impl<'a, const PARTIAL: bool> View<'a, PARTIAL> {
    pub(in crate::rules) const fn new(context: &'a EntryContext<'a>) -> Self {
        Self { context, trace: None }
    }
    pub(in crate::rules) const fn traced(context: &'a EntryContext<'a>, trace: &'a Cell<Reads>) -> Self {
        Self { context, trace: Some(trace) }
    }
    fn note(&self, add: impl FnOnce(&mut Reads)) {
        if let Some(trace) = self.trace {
            let mut reads = trace.get();
            add(&mut reads);
            trace.set(reads);
        }
    }

    /// The value of a field.
    #[inline(always)]
    pub(in crate::rules) fn get(&self, field: Field) -> Known<u64> {
        if PARTIAL {
            self.note(|reads| reads.fields.insert(field));
            if !self.context.vmcs.known().has(field) {
                return Err(Missing::Field(field));
            }
        }
        Ok(self.context.vmcs.value(field))
    }
    /// The value of a processor item.
    #[inline(always)]
    pub(in crate::rules) fn item(&self, item: Item) -> Known<u64> {
        if PARTIAL {
            self.note(|reads| reads.items |= 1 << item as u32);
            return self.context.processor.get(item).ok_or(Missing::Processor(item));
        }
        Ok(self.context.processor.value(item))
    }
    /// Whether a processor item is not 0.
    #[inline(always)]
    pub(in crate::rules) fn is(&self, item: Item) -> Known<bool> {
        Ok(self.item(item)? != 0)
    }
    /// Whether the processor has a feature.
    #[inline(always)]
    pub(in crate::rules) fn feature(&self, feature: Feature) -> Known<bool> {
        if PARTIAL {
            self.note(|reads| reads.features = true);
            if self.context.processor.features().is_none() {
                return Err(Missing::Features);
            }
        }
        Ok(self.context.processor.has(feature))
    }
    /// The value of a capability MSR.
    #[inline(always)]
    pub(in crate::rules) fn capability(&self, index: u32) -> Known<u64> {
        if PARTIAL {
            self.note(|reads| reads.capabilities |= 1 << (index - msr::IA32_VMX_BASIC));
            return self.context.capabilities.get(index).ok_or(Missing::Capability(index));
        }
        Ok(self.context.capabilities.value(index))
    }
    /// The 8 bytes of memory at an address that is a multiple of 8.
    pub(in crate::rules) fn memory(&self, address: HostPhysical) -> Known<u64> {
        if PARTIAL {
            self.note(|reads| reads.memory = [Some(address), reads.memory[0]]);
        }
        self.context.memory.read_u64(address).ok_or(Missing::Memory(address))
    }

    /// The settings that the processor allows for a word of controls.
    #[inline(always)]
    pub(in crate::rules) fn allowed(&self, word: Word) -> Known<Allowed> {
        if PARTIAL {
            if word.capability().is_some_and(|c| c.1.is_some()) {
                self.capability(msr::IA32_VMX_BASIC)?;
            }
            self.capability(self.context.capabilities.reporting_msr(word))?;
        }
        Ok(self.context.capabilities.allowed_value(word))
    }
    /// Whether no bit is set in a word of controls that the processor does not allow to be 1.
    #[inline(always)]
    pub(in crate::rules) fn permitted(&self, word: Word, field: Field) -> Known<bool> {
        Ok(self.get(field)? & !self.allowed(word)?.permitted == 0)
    }
    /// Whether no bit is clear in a word of controls that the processor does not allow to be 0.
    #[inline(always)]
    pub(in crate::rules) fn required(&self, word: Word, field: Field) -> Known<bool> {
        Ok(!self.get(field)? & self.allowed(word)?.required == 0)
    }
    /// Whether the processor supports the 1-setting of a control of a word that is always active.
    #[inline(always)]
    pub(in crate::rules) fn supports(&self, control: Control) -> Known<bool> {
        Ok(self.allowed(control.word)?.permitted >> control.bit & 1 != 0)
    }
    #[inline(always)]
    pub(in crate::rules) fn basic(&self) -> Known<Basic> {
        self.capability(msr::IA32_VMX_BASIC).map(Basic)
    }
    #[inline(always)]
    pub(in crate::rules) fn misc(&self) -> Known<Misc> {
        self.capability(msr::IA32_VMX_MISC).map(Misc)
    }
    #[inline(always)]
    pub(in crate::rules) fn ept_vpid(&self) -> Known<EptVpid> {
        self.capability(msr::IA32_VMX_EPT_VPID_CAP).map(EptVpid)
    }

    #[inline(always)]
    pub(in crate::rules) fn pin(&self) -> Known<PinControls> {
        Ok(PinControls(self.get(Field::PinControls)? as u32))
    }
    #[inline(always)]
    pub(in crate::rules) fn primary(&self) -> Known<PrimaryControls> {
        Ok(PrimaryControls(self.get(Field::PrimaryControls)? as u32))
    }
    /// The secondary controls; VM entry functions as if they were 0 unless they are activated.
    #[inline(always)]
    pub(in crate::rules) fn secondary(&self) -> Known<SecondaryControls> {
        if !self.primary()?.contains(PrimaryControls::ACTIVATE_SECONDARY) {
            return Ok(SecondaryControls(0));
        }
        Ok(SecondaryControls(self.get(Field::SecondaryControls)? as u32))
    }
    /// The tertiary controls, likewise.
    #[inline(always)]
    pub(in crate::rules) fn tertiary(&self) -> Known<TertiaryControls> {
        if !self.primary()?.contains(PrimaryControls::ACTIVATE_TERTIARY) {
            return Ok(TertiaryControls(0));
        }
        Ok(TertiaryControls(self.get(Field::TertiaryControls)?))
    }
    #[inline(always)]
    pub(in crate::rules) fn exit(&self) -> Known<ExitControls> {
        Ok(ExitControls(self.get(Field::ExitControls)? as u32))
    }
    /// The secondary VM-exit controls, 0 unless they are activated.
    #[inline(always)]
    pub(in crate::rules) fn secondary_exit(&self) -> Known<SecondaryExitControls> {
        if !self.exit()?.contains(ExitControls::ACTIVATE_SECONDARY) {
            return Ok(SecondaryExitControls(0));
        }
        Ok(SecondaryExitControls(self.get(Field::SecondaryExitControls)?))
    }
    #[inline(always)]
    pub(in crate::rules) fn entry(&self) -> Known<EntryControls> {
        Ok(EntryControls(self.get(Field::EntryControls)? as u32))
    }
    /// The VM-function controls, 0 unless VM functions are enabled.
    #[inline(always)]
    pub(in crate::rules) fn vm_functions(&self) -> Known<VmFunctions> {
        if !self.secondary()?.contains(SecondaryControls::ENABLE_VM_FUNCTIONS) {
            return Ok(VmFunctions(0));
        }
        Ok(VmFunctions(self.get(Field::VmFunctionControls)?))
    }

    #[inline(always)]
    pub(in crate::rules) fn cr0(&self) -> Known<Cr0> {
        self.get(Field::GuestCr0).map(Cr0)
    }
    #[inline(always)]
    pub(in crate::rules) fn cr4(&self) -> Known<Cr4> {
        self.get(Field::GuestCr4).map(Cr4)
    }
    #[inline(always)]
    pub(in crate::rules) fn rflags(&self) -> Known<RFlags> {
        self.get(Field::GuestRflags).map(RFlags)
    }
    #[inline(always)]
    pub(in crate::rules) fn rights(&self, field: Field) -> Known<AccessRights> {
        Ok(AccessRights(self.get(field)? as u32))
    }
    /// Whether the guest will be in IA-32e mode.
    #[inline(always)]
    pub(in crate::rules) fn is_ia32e_guest(&self) -> Known<bool> {
        Ok(self.entry()?.contains(EntryControls::IA32E_MODE_GUEST))
    }
    /// Whether the guest will be in 64-bit mode.
    #[inline(always)]
    pub(in crate::rules) fn is_64_bit_guest(&self) -> Known<bool> {
        Ok(self.is_ia32e_guest()? && self.rights(Field::GuestCsRights)?.contains(AccessRights::L))
    }
    /// Whether the guest will be in virtual-8086 mode.
    #[inline(always)]
    pub(in crate::rules) fn is_virtual_8086(&self) -> Known<bool> {
        Ok(self.rflags()?.contains(RFlags::VM))
    }
    #[inline(always)]
    pub(in crate::rules) fn is_unrestricted(&self) -> Known<bool> {
        Ok(self.secondary()?.contains(SecondaryControls::UNRESTRICTED_GUEST))
    }
    /// Whether the guest will use PAE paging.
    #[inline(always)]
    pub(in crate::rules) fn is_pae_guest(&self) -> Known<bool> {
        Ok(self.cr0()?.contains(Cr0::PG) && self.cr4()?.contains(Cr4::PAE) && !self.is_ia32e_guest()?)
    }
    /// The event that the entry injects.
    #[inline(always)]
    pub(in crate::rules) fn injection(&self) -> Known<Option<Injection>> {
        let info = self.get(Field::EntryInterruptionInfo)?;
        Ok((info >> 31 & 1 != 0).then_some(Injection { vector: info as u8, kind: (info >> 8 & 7) as u8 }))
    }
    /// Whether the entry injects an event of this type.
    #[inline(always)]
    pub(in crate::rules) fn injects(&self, kind: u8) -> Known<bool> {
        Ok(self.injection()?.is_some_and(|event| event.kind == kind))
    }

    /// Whether the bits of `mask` are 0 in a field.
    #[inline(always)]
    pub(in crate::rules) fn zero(&self, field: Field, mask: u64) -> Known<bool> {
        Ok(self.get(field)? & mask == 0)
    }
    /// Whether an address has no bit beyond the processor's physical-address width.
    #[inline(always)]
    pub(in crate::rules) fn fits(&self, address: u64) -> Known<bool> {
        Ok(address >> (self.item(Item::PhysicalWidth)? & 63) == 0)
    }
    /// The same for the address in a field.
    #[inline(always)]
    pub(in crate::rules) fn in_width(&self, field: Field) -> Known<bool> {
        self.fits(self.get(field)?)
    }
    /// Whether a field holds a canonical address, for the linear-address width that the processor supports.
    #[inline(always)]
    pub(in crate::rules) fn canonical(&self, field: Field) -> Known<bool> {
        self.canonical_value(self.get(field)?)
    }
    /// Whether a value is a canonical address, likewise.
    #[inline(always)]
    pub(in crate::rules) fn canonical_value(&self, value: u64) -> Known<bool> {
        let width = self.item(Item::LinearWidth)?;
        Ok(Linear(value).is_canonical(if width >= 57 { 57 } else { 48 }))
    }
    /// Whether bits 63:N of a field are identical, N being the linear-address width that the processor supports.
    #[inline(always)]
    pub(in crate::rules) fn nearly_canonical(&self, field: Field) -> Known<bool> {
        let high = (self.get(field)? as i64) >> if self.item(Item::LinearWidth)? >= 57 { 57 } else { 48 };
        Ok(high == 0 || high == -1)
    }
    /// Whether CR3 has no bit that is reserved: beyond the physical-address width, except LAM bits where there is LAM and
    /// the CR3 is that of `long` mode.
    #[inline(always)]
    pub(in crate::rules) fn cr3_valid(&self, field: Field, long: bool) -> Known<bool> {
        let lam = if long && self.feature(Feature::Lam)? { 3 << 61 } else { 0 };
        self.fits(self.get(field)? & !lam)
    }
    /// Whether each byte of a PAT value is a memory type (0, 1, 4, 5, 6 or 7).
    #[inline(always)]
    pub(in crate::rules) fn pat_valid(&self, field: Field) -> Known<bool> {
        Ok(pat_is_valid(self.get(field)?))
    }
    /// Bits of IA32_EFER that the processor does not have.
    #[inline(always)]
    pub(in crate::rules) fn efer_reserved(&self) -> Known<u64> {
        let syscall = if self.feature(Feature::Syscall)? { 1 } else { 0 };
        let long = if self.feature(Feature::LongMode)? { 1 << 8 | 1 << 10 } else { 0 };
        let nx = if self.feature(Feature::Nx)? { 1 << 11 } else { 0 };
        Ok(!(syscall | long | nx))
    }
    /// Bits of IA32_DEBUGCTL that the processor does not have.
    #[inline(always)]
    pub(in crate::rules) fn debugctl_reserved(&self) -> Known<u64> {
        let bus_lock = if self.feature(Feature::BusLockDetect)? { 1 << 2 } else { 0 };
        let rtm = if self.feature(Feature::Rtm)? { 1 << 15 } else { 0 };
        Ok(!(0x7fc3 | bus_lock | rtm))
    }
    /// Bits of IA32_S_CET and IA32_U_CET that the processor does not have.
    #[inline(always)]
    pub(in crate::rules) fn cet_reserved(&self) -> Known<u64> {
        let shadow_stacks = if self.feature(Feature::Shstk)? { 3 } else { 0 };
        let tracking = if self.feature(Feature::Ibt)? { !0x3c3 } else { 0 };
        Ok(!(shadow_stacks | tracking))
    }
}

/// Whether each byte of a PAT value is 0, 1, 4, 5, 6 or 7.
pub(in crate::rules) const fn pat_is_valid(pat: u64) -> bool {
    const BYTES: u64 = 0x0101_0101_0101_0101;
    pat & (0xf8 * BYTES) == 0 && pat & (2 * BYTES) & !(pat >> 1 & (2 * BYTES)) == 0
}
