//! What this processor offers: the capability MSRs, made from the controls that the driving half implements.

use crate::definitions::capabilities::{Basic, EptVpid, Misc};
use crate::definitions::controls::Word;
use crate::definitions::models;
use crate::{
    Capabilities, Control, EntryControls, ExitControls, Field, FieldSet, PinControls, PrimaryControls,
    SecondaryControls, TertiaryControls, VmFunctions,
};
use rootmode_arch::{Cr0, Cr4, Feature, FeatureSet, msr};
use rootmode_cpu::Model;

/// VMCS revision identifier.
pub const REVISION: u32 = 0x0072_6d01;

/// What a processor offers beyond what every one must: single controls, and bits of the other capability MSRs. Whoever
/// shows VMX to a guest (the processor here, a hypervisor elsewhere) has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Pin-based VM-execution controls.
    pub pin: PinControls,
    /// Primary processor-based VM-execution controls.
    pub primary: PrimaryControls,
    /// Secondary processor-based VM-execution controls.
    pub secondary: SecondaryControls,
    /// Tertiary processor-based VM-execution controls.
    pub tertiary: TertiaryControls,
    /// VM functions.
    pub vm_functions: VmFunctions,
    /// VM-exit controls.
    pub exit: ExitControls,
    /// VM-entry controls.
    pub entry: EntryControls,
    /// Single bits of IA32_VMX_BASIC.
    pub basic: Basic,
    /// IA32_VMX_MISC beside the timer's rate and the number of CR3-target values.
    pub misc: Misc,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: EptVpid,
}

