//! What this processor offers: the capability MSRs, made from the controls that the driving half implements.

use crate::definitions::capabilities::{Basic, EptVpid, Misc};
use crate::definitions::controls::{Control, Word};
use crate::{
    Capabilities, EntryControls, ExitControls, Field, FieldSet, PinControls, PrimaryControls,
    SecondaryControls,
};
use rootmode_arch::{Cr0, Cr4, FeatureSet, msr};

/// VMCS revision identifier.
pub const REVISION: u32 = 0x0072_6d01;

const PIN: PinControls = PinControls(
    PinControls::EXTERNAL_INTERRUPT_EXITING.0
        | PinControls::NMI_EXITING.0
        | PinControls::VIRTUAL_NMIS.0
        | PinControls::PREEMPTION_TIMER.0,
);

const PRIMARY: PrimaryControls = PrimaryControls(
    PrimaryControls::INTERRUPT_WINDOW_EXITING.0
        | PrimaryControls::USE_TSC_OFFSETTING.0
        | PrimaryControls::HLT_EXITING.0
        | PrimaryControls::INVLPG_EXITING.0
        | PrimaryControls::MWAIT_EXITING.0
        | PrimaryControls::RDPMC_EXITING.0
        | PrimaryControls::RDTSC_EXITING.0
        | PrimaryControls::CR3_LOAD_EXITING.0
        | PrimaryControls::CR3_STORE_EXITING.0
        | PrimaryControls::CR8_LOAD_EXITING.0
        | PrimaryControls::CR8_STORE_EXITING.0
        | PrimaryControls::NMI_WINDOW_EXITING.0
        | PrimaryControls::MOV_DR_EXITING.0
        | PrimaryControls::UNCONDITIONAL_IO_EXITING.0
        | PrimaryControls::USE_IO_BITMAPS.0
        | PrimaryControls::MONITOR_TRAP_FLAG.0
        | PrimaryControls::USE_MSR_BITMAPS.0
        | PrimaryControls::MONITOR_EXITING.0
        | PrimaryControls::PAUSE_EXITING.0
        | PrimaryControls::ACTIVATE_SECONDARY.0,
);

const SECONDARY: SecondaryControls = SecondaryControls(
    SecondaryControls::ENABLE_EPT.0
        | SecondaryControls::DESCRIPTOR_TABLE_EXITING.0
        | SecondaryControls::ENABLE_RDTSCP.0
        | SecondaryControls::ENABLE_VPID.0
        | SecondaryControls::WBINVD_EXITING.0
        | SecondaryControls::UNRESTRICTED_GUEST.0
        | SecondaryControls::RDRAND_EXITING.0
        | SecondaryControls::ENABLE_INVPCID.0
        | SecondaryControls::RDSEED_EXITING.0
        | SecondaryControls::USE_TSC_SCALING.0,
);

const EXIT: ExitControls = ExitControls(
    ExitControls::SAVE_DEBUG_CONTROLS.0
        | ExitControls::HOST_ADDRESS_SPACE_SIZE.0
        | ExitControls::ACKNOWLEDGE_INTERRUPT.0
        | ExitControls::SAVE_PAT.0
        | ExitControls::LOAD_PAT.0
        | ExitControls::SAVE_EFER.0
        | ExitControls::LOAD_EFER.0
        | ExitControls::SAVE_PREEMPTION_TIMER.0
        | ExitControls::LOAD_CET.0
        | ExitControls::LOAD_PKRS.0,
);

const ENTRY: EntryControls = EntryControls(
    EntryControls::LOAD_DEBUG_CONTROLS.0
        | EntryControls::IA32E_MODE_GUEST.0
        | EntryControls::LOAD_PAT.0
        | EntryControls::LOAD_EFER.0
        | EntryControls::LOAD_CET.0
        | EntryControls::LOAD_PKRS.0,
);

/// The bits that CR0 may have in VMX operation beyond those that must be 1.
const CR0_FIXED0: u64 = Cr0::PE.0 | Cr0::NE.0 | Cr0::PG.0;

