//! Every VMCS field: one table (SDM Vol. 3D (325384-083, Mar 2024) "Field Encoding in VMCS", with the FRED,
//! secondary-exit and MSR-list fields of later editions).

use super::controls::{Control, Word};

/// Width of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits; the only width with a high half of its own (odd encoding).
    Bits64,
    /// 32 bits.
    Bits32,
    /// 64 bits on processors with Intel 64 architecture, else 32.
    Natural,
}

impl Width {
    /// The bits that a field of this width has, on a processor with Intel 64 architecture.
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 | Self::Natural => !0,
        }
    }
    /// Number of bits, on a processor with Intel 64 architecture.
    pub const fn bits(self) -> u32 {
        64 - self.mask().leading_zeros()
    }
}

/// What a field is for: bits 11:10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Control fields.
    Control,
    /// VM-exit information: read-only unless VMX_MISC bit 29 is set.
    ReadOnly,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// Which half of a 64-bit field an encoding means: bit 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// The whole field.
    Full,
    /// Bits 63:32 of a 64-bit field.
    High,
}

/// A row of the field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The field.
    pub field: Field,
    /// The name of the enum's variant.
    pub ident: &'static str,
    /// The manual's name.
    pub name: &'static str,
    /// Linux's constant.
    pub linux: &'static str,
    /// The encoding for full access.
    pub encoding: u32,
    /// The field exists on processors that support the 1-setting of any of these controls; always, if empty.
    pub needs: &'static [Control],
}

macro_rules! fields {
    ($($name:ident = $encoding:literal $text:literal $linux:ident $(if $($word:ident $bit:literal),+)?;)*) => {
        /// A VMCS field. The number is dense, from 0, in the order of encodings; [`Field::encoding`] is what VMREAD takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!($text, " (encoding ", stringify!($encoding), ").")] $name,)*
        }

        /// Every field, ascending by encoding.
        pub static TABLE: [Row; Field::COUNT] = [$(Row {
            field: Field::$name,
            ident: stringify!($name),
            name: $text,
            linux: stringify!($linux),
            encoding: $encoding,
            needs: &[$($(Control { word: Word::$word, bit: $bit }),+)?],
        }),*];

        const ENCODINGS: [u16; Field::COUNT] = [$($encoding),*];

        impl Field {
            /// Number of fields.
            pub const COUNT: usize = [$(stringify!($name)),*].len();
            /// Every field, ascending by encoding.
            pub const ALL: [Field; Field::COUNT] = [$(Field::$name),*];
        }
    };
}