impl Offer {
    /// Everything that the driving half implements.
    pub const FULL: Self = Self {
        pin: PinControls(
            PinControls::EXTERNAL_INTERRUPT_EXITING.0
                | PinControls::NMI_EXITING.0
                | PinControls::VIRTUAL_NMIS.0
                | PinControls::PREEMPTION_TIMER.0
                | PinControls::POSTED_INTERRUPTS.0,
        ),
        primary: PrimaryControls(
            PrimaryControls::INTERRUPT_WINDOW_EXITING.0
                | PrimaryControls::USE_TSC_OFFSETTING.0
                | PrimaryControls::HLT_EXITING.0
                | PrimaryControls::INVLPG_EXITING.0
                | PrimaryControls::MWAIT_EXITING.0
                | PrimaryControls::RDPMC_EXITING.0
                | PrimaryControls::RDTSC_EXITING.0
                | PrimaryControls::CR3_LOAD_EXITING.0
                | PrimaryControls::CR3_STORE_EXITING.0
                | PrimaryControls::ACTIVATE_TERTIARY.0
                | PrimaryControls::CR8_LOAD_EXITING.0
                | PrimaryControls::CR8_STORE_EXITING.0
                | PrimaryControls::USE_TPR_SHADOW.0
                | PrimaryControls::NMI_WINDOW_EXITING.0
                | PrimaryControls::MOV_DR_EXITING.0
                | PrimaryControls::UNCONDITIONAL_IO_EXITING.0
                | PrimaryControls::USE_IO_BITMAPS.0
                | PrimaryControls::MONITOR_TRAP_FLAG.0
                | PrimaryControls::USE_MSR_BITMAPS.0
                | PrimaryControls::MONITOR_EXITING.0
                | PrimaryControls::PAUSE_EXITING.0
                | PrimaryControls::ACTIVATE_SECONDARY.0,
        ),
        secondary: SecondaryControls(
            SecondaryControls::VIRTUALIZE_APIC_ACCESSES.0
                | SecondaryControls::ENABLE_EPT.0
                | SecondaryControls::DESCRIPTOR_TABLE_EXITING.0
                | SecondaryControls::ENABLE_RDTSCP.0
                | SecondaryControls::VIRTUALIZE_X2APIC.0
                | SecondaryControls::ENABLE_VPID.0
                | SecondaryControls::WBINVD_EXITING.0
                | SecondaryControls::UNRESTRICTED_GUEST.0
                | SecondaryControls::APIC_REGISTER_VIRTUALIZATION.0
                | SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY.0
                | SecondaryControls::PAUSE_LOOP_EXITING.0
                | SecondaryControls::RDRAND_EXITING.0
                | SecondaryControls::ENABLE_INVPCID.0
                | SecondaryControls::ENABLE_VM_FUNCTIONS.0
                | SecondaryControls::VMCS_SHADOWING.0
                | SecondaryControls::RDSEED_EXITING.0
                | SecondaryControls::ENABLE_PML.0
                | SecondaryControls::EPT_VIOLATION_VE.0
                | SecondaryControls::ENABLE_XSAVES.0
                | SecondaryControls::MODE_BASED_EXECUTE.0
                | SecondaryControls::USE_TSC_SCALING.0
                | SecondaryControls::ENABLE_USER_WAIT.0
                | SecondaryControls::BUS_LOCK_DETECTION.0,
        ),
        tertiary: TertiaryControls::IPI_VIRTUALIZATION,
        vm_functions: VmFunctions::EPTP_SWITCHING,
        exit: ExitControls(
            ExitControls::SAVE_DEBUG_CONTROLS.0
                | ExitControls::HOST_ADDRESS_SPACE_SIZE.0
                | ExitControls::ACKNOWLEDGE_INTERRUPT.0
                | ExitControls::SAVE_PAT.0
                | ExitControls::LOAD_PAT.0
                | ExitControls::SAVE_EFER.0
                | ExitControls::LOAD_EFER.0
                | ExitControls::SAVE_PREEMPTION_TIMER.0
                | ExitControls::LOAD_CET.0
                | ExitControls::LOAD_PKRS.0
                | ExitControls::LOAD_PERF_GLOBAL_CTRL.0
                | ExitControls::SAVE_PERF_GLOBAL_CTRL.0,
        ),
        entry: EntryControls(
            EntryControls::LOAD_DEBUG_CONTROLS.0
                | EntryControls::IA32E_MODE_GUEST.0
                | EntryControls::LOAD_PAT.0
                | EntryControls::LOAD_EFER.0
                | EntryControls::LOAD_CET.0
                | EntryControls::LOAD_PKRS.0
                | EntryControls::LOAD_PERF_GLOBAL_CTRL.0,
        ),
        basic: Basic(Basic::INS_OUTS_INFORMATION.0 | Basic::TRUE_CONTROLS.0 | Basic::ERROR_CODE_OPTIONAL.0),
        misc: Misc(
            Misc::STORE_LMA.0
                | Misc::ACTIVITY_HLT.0
                | Misc::ACTIVITY_SHUTDOWN.0
                | Misc::ACTIVITY_SIPI.0
                | Misc::WRITE_ANY.0
                | Misc::ZERO_LENGTH_INJECTION.0,
        ),
        ept_vpid: EptVpid(models::EPT_COMMON.0 | EptVpid::WALK_5.0 | EptVpid::ADVANCED_EXIT.0),
    };

    /// The same as far as a part has it.
    pub fn of(part: &models::Model) -> Self {
        let mut offer = Self::FULL;
        for word in Word::ALL {
            for control in word.rows().iter().map(|row| Control { word, bit: row.bit }) {
                if !part.has(control) {
                    offer = offer.without(control);
                }
            }
        }
        offer.basic = offer.basic & part.basic;
        offer.misc = offer.misc & part.misc;
        offer.ept_vpid = offer.ept_vpid & part.ept_vpid;
        offer
    }

    /// Whether `control` is offered.
    pub const fn has(&self, control: Control) -> bool {
        self.word(control.word) >> control.bit & 1 != 0
    }

    /// The same with `control`, if [`FULL`](Self::FULL) has it.
    #[must_use]
    pub const fn with(self, control: Control) -> Self {
        if Self::FULL.has(control) { self.set(control, 1) } else { self }
    }

    /// The same without `control`.
    #[must_use]
    pub const fn without(self, control: Control) -> Self {
        self.set(control, 0)
    }