/// The capability MSRs of a processor with `features`, whose CR4 can have the bits `cr4`.
pub fn capabilities(features: &FeatureSet, cr4: Cr4) -> Capabilities {
    let mut all = Capabilities::unknown();
    for index in msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 {
        all.set(index, 0);
    }
    // Region size 4096, write-back, TRUE capability MSRs.
    let basic =
        u64::from(REVISION) | 0x1000 << 32 | 6 << 50 | Basic::INS_OUTS_INFORMATION.0 | Basic::TRUE_CONTROLS.0;
    all.set(msr::IA32_VMX_BASIC, basic);
    let words = [
        (Word::Pin, PIN.0),
        (Word::Primary, PRIMARY.0),
        (Word::Secondary, SECONDARY.0),
        (Word::Exit, EXIT.0),
        (Word::Entry, ENTRY.0),
    ];
    for (word, offered) in words {
        let Some((plain, exact)) = word.capability() else { continue };
        let possible = word
            .rows()
            .iter()
            .filter(|row| Control { word, bit: row.bit }.is_possible(features))
            .fold(0, |bits, row| bits | 1 << row.bit);
        let permitted = u64::from(offered & possible | word.default1()) << 32;
        all.set(plain, permitted | u64::from(word.default1()));
        if let Some(exact) = exact {
            all.set(exact, permitted | u64::from(word.default1() & !word.released()));
        }
    }
    // The preemption timer counts every 2^5 ticks of the TSC; four CR3-target values; activity state HLT.
    let misc = 5 | 4 << 16 | Misc::STORE_LMA.0 | Misc::ACTIVITY_HLT.0 | Misc::WRITE_ANY.0;
    all.set(msr::IA32_VMX_MISC, misc);
    all.set(msr::IA32_VMX_CR0_FIXED0, CR0_FIXED0);
    all.set(msr::IA32_VMX_CR0_FIXED1, 0xffff_ffff);
    all.set(msr::IA32_VMX_CR4_FIXED0, Cr4::VMXE.0);
    all.set(msr::IA32_VMX_CR4_FIXED1, cr4.0 | Cr4::VMXE.0);
    let ept = EptVpid::EXECUTE_ONLY.0
        | EptVpid::WALK_4.0
        | EptVpid::MEMORY_UC.0
        | EptVpid::MEMORY_WB.0
        | EptVpid::PAGE_2M.0
        | EptVpid::PAGE_1G.0
        | EptVpid::INVEPT.0
        | EptVpid::ACCESSED_DIRTY.0
        | EptVpid::INVEPT_SINGLE.0
        | EptVpid::INVEPT_ALL.0;
    let vpid = EptVpid::INVVPID.0
        | EptVpid::INVVPID_ADDRESS.0
        | EptVpid::INVVPID_SINGLE.0
        | EptVpid::INVVPID_ALL.0
        | EptVpid::INVVPID_SINGLE_GLOBALS.0;
    all.set(msr::IA32_VMX_EPT_VPID_CAP, ept | vpid);
    let fields = fields(&all);
    all.set(msr::IA32_VMX_VMCS_ENUM, crate::definitions::field::vmcs_enum(|field| fields.has(field)));
    all
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
    use rootmode_arch::Feature;

    #[test]
    fn every_offered_control_is_permitted_and_no_reserved_one_is() {
        let caps = capabilities(&FeatureSet::all(), Cr4::PAE);
        assert!(caps.is_complete());
        for word in [Word::Pin, Word::Primary, Word::Secondary, Word::Exit, Word::Entry] {
            let allowed = caps.allowed(word).unwrap();
            let named: u64 = word.rows().iter().map(|row| 1 << row.bit).sum();
            assert_eq!(allowed.permitted & !named & !u64::from(word.default1()), 0, "{word:?}");
            assert_eq!(allowed.required & !allowed.permitted, 0, "{word:?}");
        }
        let fields = fields(&caps);
        assert!(fields.has(Field::Eptp) && fields.has(Field::Vpid) && !fields.has(Field::PmlAddress));
    }

    #[test]
    fn a_control_and_its_field_come_with_their_feature_only() {
        for (feature, exit, field) in [
            (Feature::Pks, ExitControls::LOAD_PKRS, Field::HostPkrs),
            (Feature::Ibt, ExitControls::LOAD_CET, Field::HostSsp),
        ] {
            for has in [false, true] {
                let base = FeatureSet::none().with(Feature::LongMode);
                let caps = capabilities(&if has { base.with(feature) } else { base }, Cr4::PAE);
                let permitted = caps.allowed(Word::Exit).unwrap().permitted;
                assert_eq!(permitted & u64::from(exit.0) != 0, has, "{feature:?}");
                assert_eq!(fields(&caps).has(field), has, "{feature:?}");
            }
        }
    }
}