fields! {
    // 16-bit control fields.
    Vpid = 0x0000 "Virtual-processor identifier (VPID)" VIRTUAL_PROCESSOR_ID if Secondary 5;
    PostedInterruptVector = 0x0002 "Posted-interrupt notification vector" POSTED_INTR_NV if Pin 7;
    EptpIndex = 0x0004 "EPTP index" EPTP_INDEX if Secondary 18;
    HlatPrefixSize = 0x0006 "HLAT prefix size" HLAT_PREFIX_SIZE if Tertiary 1;
    LastPidPointerIndex = 0x0008 "Last PID-pointer index" LAST_PID_POINTER_INDEX if Tertiary 4;

    // 16-bit guest-state fields.
    GuestEsSelector = 0x0800 "Guest ES selector" GUEST_ES_SELECTOR;
    GuestCsSelector = 0x0802 "Guest CS selector" GUEST_CS_SELECTOR;
    GuestSsSelector = 0x0804 "Guest SS selector" GUEST_SS_SELECTOR;
    GuestDsSelector = 0x0806 "Guest DS selector" GUEST_DS_SELECTOR;
    GuestFsSelector = 0x0808 "Guest FS selector" GUEST_FS_SELECTOR;
    GuestGsSelector = 0x080a "Guest GS selector" GUEST_GS_SELECTOR;
    GuestLdtrSelector = 0x080c "Guest LDTR selector" GUEST_LDTR_SELECTOR;
    GuestTrSelector = 0x080e "Guest TR selector" GUEST_TR_SELECTOR;
    GuestInterruptStatus = 0x0810 "Guest interrupt status" GUEST_INTR_STATUS if Secondary 9;
    PmlIndex = 0x0812 "PML index" GUEST_PML_INDEX if Secondary 17;
    GuestUinv = 0x0814 "Guest UINV" GUEST_UINV if Entry 19, Exit 27;

    // 16-bit host-state fields.
    HostEsSelector = 0x0c00 "Host ES selector" HOST_ES_SELECTOR;
    HostCsSelector = 0x0c02 "Host CS selector" HOST_CS_SELECTOR;
    HostSsSelector = 0x0c04 "Host SS selector" HOST_SS_SELECTOR;
    HostDsSelector = 0x0c06 "Host DS selector" HOST_DS_SELECTOR;
    HostFsSelector = 0x0c08 "Host FS selector" HOST_FS_SELECTOR;
    HostGsSelector = 0x0c0a "Host GS selector" HOST_GS_SELECTOR;
    HostTrSelector = 0x0c0c "Host TR selector" HOST_TR_SELECTOR;

    // 64-bit control fields.
    IoBitmapA = 0x2000 "Address of I/O bitmap A" IO_BITMAP_A;
    IoBitmapB = 0x2002 "Address of I/O bitmap B" IO_BITMAP_B;
    MsrBitmap = 0x2004 "Address of MSR bitmaps" MSR_BITMAP if Primary 28;
    ExitMsrStoreAddress = 0x2006 "VM-exit MSR-store address" VM_EXIT_MSR_STORE_ADDR;
    ExitMsrLoadAddress = 0x2008 "VM-exit MSR-load address" VM_EXIT_MSR_LOAD_ADDR;
    EntryMsrLoadAddress = 0x200a "VM-entry MSR-load address" VM_ENTRY_MSR_LOAD_ADDR;
    ExecutiveVmcsPointer = 0x200c "Executive-VMCS pointer" EXECUTIVE_VMCS_POINTER;
    PmlAddress = 0x200e "PML address" PML_ADDRESS if Secondary 17;
    TscOffset = 0x2010 "TSC offset" TSC_OFFSET;
    VirtualApicAddress = 0x2012 "Virtual-APIC address" VIRTUAL_APIC_PAGE_ADDR if Primary 21;
    ApicAccessAddress = 0x2014 "APIC-access address" APIC_ACCESS_ADDR if Secondary 0;
    PostedInterruptDescriptor = 0x2016 "Posted-interrupt descriptor address" POSTED_INTR_DESC_ADDR if Pin 7;
    VmFunctionControls = 0x2018 "VM-function controls" VM_FUNCTION_CONTROL if Secondary 13;
    Eptp = 0x201a "EPT pointer (EPTP)" EPT_POINTER if Secondary 1;
    EoiExitBitmap0 = 0x201c "EOI-exit bitmap 0 (EOI_EXIT0)" EOI_EXIT_BITMAP0 if Secondary 9;
    EoiExitBitmap1 = 0x201e "EOI-exit bitmap 1 (EOI_EXIT1)" EOI_EXIT_BITMAP1 if Secondary 9;
    EoiExitBitmap2 = 0x2020 "EOI-exit bitmap 2 (EOI_EXIT2)" EOI_EXIT_BITMAP2 if Secondary 9;
    EoiExitBitmap3 = 0x2022 "EOI-exit bitmap 3 (EOI_EXIT3)" EOI_EXIT_BITMAP3 if Secondary 9;
    EptpListAddress = 0x2024 "EPTP-list address" EPTP_LIST_ADDRESS if VmFunction 0;
    VmreadBitmap = 0x2026 "VMREAD-bitmap address" VMREAD_BITMAP if Secondary 14;
    VmwriteBitmap = 0x2028 "VMWRITE-bitmap address" VMWRITE_BITMAP if Secondary 14;
    VirtualizationExceptionAddress = 0x202a "Virtualization-exception information address" VE_INFORMATION_ADDRESS if Secondary 18;
    XssExitingBitmap = 0x202c "XSS-exiting bitmap" XSS_EXIT_BITMAP if Secondary 20;
    EnclsExitingBitmap = 0x202e "ENCLS-exiting bitmap" ENCLS_EXITING_BITMAP if Secondary 15;
    SubPagePermissionTable = 0x2030 "Sub-page-permission-table pointer (SPPTP)" SPPT_POINTER if Secondary 23;
    TscMultiplier = 0x2032 "TSC multiplier" TSC_MULTIPLIER if Secondary 25;
    TertiaryControls = 0x2034 "Tertiary processor-based VM-execution controls" TERTIARY_VM_EXEC_CONTROL if Primary 17;
    EnclvExitingBitmap = 0x2036 "ENCLV-exiting bitmap" ENCLV_EXITING_BITMAP if Secondary 28;
    LowPasidDirectory = 0x2038 "Low PASID directory address" LOW_PASID_DIRECTORY_ADDRESS if Secondary 21;
    HighPasidDirectory = 0x203a "High PASID directory address" HIGH_PASID_DIRECTORY_ADDRESS if Secondary 21;
    SharedEptp = 0x203c "Shared EPT pointer" SHARED_EPT_POINTER if Seam 0;
    PconfigExitingBitmap = 0x203e "PCONFIG-exiting bitmap" PCONFIG_EXITING_BITMAP if Secondary 27;
    Hlatp = 0x2040 "HLAT pointer (HLATP)" HLAT_POINTER if Tertiary 1;
    PidPointerTable = 0x2042 "PID-pointer table address" PID_POINTER_TABLE if Tertiary 4;
    SecondaryExitControls = 0x2044 "Secondary VM-exit controls" SECONDARY_VM_EXIT_CONTROLS if Exit 31;
    SpecCtrlMask = 0x204a "IA32_SPEC_CTRL mask" IA32_SPEC_CTRL_MASK if Tertiary 7;
    SpecCtrlShadow = 0x204c "IA32_SPEC_CTRL shadow" IA32_SPEC_CTRL_SHADOW if Tertiary 7;
    InjectedEventData = 0x2052 "Injected-event data" INJECTED_EVENT_DATA if Entry 23;

    // 64-bit read-only data fields.
    GuestPhysicalAddress = 0x2400 "Guest-physical address" GUEST_PHYSICAL_ADDRESS if Secondary 1;
    MsrData = 0x2402 "MSR data" MSR_DATA if Tertiary 6;
    OriginalEventData = 0x2404 "Original-event data" ORIGINAL_EVENT_DATA if Entry 23;

    // 64-bit guest-state fields.
    LinkPointer = 0x2800 "VMCS link pointer" VMCS_LINK_POINTER;
    GuestDebugCtl = 0x2802 "Guest IA32_DEBUGCTL" GUEST_IA32_DEBUGCTL;
    GuestPat = 0x2804 "Guest IA32_PAT" GUEST_IA32_PAT if Entry 14, Exit 18;
    GuestEfer = 0x2806 "Guest IA32_EFER" GUEST_IA32_EFER if Entry 15, Exit 20;
    GuestPerfGlobalCtrl = 0x2808 "Guest IA32_PERF_GLOBAL_CTRL" GUEST_IA32_PERF_GLOBAL_CTRL if Entry 13;
    GuestPdpte0 = 0x280a "Guest PDPTE0" GUEST_PDPTR0 if Secondary 1;
    GuestPdpte1 = 0x280c "Guest PDPTE1" GUEST_PDPTR1 if Secondary 1;
    GuestPdpte2 = 0x280e "Guest PDPTE2" GUEST_PDPTR2 if Secondary 1;
    GuestPdpte3 = 0x2810 "Guest PDPTE3" GUEST_PDPTR3 if Secondary 1;
    GuestBndcfgs = 0x2812 "Guest IA32_BNDCFGS" GUEST_BNDCFGS if Entry 16, Exit 23;
    GuestRtitCtl = 0x2814 "Guest IA32_RTIT_CTL" GUEST_IA32_RTIT_CTL if Entry 18, Exit 25;
    GuestLbrCtl = 0x2816 "Guest IA32_LBR_CTL" GUEST_IA32_LBR_CTL if Entry 21, Exit 26;
    GuestPkrs = 0x2818 "Guest IA32_PKRS" GUEST_IA32_PKRS if Entry 22;
    GuestFredConfig = 0x281a "Guest IA32_FRED_CONFIG" GUEST_IA32_FRED_CONFIG if Entry 23;
    GuestFredRsp1 = 0x281c "Guest IA32_FRED_RSP1" GUEST_IA32_FRED_RSP1 if Entry 23;
    GuestFredRsp2 = 0x281e "Guest IA32_FRED_RSP2" GUEST_IA32_FRED_RSP2 if Entry 23;
    GuestFredRsp3 = 0x2820 "Guest IA32_FRED_RSP3" GUEST_IA32_FRED_RSP3 if Entry 23;
    GuestFredStackLevels = 0x2822 "Guest IA32_FRED_STKLVLS" GUEST_IA32_FRED_STKLVLS if Entry 23;
    GuestFredSsp1 = 0x2824 "Guest IA32_FRED_SSP1" GUEST_IA32_FRED_SSP1 if Entry 23;
    GuestFredSsp2 = 0x2826 "Guest IA32_FRED_SSP2" GUEST_IA32_FRED_SSP2 if Entry 23;
    GuestFredSsp3 = 0x2828 "Guest IA32_FRED_SSP3" GUEST_IA32_FRED_SSP3 if Entry 23;

    // 64-bit host-state fields.
    HostPat = 0x2c00 "Host IA32_PAT" HOST_IA32_PAT if Exit 19;
    HostEfer = 0x2c02 "Host IA32_EFER" HOST_IA32_EFER if Exit 21;
    HostPerfGlobalCtrl = 0x2c04 "Host IA32_PERF_GLOBAL_CTRL" HOST_IA32_PERF_GLOBAL_CTRL if Exit 12;
    HostPkrs = 0x2c06 "Host IA32_PKRS" HOST_IA32_PKRS if Exit 29;
    HostFredConfig = 0x2c08 "Host IA32_FRED_CONFIG" HOST_IA32_FRED_CONFIG if SecondaryExit 1;
    HostFredRsp1 = 0x2c0a "Host IA32_FRED_RSP1" HOST_IA32_FRED_RSP1 if SecondaryExit 1;
    HostFredRsp2 = 0x2c0c "Host IA32_FRED_RSP2" HOST_IA32_FRED_RSP2 if SecondaryExit 1;
    HostFredRsp3 = 0x2c0e "Host IA32_FRED_RSP3" HOST_IA32_FRED_RSP3 if SecondaryExit 1;
    HostFredStackLevels = 0x2c10 "Host IA32_FRED_STKLVLS" HOST_IA32_FRED_STKLVLS if SecondaryExit 1;
    HostFredSsp1 = 0x2c12 "Host IA32_FRED_SSP1" HOST_IA32_FRED_SSP1 if SecondaryExit 1;
    HostFredSsp2 = 0x2c14 "Host IA32_FRED_SSP2" HOST_IA32_FRED_SSP2 if SecondaryExit 1;
    HostFredSsp3 = 0x2c16 "Host IA32_FRED_SSP3" HOST_IA32_FRED_SSP3 if SecondaryExit 1;

    // 32-bit control fields.
    PinControls = 0x4000 "Pin-based VM-execution controls" PIN_BASED_VM_EXEC_CONTROL;
    PrimaryControls = 0x4002 "Primary processor-based VM-execution controls" CPU_BASED_VM_EXEC_CONTROL;
    ExceptionBitmap = 0x4004 "Exception bitmap" EXCEPTION_BITMAP;
    PageFaultErrorMask = 0x4006 "Page-fault error-code mask" PAGE_FAULT_ERROR_CODE_MASK;
    PageFaultErrorMatch = 0x4008 "Page-fault error-code match" PAGE_FAULT_ERROR_CODE_MATCH;
    Cr3TargetCount = 0x400a "CR3-target count" CR3_TARGET_COUNT;
    ExitControls = 0x400c "Primary VM-exit controls" VM_EXIT_CONTROLS;
    ExitMsrStoreCount = 0x400e "VM-exit MSR-store count" VM_EXIT_MSR_STORE_COUNT;
    ExitMsrLoadCount = 0x4010 "VM-exit MSR-load count" VM_EXIT_MSR_LOAD_COUNT;
    EntryControls = 0x4012 "VM-entry controls" VM_ENTRY_CONTROLS;
    EntryMsrLoadCount = 0x4014 "VM-entry MSR-load count" VM_ENTRY_MSR_LOAD_COUNT;
    EntryInterruptionInfo = 0x4016 "VM-entry interruption-information field" VM_ENTRY_INTR_INFO_FIELD;
    EntryErrorCode = 0x4018 "VM-entry exception error code" VM_ENTRY_EXCEPTION_ERROR_CODE;
    EntryInstructionLength = 0x401a "VM-entry instruction length" VM_ENTRY_INSTRUCTION_LEN;
    TprThreshold = 0x401c "TPR threshold" TPR_THRESHOLD if Primary 21;
    SecondaryControls = 0x401e "Secondary processor-based VM-execution controls" SECONDARY_VM_EXEC_CONTROL if Primary 31;
    PleGap = 0x4020 "PLE_Gap" PLE_GAP if Secondary 10;
    PleWindow = 0x4022 "PLE_Window" PLE_WINDOW if Secondary 10;
    InstructionTimeout = 0x4024 "Instruction-timeout control" INSTRUCTION_TIMEOUT if Secondary 31;
    GuestHkid = 0x4026 "Guest HKID" GUEST_HKID if Seam 0;

    // 32-bit read-only data fields.
    InstructionError = 0x4400 "VM-instruction error" VM_INSTRUCTION_ERROR;
    ExitReason = 0x4402 "Exit reason" VM_EXIT_REASON;
    ExitInterruptionInfo = 0x4404 "VM-exit interruption information" VM_EXIT_INTR_INFO;
    ExitInterruptionErrorCode = 0x4406 "VM-exit interruption error code" VM_EXIT_INTR_ERROR_CODE;
    IdtVectoringInfo = 0x4408 "IDT-vectoring information field" IDT_VECTORING_INFO_FIELD;
    IdtVectoringErrorCode = 0x440a "IDT-vectoring error code" IDT_VECTORING_ERROR_CODE;
    ExitInstructionLength = 0x440c "VM-exit instruction length" VM_EXIT_INSTRUCTION_LEN;
    ExitInstructionInfo = 0x440e "VM-exit instruction information" VMX_INSTRUCTION_INFO;

    // 32-bit guest-state fields.
    GuestEsLimit = 0x4800 "Guest ES limit" GUEST_ES_LIMIT;
    GuestCsLimit = 0x4802 "Guest CS limit" GUEST_CS_LIMIT;
    GuestSsLimit = 0x4804 "Guest SS limit" GUEST_SS_LIMIT;
    GuestDsLimit = 0x4806 "Guest DS limit" GUEST_DS_LIMIT;
    GuestFsLimit = 0x4808 "Guest FS limit" GUEST_FS_LIMIT;
    GuestGsLimit = 0x480a "Guest GS limit" GUEST_GS_LIMIT;
    GuestLdtrLimit = 0x480c "Guest LDTR limit" GUEST_LDTR_LIMIT;
    GuestTrLimit = 0x480e "Guest TR limit" GUEST_TR_LIMIT;
    GuestGdtrLimit = 0x4810 "Guest GDTR limit" GUEST_GDTR_LIMIT;
    GuestIdtrLimit = 0x4812 "Guest IDTR limit" GUEST_IDTR_LIMIT;
    GuestEsRights = 0x4814 "Guest ES access rights" GUEST_ES_AR_BYTES;
    GuestCsRights = 0x4816 "Guest CS access rights" GUEST_CS_AR_BYTES;
    GuestSsRights = 0x4818 "Guest SS access rights" GUEST_SS_AR_BYTES;
    GuestDsRights = 0x481a "Guest DS access rights" GUEST_DS_AR_BYTES;
    GuestFsRights = 0x481c "Guest FS access rights" GUEST_FS_AR_BYTES;
    GuestGsRights = 0x481e "Guest GS access rights" GUEST_GS_AR_BYTES;
    GuestLdtrRights = 0x4820 "Guest LDTR access rights" GUEST_LDTR_AR_BYTES;
    GuestTrRights = 0x4822 "Guest TR access rights" GUEST_TR_AR_BYTES;
    GuestInterruptibility = 0x4824 "Guest interruptibility state" GUEST_INTERRUPTIBILITY_INFO;
    GuestActivity = 0x4826 "Guest activity state" GUEST_ACTIVITY_STATE;
    GuestSmbase = 0x4828 "Guest SMBASE" GUEST_SMBASE;
    GuestSysenterCs = 0x482a "Guest IA32_SYSENTER_CS" GUEST_SYSENTER_CS;
    PreemptionTimer = 0x482e "VMX-preemption timer value" VMX_PREEMPTION_TIMER_VALUE if Pin 6;

    // 32-bit host-state field.
    HostSysenterCs = 0x4c00 "Host IA32_SYSENTER_CS" HOST_IA32_SYSENTER_CS;

    // Natural-width control fields.
    Cr0Mask = 0x6000 "CR0 guest/host mask" CR0_GUEST_HOST_MASK;
    Cr4Mask = 0x6002 "CR4 guest/host mask" CR4_GUEST_HOST_MASK;
    Cr0Shadow = 0x6004 "CR0 read shadow" CR0_READ_SHADOW;
    Cr4Shadow = 0x6006 "CR4 read shadow" CR4_READ_SHADOW;
    Cr3Target0 = 0x6008 "CR3-target value 0" CR3_TARGET_VALUE0;
    Cr3Target1 = 0x600a "CR3-target value 1" CR3_TARGET_VALUE1;
    Cr3Target2 = 0x600c "CR3-target value 2" CR3_TARGET_VALUE2;
    Cr3Target3 = 0x600e "CR3-target value 3" CR3_TARGET_VALUE3;

    // Natural-width read-only data fields.
    ExitQualification = 0x6400 "Exit qualification" EXIT_QUALIFICATION;
    IoRcx = 0x6402 "I/O RCX" IO_RCX;
    IoRsi = 0x6404 "I/O RSI" IO_RSI;
    IoRdi = 0x6406 "I/O RDI" IO_RDI;
    IoRip = 0x6408 "I/O RIP" IO_RIP;
    GuestLinearAddress = 0x640a "Guest-linear address" GUEST_LINEAR_ADDRESS;

    // Natural-width guest-state fields.
    GuestCr0 = 0x6800 "Guest CR0" GUEST_CR0;
    GuestCr3 = 0x6802 "Guest CR3" GUEST_CR3;
    GuestCr4 = 0x6804 "Guest CR4" GUEST_CR4;
    GuestEsBase = 0x6806 "Guest ES base" GUEST_ES_BASE;
    GuestCsBase = 0x6808 "Guest CS base" GUEST_CS_BASE;
    GuestSsBase = 0x680a "Guest SS base" GUEST_SS_BASE;
    GuestDsBase = 0x680c "Guest DS base" GUEST_DS_BASE;
    GuestFsBase = 0x680e "Guest FS base" GUEST_FS_BASE;
    GuestGsBase = 0x6810 "Guest GS base" GUEST_GS_BASE;
    GuestLdtrBase = 0x6812 "Guest LDTR base" GUEST_LDTR_BASE;
    GuestTrBase = 0x6814 "Guest TR base" GUEST_TR_BASE;
    GuestGdtrBase = 0x6816 "Guest GDTR base" GUEST_GDTR_BASE;
    GuestIdtrBase = 0x6818 "Guest IDTR base" GUEST_IDTR_BASE;
    GuestDr7 = 0x681a "Guest DR7" GUEST_DR7;
    GuestRsp = 0x681c "Guest RSP" GUEST_RSP;
    GuestRip = 0x681e "Guest RIP" GUEST_RIP;
    GuestRflags = 0x6820 "Guest RFLAGS" GUEST_RFLAGS;
    GuestPendingDebug = 0x6822 "Guest pending debug exceptions" GUEST_PENDING_DBG_EXCEPTIONS;
    GuestSysenterEsp = 0x6824 "Guest IA32_SYSENTER_ESP" GUEST_SYSENTER_ESP;
    GuestSysenterEip = 0x6826 "Guest IA32_SYSENTER_EIP" GUEST_SYSENTER_EIP;
    GuestSCet = 0x6828 "Guest IA32_S_CET" GUEST_S_CET if Entry 20;
    GuestSsp = 0x682a "Guest SSP" GUEST_SSP if Entry 20;
    GuestSspTable = 0x682c "Guest IA32_INTERRUPT_SSP_TABLE_ADDR" GUEST_INTR_SSP_TABLE if Entry 20;

    // Natural-width host-state fields.
    HostCr0 = 0x6c00 "Host CR0" HOST_CR0;
    HostCr3 = 0x6c02 "Host CR3" HOST_CR3;
    HostCr4 = 0x6c04 "Host CR4" HOST_CR4;
    HostFsBase = 0x6c06 "Host FS base" HOST_FS_BASE;
    HostGsBase = 0x6c08 "Host GS base" HOST_GS_BASE;
    HostTrBase = 0x6c0a "Host TR base" HOST_TR_BASE;
    HostGdtrBase = 0x6c0c "Host GDTR base" HOST_GDTR_BASE;
    HostIdtrBase = 0x6c0e "Host IDTR base" HOST_IDTR_BASE;
    HostSysenterEsp = 0x6c10 "Host IA32_SYSENTER_ESP" HOST_IA32_SYSENTER_ESP;
    HostSysenterEip = 0x6c12 "Host IA32_SYSENTER_EIP" HOST_IA32_SYSENTER_EIP;
    HostRsp = 0x6c14 "Host RSP" HOST_RSP;
    HostRip = 0x6c16 "Host RIP" HOST_RIP;
    HostSCet = 0x6c18 "Host IA32_S_CET" HOST_S_CET if Exit 28;
    HostSsp = 0x6c1a "Host SSP" HOST_SSP if Exit 28;
    HostSspTable = 0x6c1c "Host IA32_INTERRUPT_SSP_TABLE_ADDR" HOST_INTR_SSP_TABLE if Exit 28;
}