    const fn set(mut self, control: Control, on: u64) -> Self {
        let value = self.word(control.word) & !(1 << control.bit) | on << control.bit;
        match control.word {
            Word::Pin => self.pin = PinControls(value as u32),
            Word::Primary => self.primary = PrimaryControls(value as u32),
            Word::Secondary => self.secondary = SecondaryControls(value as u32),
            Word::Exit => self.exit = ExitControls(value as u32),
            Word::Entry => self.entry = EntryControls(value as u32),
            Word::Tertiary => self.tertiary = TertiaryControls(value),
            Word::VmFunction => self.vm_functions = VmFunctions(value),
            Word::SecondaryExit | Word::Seam => {}
        }
        self
    }

    /// The controls of `word`.
    const fn word(&self, word: Word) -> u64 {
        match word {
            Word::Pin => self.pin.0 as u64,
            Word::Primary => self.primary.0 as u64,
            Word::Secondary => self.secondary.0 as u64,
            Word::Exit => self.exit.0 as u64,
            Word::Entry => self.entry.0 as u64,
            Word::Tertiary => self.tertiary.0,
            Word::VmFunction => self.vm_functions.0,
            Word::SecondaryExit | Word::Seam => 0,
        }
    }

    /// The controls of `word` that a processor with `features` can have.
    fn possible(&self, word: Word, features: &FeatureSet) -> u64 {
        let rows = word.rows().iter().filter(|row| Control { word, bit: row.bit }.is_possible(features));
        self.word(word) & rows.fold(0, |all, row| all | 1 << row.bit)
    }
}

/// The bits that CR0 may have in VMX operation beyond those that must be 1.
const CR0_FIXED0: u64 = Cr0::PE.0 | Cr0::NE.0 | Cr0::PG.0;

/// The capability MSRs of a processor of `model` that offers `offer`, as far as the model has what the controls are about.
/// MSRs that such a processor does not have are 0 here.
pub fn capabilities(offer: &Offer, model: &Model) -> Capabilities {
    let mut all = Capabilities::unknown();
    for index in msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 {
        all.set(index, 0);
    }
    // Region size 4096, write-back.
    all.set(msr::IA32_VMX_BASIC, u64::from(REVISION) | 0x1000 << 32 | 6 << 50 | offer.basic.0);
    for word in [Word::Pin, Word::Primary, Word::Secondary, Word::Exit, Word::Entry] {
        let Some((plain, exact)) = word.capability() else { continue };
        let offered = offer.possible(word, model.features());
        let permitted = (offered | u64::from(word.default1())) << 32;
        all.set(plain, permitted | u64::from(word.default1()));
        if let Some(exact) = exact {
            all.set(exact, permitted | u64::from(word.default1() & !word.released()));
        }
    }
    for word in [Word::Tertiary, Word::VmFunction] {
        let (Some((index, _)), Some(by)) = (word.capability(), word.activated_by()) else { continue };
        if all.supports(by) == Some(true) {
            all.set(index, offer.possible(word, model.features()));
        }
    }
    // The preemption timer counts every 2^5 ticks of the TSC; four CR3-target values.
    all.set(msr::IA32_VMX_MISC, 5 | 4 << 16 | offer.misc.0);
    all.set(msr::IA32_VMX_CR0_FIXED0, CR0_FIXED0);
    all.set(msr::IA32_VMX_CR0_FIXED1, 0xffff_ffff);
    all.set(msr::IA32_VMX_CR4_FIXED0, Cr4::VMXE.0);
    all.set(msr::IA32_VMX_CR4_FIXED1, (model.cr4_bits() | Cr4::VMXE).0);
    let walk_5 = if model.has(Feature::La57) { EptVpid(0) } else { EptVpid::WALK_5 };
    all.set(msr::IA32_VMX_EPT_VPID_CAP, offer.ept_vpid.without(walk_5).0);
    let fields = fields(&all);
    all.set(msr::IA32_VMX_VMCS_ENUM, crate::definitions::field::vmcs_enum(|field| fields.has(field)));
    all
}

