//! What L1 sees of VMX: the controls that this model of KVM can give to L2, whatever the processor offers beyond them.

use rootmode_cpu::Model;
use rootmode_vmx::definitions::capabilities::{Basic, Misc};
use rootmode_vmx::definitions::models::EPT_COMMON;
use rootmode_vmx::drive::offered::{self, Offer};
use rootmode_vmx::{
    Capabilities, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
    TertiaryControls, VmFunctions,
};

/// The capability MSRs that an L1 with a processor of `model` sees.
pub(crate) fn nested_capabilities(model: &Model) -> Capabilities {
    offered::capabilities(&OFFER, model)
}

/// The capability MSRs of a physical processor of `model`, as far as L0 uses them for L1: beyond what it can give to L2, XSAVES.
pub(super) fn own_capabilities(model: &Model) -> Capabilities {
    let secondary = SecondaryControls(OFFER.secondary.0 | SecondaryControls::ENABLE_XSAVES.0);
    offered::capabilities(&Offer { secondary, ..OFFER }, model)
}

/// The list. Entry and exit controls come in pairs, as KVM itself wants them.
const OFFER: Offer = Offer {
    pin: PinControls(
        PinControls::EXTERNAL_INTERRUPT_EXITING.0
            | PinControls::NMI_EXITING.0
            | PinControls::VIRTUAL_NMIS.0
            | PinControls::PREEMPTION_TIMER.0,
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
    ),
    secondary: SecondaryControls(
        SecondaryControls::VIRTUALIZE_APIC_ACCESSES.0
            | SecondaryControls::ENABLE_EPT.0
            | SecondaryControls::DESCRIPTOR_TABLE_EXITING.0
            | SecondaryControls::ENABLE_RDTSCP.0
            | SecondaryControls::ENABLE_VPID.0
            | SecondaryControls::WBINVD_EXITING.0
            | SecondaryControls::UNRESTRICTED_GUEST.0
            | SecondaryControls::RDRAND_EXITING.0
            | SecondaryControls::ENABLE_INVPCID.0
            | SecondaryControls::RDSEED_EXITING.0
            | SecondaryControls::USE_TSC_SCALING.0,
    ),
    tertiary: TertiaryControls(0),
    vm_functions: VmFunctions(0),
    exit: ExitControls(
        ExitControls::SAVE_DEBUG_CONTROLS.0
            | ExitControls::HOST_ADDRESS_SPACE_SIZE.0
            | ExitControls::ACKNOWLEDGE_INTERRUPT.0
            | ExitControls::SAVE_PAT.0
            | ExitControls::LOAD_PAT.0
            | ExitControls::SAVE_EFER.0
            | ExitControls::LOAD_EFER.0
            | ExitControls::SAVE_PREEMPTION_TIMER.0,
    ),
    entry: EntryControls(
        EntryControls::LOAD_DEBUG_CONTROLS.0
            | EntryControls::IA32E_MODE_GUEST.0
            | EntryControls::LOAD_PAT.0
            | EntryControls::LOAD_EFER.0,
    ),
    basic: Basic(Basic::INS_OUTS_INFORMATION.0 | Basic::TRUE_CONTROLS.0),
    misc: Misc(Misc::STORE_LMA.0 | Misc::ACTIVITY_HLT.0 | Misc::WRITE_ANY.0),
    ept_vpid: EPT_COMMON,
};