impl Field {
    /// The dense index, below [`Field::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
    /// The field with dense index `index`.
    pub fn from_index(index: usize) -> Option<Field> {
        Self::ALL.get(index).copied()
    }
    /// The field's row.
    pub fn row(self) -> &'static Row {
        &TABLE[self.index()]
    }
    /// The manual's name.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The encoding that VMREAD and VMWRITE take, for full access.
    pub const fn encoding(self) -> u32 {
        ENCODINGS[self as usize] as u32
    }
    /// Width: bits 14:13 of the encoding.
    pub const fn width(self) -> Width {
        match self.encoding() >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }
    /// Control, read-only, guest or host: bits 11:10 of the encoding.
    pub const fn kind(self) -> Kind {
        match self.encoding() >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::ReadOnly,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }
    /// Index within width and kind: bits 9:1 of the encoding.
    pub const fn subindex(self) -> u32 {
        self.encoding() >> 1 & 0x1ff
    }
    /// The field and half that `encoding` means; `None` for encodings that no processor has.
    pub fn from_encoding(encoding: u32) -> Option<(Field, Access)> {
        let number = BY_ENCODING[place_of(encoding)];
        let field = *Self::ALL.get(usize::from(number))?;
        if field.encoding() != encoding & !1 {
            return None;
        }
        match (encoding & 1, field.width()) {
            (0, _) => Some((field, Access::Full)),
            (_, Width::Bits64) => Some((field, Access::High)),
            _ => None,
        }
    }
    /// The field that Linux calls `name`, with or without `_HIGH` (which selects the high half).
    pub fn from_linux(name: &str) -> Option<(Field, Access)> {
        let find = |name| TABLE.iter().find(|row| row.linux == name).map(|row| row.field);
        if let Some(field) = find(name) {
            return Some((field, Access::Full));
        }
        let field = find(name.strip_suffix("_HIGH")?)?;
        (field.width() == Width::Bits64).then_some((field, Access::High))
    }
}