/// What RDMSR of capability MSR `index` reads. A word that no control can activate has no MSR
/// (SDM Vol. 3D "VMX Capability Reporting Facility").
pub fn read(capabilities: &Capabilities, index: u32) -> Option<u64> {
    let word = Word::ALL.into_iter().find(|word| word.capability().is_some_and(|(plain, _)| plain == index));
    let activated =
        word.and_then(Word::activated_by).is_none_or(|by| capabilities.supports(by) == Some(true));
    // The TRUE variants come with a bit of IA32_VMX_BASIC.
    let exact = matches!(index, msr::IA32_VMX_TRUE_PINBASED_CTLS..=msr::IA32_VMX_TRUE_ENTRY_CTLS);
    let exists = !exact || capabilities.basic().is_some_and(|basic| basic.contains(Basic::TRUE_CONTROLS));
    capabilities.get(index).filter(|_| activated && exists)
}

/// The fields that a processor with these capabilities has.
pub fn fields(capabilities: &Capabilities) -> FieldSet {
    let mut set = FieldSet::none();
    for field in Field::ALL {
        let needs = field.row().needs;
        if needs.is_empty() || needs.iter().any(|control| capabilities.supports(*control) == Some(true)) {
            set.insert(field);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::Vendor;

    #[test]
    fn every_offered_control_is_permitted_and_no_reserved_one_is() {
        let caps = capabilities(&Offer::FULL, &Model::max_intel());
        for word in [Word::Pin, Word::Primary, Word::Secondary, Word::Exit, Word::Entry] {
            let allowed = caps.allowed(word).unwrap();
            let named: u64 = word.rows().iter().map(|row| 1 << row.bit).sum();
            assert_eq!(allowed.permitted & !named & !u64::from(word.default1()), 0, "{word:?}");
            assert_eq!(allowed.required & !allowed.permitted, 0, "{word:?}");
        }
        let fields = fields(&caps);
        assert!(fields.has(Field::Eptp) && fields.has(Field::Vpid) && !fields.has(Field::GuestBndcfgs));
    }

    #[test]
    fn all_capabilities_are_known_but_msrs_of_words_that_nothing_activates_do_not_exist() {
        let model = Model::max_intel();
        let full = capabilities(&Offer::FULL, &model);
        assert!(full.is_complete(), "entries take the fast path");
        assert_eq!(read(&full, msr::IA32_VMX_VMFUNC), Some(1));
        assert_eq!(read(&full, msr::IA32_VMX_EXIT_CTLS2), None);
        let plain = Offer { primary: PrimaryControls::ACTIVATE_SECONDARY, ..Offer::FULL };
        assert_eq!(read(&capabilities(&plain, &model), msr::IA32_VMX_PROCBASED_CTLS3), None);
        let old = capabilities(&Offer { basic: Basic(0), ..Offer::FULL }, &model);
        assert!(old.is_complete());
        assert_eq!(read(&old, msr::IA32_VMX_TRUE_ENTRY_CTLS), None);
        assert!(read(&old, msr::IA32_VMX_ENTRY_CTLS).is_some());
    }

    #[test]
    fn a_control_without_its_cpuid_feature_cannot_be_set() {
        let with = Model::max_intel();
        for (feature, word, bit, field) in [
            (Feature::Rdseed, Word::Secondary, SecondaryControls::RDSEED_EXITING.0, None),
            (
                Feature::Xsaves,
                Word::Secondary,
                SecondaryControls::ENABLE_XSAVES.0,
                Some(Field::XssExitingBitmap),
            ),
            (Feature::Pks, Word::Exit, ExitControls::LOAD_PKRS.0, Some(Field::HostPkrs)),
            (Feature::Ibt, Word::Exit, ExitControls::LOAD_CET.0, Some(Field::HostSsp)),
        ] {
            let base = with.features().without(Feature::Shstk);
            for has in [false, true] {
                let features = if has { base.with(feature) } else { base.without(feature) };
                let caps = capabilities(&Offer::FULL, &Model::new(Vendor::Intel, features));
                assert_eq!(caps.allowed(word).unwrap().permitted & u64::from(bit) != 0, has, "{feature:?}");
                assert!(field.is_none_or(|field| fields(&caps).has(field) == has), "{feature:?}");
            }
        }
        let narrow = Model::new(Vendor::Intel, with.features().without(Feature::La57));
        for (model, has) in [(with, true), (narrow, false)] {
            let caps = capabilities(&Offer::FULL, &model);
            assert_eq!(caps.ept_vpid().unwrap().contains(EptVpid::WALK_5), has);
        }
    }
}
