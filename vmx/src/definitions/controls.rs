//! Every control bit, by word: the manual's name, Linux's name, the CPUID features it needs, the capability MSR that
//! allows it (SDM Vol. 3C (325384-083, Mar 2024) "VM-Execution Control Fields", "VM-Exit Control Fields",
//! "VM-Entry Control Fields"; Vol. 3D "VMX Capability Reporting Facility").

use super::field::Field;
use rootmode_arch::{Feature, FeatureSet, msr};

/// A word of controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Word {
    /// Pin-based VM-execution controls.
    Pin,
    /// Primary processor-based VM-execution controls.
    Primary,
    /// Secondary processor-based VM-execution controls.
    Secondary,
    /// Tertiary processor-based VM-execution controls (64 bits).
    Tertiary,
    /// Primary VM-exit controls.
    Exit,
    /// Secondary VM-exit controls (64 bits).
    SecondaryExit,
    /// VM-entry controls.
    Entry,
    /// VM-function controls (64 bits).
    VmFunction,
    /// SEAM root operation (TDX): no control, but fields that exist only there refer to it.
    Seam,
}

impl Word {
    /// Every word that has controls.
    pub const ALL: [Word; 8] = [
        Word::Pin,
        Word::Primary,
        Word::Secondary,
        Word::Tertiary,
        Word::Exit,
        Word::SecondaryExit,
        Word::Entry,
        Word::VmFunction,
    ];

    /// The VMCS field that holds the word.
    pub const fn field(self) -> Option<Field> {
        Some(match self {
            Self::Pin => Field::PinControls,
            Self::Primary => Field::PrimaryControls,
            Self::Secondary => Field::SecondaryControls,
            Self::Tertiary => Field::TertiaryControls,
            Self::Exit => Field::ExitControls,
            Self::SecondaryExit => Field::SecondaryExitControls,
            Self::Entry => Field::EntryControls,
            Self::VmFunction => Field::VmFunctionControls,
            Self::Seam => return None,
        })
    }

    /// The capability MSR, and the TRUE variant that replaces it when VMX_BASIC bit 55 is set.
    /// Allowed-0 and allowed-1 halves for the 32-bit words; the 64-bit words have allowed-1 bits only.
    pub const fn capability(self) -> Option<(u32, Option<u32>)> {
        Some(match self {
            Self::Pin => (msr::IA32_VMX_PINBASED_CTLS, Some(msr::IA32_VMX_TRUE_PINBASED_CTLS)),
            Self::Primary => (msr::IA32_VMX_PROCBASED_CTLS, Some(msr::IA32_VMX_TRUE_PROCBASED_CTLS)),
            Self::Secondary => (msr::IA32_VMX_PROCBASED_CTLS2, None),
            Self::Tertiary => (msr::IA32_VMX_PROCBASED_CTLS3, None),
            Self::Exit => (msr::IA32_VMX_EXIT_CTLS, Some(msr::IA32_VMX_TRUE_EXIT_CTLS)),
            Self::SecondaryExit => (msr::IA32_VMX_EXIT_CTLS2, None),
            Self::Entry => (msr::IA32_VMX_ENTRY_CTLS, Some(msr::IA32_VMX_TRUE_ENTRY_CTLS)),
            Self::VmFunction => (msr::IA32_VMX_VMFUNC, None),
            Self::Seam => return None,
        })
    }

    /// The control that must be 1 for this word to have an effect (else VM entry functions as if it were 0).
    pub const fn activated_by(self) -> Option<Control> {
        match self {
            Self::Secondary => Some(Control { word: Word::Primary, bit: 31 }),
            Self::Tertiary => Some(Control { word: Word::Primary, bit: 17 }),
            Self::SecondaryExit => Some(Control { word: Word::Exit, bit: 31 }),
            Self::VmFunction => Some(Control { word: Word::Secondary, bit: 13 }),
            _ => None,
        }
    }