/// Where [`BY_ENCODING`] has the field of `encoding`, if there is one: by width, kind and the low bits of the index.
const fn place_of(encoding: u32) -> usize {
    (encoding >> 13 & 3 | (encoding >> 10 & 3) << 2 | (encoding >> 1 & 63) << 4) as usize
}

/// The numbers of the fields, for a look-up that looks at one.
static BY_ENCODING: [u8; 1024] = {
    let mut numbers = [u8::MAX; 1024];
    let mut number = 0;
    while number < Field::COUNT {
        let place = &mut numbers[place_of(ENCODINGS[number] as u32)];
        assert!(*place == u8::MAX, "the indices of all fields are below 64");
        *place = number as u8;
        number += 1;
    }
    numbers
};

/// IA32_VMX_VMCS_ENUM for a processor on which `exists` holds: the highest index of any encoding, in bits 9:1
/// (SDM Vol. 3D "VMCS Enumeration").
pub fn vmcs_enum(exists: impl Fn(Field) -> bool) -> u64 {
    let highest = Field::ALL.iter().filter(|f| exists(**f)).map(|f| f.subindex()).max();
    u64::from(highest.unwrap_or(0)) << 1
}

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct FieldSet([u64; 4]);

const _: () = assert!(Field::COUNT < 256, "FieldSet is 256 bits wide, and 255 is no field's number");

impl FieldSet {
    /// No field.
    pub const fn none() -> Self {
        Self([0; 4])
    }
    /// Every field.
    pub const fn all() -> Self {
        let mut set = Self::none();
        let mut i = 0;
        while i < Field::COUNT {
            set.0[i / 64] |= 1 << (i % 64);
            i += 1;
        }
        set
    }
    /// Whether `field` is in the set.
    #[inline]
    pub const fn has(&self, field: Field) -> bool {
        self.0[field as usize / 64] >> (field as usize % 64) & 1 != 0
    }
    /// Adds `field`.
    #[inline]
    pub const fn insert(&mut self, field: Field) {
        self.0[field as usize / 64] |= 1 << (field as usize % 64);
    }
    /// Removes `field`.
    pub const fn remove(&mut self, field: Field) {
        self.0[field as usize / 64] &= !(1 << (field as usize % 64));
    }
    /// Whether a field is in both sets.
    #[inline]
    pub const fn meets(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a[0] & b[0] | a[1] & b[1] | a[2] & b[2] | a[3] & b[3] != 0
    }
    /// The fields of both sets.
    #[must_use]
    pub const fn union(&self, other: &Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        Self([a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]])
    }
    /// Whether the set has every field.
    pub const fn is_all(&self) -> bool {
        // A constant, for the loop in `all` is not free at run time.
        const ALL: FieldSet = FieldSet::all();
        self.0[0] == ALL.0[0] && self.0[1] == ALL.0[1] && self.0[2] == ALL.0[2] && self.0[3] == ALL.0[3]
    }
    /// Number of fields in the set.
    pub const fn len(&self) -> u32 {
        self.0[0].count_ones() + self.0[1].count_ones() + self.0[2].count_ones() + self.0[3].count_ones()
    }
    /// Whether the set is empty.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The fields, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Field> + '_ {
        Field::ALL.into_iter().filter(|f| self.has(*f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_ascend_so_that_lookup_by_encoding_finds_every_field() {
        assert!(ENCODINGS.windows(2).all(|w| w[0] < w[1]));
        for field in Field::ALL {
            assert_eq!(Field::from_encoding(field.encoding()), Some((field, Access::Full)));
            let high = Field::from_encoding(field.encoding() | 1);
            assert_eq!(high, (field.width() == Width::Bits64).then_some((field, Access::High)));
        }
        assert_eq!(Field::from_encoding(0x4828 + 4), None, "0x482c is a hole");
        assert_eq!(Field::from_encoding(0x1_0000), None);
    }

    #[test]
    fn width_and_kind_follow_the_encoding() {
        assert_eq!((Field::GuestCr0.width(), Field::GuestCr0.kind()), (Width::Natural, Kind::Guest));
        assert_eq!((Field::Eptp.width(), Field::Eptp.kind()), (Width::Bits64, Kind::Control));
        assert_eq!(
            (Field::HostTrSelector.width(), Field::HostTrSelector.kind()),
            (Width::Bits16, Kind::Host)
        );
        assert_eq!((Field::ExitReason.width(), Field::ExitReason.kind()), (Width::Bits32, Kind::ReadOnly));
        assert_eq!(Field::HostRip.encoding(), 0x6c16);
    }

    #[test]
    fn bit_0_and_bit_12_and_bits_31_15_of_a_full_encoding_are_zero() {
        for field in Field::ALL {
            assert_eq!(field.encoding() & !0x6ffe, 0, "{field:?}");
        }
    }

    #[test]
    fn linux_names_select_the_half_by_suffix() {
        assert_eq!(Field::from_linux("EPT_POINTER_HIGH"), Some((Field::Eptp, Access::High)));
        assert_eq!(Field::from_linux("GUEST_RIP"), Some((Field::GuestRip, Access::Full)));
        assert_eq!(Field::from_linux("GUEST_RIP_HIGH"), None);
    }

    #[test]
    fn the_highest_index_of_a_processor_without_optional_fields_is_that_of_sysenter_cs() {
        let highest = vmcs_enum(|f| f.row().needs.is_empty());
        assert_eq!(highest, u64::from(Field::GuestSysenterCs.encoding() & 0x3fe));
    }
}