    /// The named controls of the word, ascending by bit.
    pub const fn rows(self) -> &'static [Row] {
        match self {
            Self::Pin => PinControls::ROWS,
            Self::Primary => PrimaryControls::ROWS,
            Self::Secondary => SecondaryControls::ROWS,
            Self::Tertiary => TertiaryControls::ROWS,
            Self::Exit => ExitControls::ROWS,
            Self::SecondaryExit => SecondaryExitControls::ROWS,
            Self::Entry => EntryControls::ROWS,
            Self::VmFunction => VmFunctions::ROWS,
            Self::Seam => &[],
        }
    }

    /// Bits whose allowed-0 setting is always 1: VM entry wants them set (the "default1" class without those that
    /// a TRUE capability MSR may release).
    pub const fn default1(self) -> u32 {
        match self {
            Self::Pin => 0x16,
            Self::Primary => 0x0401_e172,
            Self::Exit => 0x0003_6dff,
            Self::Entry => 0x11ff,
            _ => 0,
        }
    }

    /// Bits of the default1 class that have a meaning, so that the TRUE capability MSRs may allow 0.
    pub const fn released(self) -> u32 {
        match self {
            Self::Primary => 1 << 15 | 1 << 16,
            Self::Exit | Self::Entry => 1 << 2,
            _ => 0,
        }
    }
}

/// One control bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Control {
    /// The word.
    pub word: Word,
    /// The bit in it.
    pub bit: u8,
}

impl Control {
    /// The control's row, if the bit is named.
    pub fn row(self) -> Option<&'static Row> {
        self.word.rows().iter().find(|row| row.bit == self.bit)
    }
    /// The fields that exist only on processors that support this control.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        super::field::TABLE.iter().filter(move |row| row.needs.contains(&self)).map(|row| row.field)
    }
    /// Whether a processor with `features` can have the control.
    pub fn is_possible(self, features: &FeatureSet) -> bool {
        self.row().is_some_and(|row| row.features.is_empty() || row.features.iter().any(|f| features.has(*f)))
    }
}

/// A row of a table of controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Bit number.
    pub bit: u8,
    /// Constant name.
    pub ident: &'static str,
    /// The manual's name.
    pub name: &'static str,
    /// Linux's constant.
    pub linux: &'static str,
    /// What command lines call it where that does not follow from the constant's name: QEMU's spelling.
    pub flag: Option<&'static str>,
    /// The control needs at least one of these CPUID features; none if empty.
    pub features: &'static [Feature],
}

/// The first of at most one.
const fn first(flags: &[&'static str]) -> Option<&'static str> {
    if flags.is_empty() { None } else { Some(flags[0]) }
}

macro_rules! controls {
    ($($(#[$meta:meta])* $type:ident($int:ty) { $($name:ident = $bit:literal $text:literal $linux:ident $(as $flag:literal)? $([$($feature:ident),+])?;)* })*) => {$(
        rootmode_arch::bits! {
            $(#[$meta])*
            pub struct $type($int) { $($name = $bit, $text;)* }
        }
        impl $type {
            /// Every named control, ascending by bit.
            pub const ROWS: &'static [Row] = &[$(Row {
                bit: $bit, ident: stringify!($name), name: $text, linux: stringify!($linux),
                flag: first(&[$($flag)?]),
                features: &[$($(Feature::$feature),+)?],
            }),*];
        }
    )*};
}

controls! {
    /// Pin-based VM-execution controls.
    PinControls(u32) {
        EXTERNAL_INTERRUPT_EXITING = 0 "external-interrupt exiting" PIN_BASED_EXT_INTR_MASK as "vmx-intr-exit";
        NMI_EXITING = 3 "NMI exiting" PIN_BASED_NMI_EXITING;
        VIRTUAL_NMIS = 5 "virtual NMIs" PIN_BASED_VIRTUAL_NMIS as "vmx-vnmi";
        PREEMPTION_TIMER = 6 "activate VMX-preemption timer" PIN_BASED_VMX_PREEMPTION_TIMER;
        POSTED_INTERRUPTS = 7 "process posted interrupts" PIN_BASED_POSTED_INTR as "vmx-posted-intr";
    }
    /// Primary processor-based VM-execution controls.
    PrimaryControls(u32) {
        INTERRUPT_WINDOW_EXITING = 2 "interrupt-window exiting" CPU_BASED_INTR_WINDOW_EXITING as "vmx-vintr-pending";
        USE_TSC_OFFSETTING = 3 "use TSC offsetting" CPU_BASED_USE_TSC_OFFSETTING as "vmx-tsc-offset";
        HLT_EXITING = 7 "HLT exiting" CPU_BASED_HLT_EXITING;
        INVLPG_EXITING = 9 "INVLPG exiting" CPU_BASED_INVLPG_EXITING;
        MWAIT_EXITING = 10 "MWAIT exiting" CPU_BASED_MWAIT_EXITING;
        RDPMC_EXITING = 11 "RDPMC exiting" CPU_BASED_RDPMC_EXITING;
        RDTSC_EXITING = 12 "RDTSC exiting" CPU_BASED_RDTSC_EXITING;
        CR3_LOAD_EXITING = 15 "CR3-load exiting" CPU_BASED_CR3_LOAD_EXITING;
        CR3_STORE_EXITING = 16 "CR3-store exiting" CPU_BASED_CR3_STORE_EXITING;
        ACTIVATE_TERTIARY = 17 "activate tertiary controls" CPU_BASED_ACTIVATE_TERTIARY_CONTROLS as "vmx-tertiary-ctls";
        CR8_LOAD_EXITING = 19 "CR8-load exiting" CPU_BASED_CR8_LOAD_EXITING;
        CR8_STORE_EXITING = 20 "CR8-store exiting" CPU_BASED_CR8_STORE_EXITING;
        USE_TPR_SHADOW = 21 "use TPR shadow" CPU_BASED_TPR_SHADOW as "vmx-flexpriority";
        NMI_WINDOW_EXITING = 22 "NMI-window exiting" CPU_BASED_NMI_WINDOW_EXITING as "vmx-vnmi-pending";
        MOV_DR_EXITING = 23 "MOV-DR exiting" CPU_BASED_MOV_DR_EXITING;
        UNCONDITIONAL_IO_EXITING = 24 "unconditional I/O exiting" CPU_BASED_UNCOND_IO_EXITING as "vmx-io-exit";
        USE_IO_BITMAPS = 25 "use I/O bitmaps" CPU_BASED_USE_IO_BITMAPS as "vmx-io-bitmap";
        MONITOR_TRAP_FLAG = 27 "monitor trap flag" CPU_BASED_MONITOR_TRAP_FLAG as "vmx-mtf";
        USE_MSR_BITMAPS = 28 "use MSR bitmaps" CPU_BASED_USE_MSR_BITMAPS as "vmx-msr-bitmap";
        MONITOR_EXITING = 29 "MONITOR exiting" CPU_BASED_MONITOR_EXITING;
        PAUSE_EXITING = 30 "PAUSE exiting" CPU_BASED_PAUSE_EXITING;
        ACTIVATE_SECONDARY = 31 "activate secondary controls" CPU_BASED_ACTIVATE_SECONDARY_CONTROLS as "vmx-secondary-ctls";
    }
    /// Secondary processor-based VM-execution controls.
    SecondaryControls(u32) {
        VIRTUALIZE_APIC_ACCESSES = 0 "virtualize APIC accesses" SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES as "vmx-apicv-xapic";
        ENABLE_EPT = 1 "enable EPT" SECONDARY_EXEC_ENABLE_EPT;
        DESCRIPTOR_TABLE_EXITING = 2 "descriptor-table exiting" SECONDARY_EXEC_DESC as "vmx-desc-exit";
        ENABLE_RDTSCP = 3 "enable RDTSCP" SECONDARY_EXEC_ENABLE_RDTSCP as "vmx-rdtscp-exit" [Rdtscp, Rdpid];
        VIRTUALIZE_X2APIC = 4 "virtualize x2APIC mode" SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE as "vmx-apicv-x2apic" [X2apic];
        ENABLE_VPID = 5 "enable VPID" SECONDARY_EXEC_ENABLE_VPID;
        WBINVD_EXITING = 6 "WBINVD exiting" SECONDARY_EXEC_WBINVD_EXITING;
        UNRESTRICTED_GUEST = 7 "unrestricted guest" SECONDARY_EXEC_UNRESTRICTED_GUEST;
        APIC_REGISTER_VIRTUALIZATION = 8 "APIC-register virtualization" SECONDARY_EXEC_APIC_REGISTER_VIRT as "vmx-apicv-register";
        VIRTUAL_INTERRUPT_DELIVERY = 9 "virtual-interrupt delivery" SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY as "vmx-apicv-vid";
        PAUSE_LOOP_EXITING = 10 "PAUSE-loop exiting" SECONDARY_EXEC_PAUSE_LOOP_EXITING as "vmx-ple";
        RDRAND_EXITING = 11 "RDRAND exiting" SECONDARY_EXEC_RDRAND_EXITING [Rdrand];
        ENABLE_INVPCID = 12 "enable INVPCID" SECONDARY_EXEC_ENABLE_INVPCID as "vmx-invpcid-exit" [Invpcid];
        ENABLE_VM_FUNCTIONS = 13 "enable VM functions" SECONDARY_EXEC_ENABLE_VMFUNC as "vmx-vmfunc";
        VMCS_SHADOWING = 14 "VMCS shadowing" SECONDARY_EXEC_SHADOW_VMCS as "vmx-shadow-vmcs";
        ENABLE_ENCLS_EXITING = 15 "enable ENCLS exiting" SECONDARY_EXEC_ENCLS_EXITING [Sgx];
        RDSEED_EXITING = 16 "RDSEED exiting" SECONDARY_EXEC_RDSEED_EXITING [Rdseed];
        ENABLE_PML = 17 "enable PML" SECONDARY_EXEC_ENABLE_PML;
        EPT_VIOLATION_VE = 18 "EPT-violation #VE" SECONDARY_EXEC_EPT_VIOLATION_VE;
        CONCEAL_VMX_FROM_PT = 19 "conceal VMX from PT" SECONDARY_EXEC_PT_CONCEAL_VMX [IntelPt];
        ENABLE_XSAVES = 20 "enable XSAVES/XRSTORS" SECONDARY_EXEC_ENABLE_XSAVES [Xsaves];
        PASID_TRANSLATION = 21 "PASID translation" SECONDARY_EXEC_PASID_TRANSLATION [Enqcmd];
        MODE_BASED_EXECUTE = 22 "mode-based execute control for EPT" SECONDARY_EXEC_MODE_BASED_EPT_EXEC as "vmx-mbec";
        SUB_PAGE_WRITE = 23 "sub-page write permissions for EPT" SECONDARY_EXEC_SPP;
        PT_GUEST_PHYSICAL = 24 "Intel PT uses guest physical addresses" SECONDARY_EXEC_PT_USE_GPA [IntelPt];
        USE_TSC_SCALING = 25 "use TSC scaling" SECONDARY_EXEC_TSC_SCALING;
        ENABLE_USER_WAIT = 26 "enable user wait and pause" SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE as "vmx-enable-user-wait-pause" [Waitpkg];
        ENABLE_PCONFIG = 27 "enable PCONFIG" SECONDARY_EXEC_ENABLE_PCONFIG [Pconfig];
        ENABLE_ENCLV_EXITING = 28 "enable ENCLV exiting" SECONDARY_EXEC_ENCLV_EXITING [Sgx];
        BUS_LOCK_DETECTION = 30 "VMM bus-lock detection" SECONDARY_EXEC_BUS_LOCK_DETECTION;
        INSTRUCTION_TIMEOUT = 31 "instruction timeout" SECONDARY_EXEC_NOTIFY_VM_EXITING;
    }
    /// Tertiary processor-based VM-execution controls.
    TertiaryControls(u64) {
        LOADIWKEY_EXITING = 0 "LOADIWKEY exiting" TERTIARY_EXEC_LOADIWKEY_EXITING [KeyLocker];
        ENABLE_HLAT = 1 "enable HLAT" TERTIARY_EXEC_ENABLE_HLAT;
        EPT_PAGING_WRITE = 2 "EPT paging-write control" TERTIARY_EXEC_EPT_PAGING_WRITE;
        GUEST_PAGING_VERIFICATION = 3 "guest-paging verification" TERTIARY_EXEC_GUEST_PAGING_VERIFICATION;
        IPI_VIRTUALIZATION = 4 "IPI virtualization" TERTIARY_EXEC_IPI_VIRT;
        ENABLE_MSR_LIST = 6 "enable MSR-list instructions" TERTIARY_EXEC_ENABLE_MSR_LIST [Msrlist];
        VIRTUALIZE_SPEC_CTRL = 7 "virtualize IA32_SPEC_CTRL" TERTIARY_EXEC_VIRTUALIZE_SPEC_CTRL;
    }
    /// Primary VM-exit controls.
    ExitControls(u32) {
        SAVE_DEBUG_CONTROLS = 2 "save debug controls" VM_EXIT_SAVE_DEBUG_CONTROLS as "vmx-exit-nosave-debugctl";
        HOST_ADDRESS_SPACE_SIZE = 9 "host address-space size" VM_EXIT_HOST_ADDR_SPACE_SIZE [LongMode];
        LOAD_PERF_GLOBAL_CTRL = 12 "load IA32_PERF_GLOBAL_CTRL" VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL [Pdcm];
        ACKNOWLEDGE_INTERRUPT = 15 "acknowledge interrupt on exit" VM_EXIT_ACK_INTR_ON_EXIT as "vmx-exit-ack-intr";
        SAVE_PAT = 18 "save IA32_PAT" VM_EXIT_SAVE_IA32_PAT;
        LOAD_PAT = 19 "load IA32_PAT" VM_EXIT_LOAD_IA32_PAT;
        SAVE_EFER = 20 "save IA32_EFER" VM_EXIT_SAVE_IA32_EFER;
        LOAD_EFER = 21 "load IA32_EFER" VM_EXIT_LOAD_IA32_EFER;
        SAVE_PREEMPTION_TIMER = 22 "save VMX-preemption timer value" VM_EXIT_SAVE_VMX_PREEMPTION_TIMER as "vmx-exit-save-preemption-timer";
        CLEAR_BNDCFGS = 23 "clear IA32_BNDCFGS" VM_EXIT_CLEAR_BNDCFGS [Mpx];
        CONCEAL_VMX_FROM_PT = 24 "conceal VMX from PT" VM_EXIT_PT_CONCEAL_PIP [IntelPt];
        CLEAR_RTIT_CTL = 25 "clear IA32_RTIT_CTL" VM_EXIT_CLEAR_IA32_RTIT_CTL [IntelPt];
        CLEAR_LBR_CTL = 26 "clear IA32_LBR_CTL" VM_EXIT_CLEAR_IA32_LBR_CTL [ArchLbr];
        CLEAR_UINV = 27 "clear UINV" VM_EXIT_CLEAR_UINV [Uintr];
        LOAD_CET = 28 "load CET state" VM_EXIT_LOAD_CET_STATE [Shstk, Ibt];
        LOAD_PKRS = 29 "load PKRS" VM_EXIT_LOAD_IA32_PKRS [Pks];
        SAVE_PERF_GLOBAL_CTRL = 30 "save IA32_PERF_GLOBAL_CTRL" VM_EXIT_SAVE_IA32_PERF_GLOBAL_CTRL [Pdcm];
        ACTIVATE_SECONDARY = 31 "activate secondary controls" VM_EXIT_ACTIVATE_SECONDARY_CONTROLS as "vmx-exit-secondary-ctls";
    }
    /// Secondary VM-exit controls.
    SecondaryExitControls(u64) {
        SAVE_FRED = 0 "save IA32_FRED" SECONDARY_VM_EXIT_SAVE_IA32_FRED [Fred];
        LOAD_FRED = 1 "load IA32_FRED" SECONDARY_VM_EXIT_LOAD_IA32_FRED [Fred];
        SHADOW_STACK_BUSY = 3 "prematurely busy shadow stack" SECONDARY_VM_EXIT_PREMATURELY_BUSY_SHADOW_STACK [Shstk];
    }
    /// VM-entry controls.
    EntryControls(u32) {
        LOAD_DEBUG_CONTROLS = 2 "load debug controls" VM_ENTRY_LOAD_DEBUG_CONTROLS as "vmx-entry-noload-debugctl";
        IA32E_MODE_GUEST = 9 "IA-32e mode guest" VM_ENTRY_IA32E_MODE as "vmx-entry-ia32e-mode" [LongMode];
        ENTRY_TO_SMM = 10 "entry to SMM" VM_ENTRY_SMM;
        DEACTIVATE_DUAL_MONITOR = 11 "deactivate dual-monitor treatment" VM_ENTRY_DEACT_DUAL_MONITOR;
        LOAD_PERF_GLOBAL_CTRL = 13 "load IA32_PERF_GLOBAL_CTRL" VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL [Pdcm];
        LOAD_PAT = 14 "load IA32_PAT" VM_ENTRY_LOAD_IA32_PAT;
        LOAD_EFER = 15 "load IA32_EFER" VM_ENTRY_LOAD_IA32_EFER;
        LOAD_BNDCFGS = 16 "load IA32_BNDCFGS" VM_ENTRY_LOAD_BNDCFGS [Mpx];
        CONCEAL_VMX_FROM_PT = 17 "conceal VMX from PT" VM_ENTRY_PT_CONCEAL_PIP [IntelPt];
        LOAD_RTIT_CTL = 18 "load IA32_RTIT_CTL" VM_ENTRY_LOAD_IA32_RTIT_CTL [IntelPt];
        LOAD_UINV = 19 "load UINV" VM_ENTRY_LOAD_UINV [Uintr];
        LOAD_CET = 20 "load CET state" VM_ENTRY_LOAD_CET_STATE [Shstk, Ibt];
        LOAD_LBR_CTL = 21 "load guest IA32_LBR_CTL" VM_ENTRY_LOAD_IA32_LBR_CTL [ArchLbr];
        LOAD_PKRS = 22 "load PKRS" VM_ENTRY_LOAD_IA32_PKRS [Pks];
        LOAD_FRED = 23 "load IA32_FRED" VM_ENTRY_LOAD_IA32_FRED [Fred];
    }
    /// VM-function controls.
    VmFunctions(u64) {
        EPTP_SWITCHING = 0 "EPTP switching" VMFUNC_CONTROL_BIT_EPTP_SWITCHING as "vmx-eptp-switching";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_needs_a_control_names_one_that_exists() {
        for row in &super::super::field::TABLE {
            for control in row.needs {
                assert!(control.word == Word::Seam || control.row().is_some(), "{row:?}");
            }
        }
    }

    #[test]
    fn a_control_brings_its_fields() {
        let vpid = Control { word: Word::Secondary, bit: 5 };
        assert!(vpid.fields().eq([Field::Vpid]));
        let shadowing = Control { word: Word::Secondary, bit: 14 };
        assert!(shadowing.fields().eq([Field::VmreadBitmap, Field::VmwriteBitmap]));
    }

    #[test]
    fn named_controls_of_the_default1_class_are_the_released_ones() {
        for word in Word::ALL {
            let named = word.rows().iter().filter(|r| r.bit < 32).fold(0u32, |m, r| m | 1 << r.bit);
            assert_eq!(named & word.default1(), word.released(), "{word:?}");
        }
    }

    #[test]
    fn bndcfgs_controls_need_mpx() {
        let bndcfgs = Control { word: Word::Entry, bit: 16 };
        assert!(!bndcfgs.is_possible(&FeatureSet::none()));
        assert!(bndcfgs.is_possible(&FeatureSet::none().with(Feature::Mpx)));
    }
}
