//! Basic exit reasons (SDM Vol. 3D (325384-083, Mar 2024) "VMX Basic Exit Reasons") and VM-instruction errors.

macro_rules! numbered {
    ($(#[$meta:meta])* $type:ident($int:ty); $($name:ident = $number:literal $text:literal;)*) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $type(pub $int);

        impl $type {
            $(#[doc = concat!($text, ".")] pub const $name: Self = Self($number);)*
            /// Every defined number with its constant's name and meaning, ascending.
            pub const TABLE: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$name, stringify!($name), $text)),*];

            /// What the number means, if the manual defines it.
            pub fn text(self) -> Option<&'static str> {
                Self::TABLE.iter().find(|row| row.0 == self).map(|row| row.2)
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({}: {})", stringify!($type), self.0, self.text().unwrap_or("undefined"))
            }
        }
    };
}

numbered! {
    /// A basic exit reason: bits 15:0 of the exit-reason field.
    ExitReason(u16);
    EXCEPTION_OR_NMI = 0 "exception or non-maskable interrupt (NMI)";
    EXTERNAL_INTERRUPT = 1 "external interrupt";
    TRIPLE_FAULT = 2 "triple fault";
    INIT = 3 "INIT signal";
    SIPI = 4 "start-up IPI (SIPI)";
    IO_SMI = 5 "I/O system-management interrupt (SMI)";
    OTHER_SMI = 6 "other SMI";
    INTERRUPT_WINDOW = 7 "interrupt window";
    NMI_WINDOW = 8 "NMI window";
    TASK_SWITCH = 9 "task switch";
    CPUID = 10 "CPUID";
    GETSEC = 11 "GETSEC";
    HLT = 12 "HLT";
    INVD = 13 "INVD";
    INVLPG = 14 "INVLPG";
    RDPMC = 15 "RDPMC";
    RDTSC = 16 "RDTSC";
    RSM = 17 "RSM";
    VMCALL = 18 "VMCALL";
    VMCLEAR = 19 "VMCLEAR";
    VMLAUNCH = 20 "VMLAUNCH";
    VMPTRLD = 21 "VMPTRLD";
    VMPTRST = 22 "VMPTRST";
    VMREAD = 23 "VMREAD";
    VMRESUME = 24 "VMRESUME";
    VMWRITE = 25 "VMWRITE";
    VMXOFF = 26 "VMXOFF";
    VMXON = 27 "VMXON";
    CR_ACCESS = 28 "control-register access";
    MOV_DR = 29 "MOV DR";
    IO_INSTRUCTION = 30 "I/O instruction";
    RDMSR = 31 "RDMSR";
    WRMSR = 32 "WRMSR";
    INVALID_GUEST_STATE = 33 "VM-entry failure due to invalid guest state";
    MSR_LOADING = 34 "VM-entry failure due to MSR loading";
    MWAIT = 36 "MWAIT";
    MONITOR_TRAP_FLAG = 37 "monitor trap flag";
    MONITOR = 39 "MONITOR";
    PAUSE = 40 "PAUSE";
    MACHINE_CHECK_DURING_ENTRY = 41 "VM-entry failure due to machine-check event";
    TPR_BELOW_THRESHOLD = 43 "TPR below threshold";
    APIC_ACCESS = 44 "APIC access";
    VIRTUALIZED_EOI = 45 "virtualized EOI";
    GDTR_IDTR_ACCESS = 46 "access to GDTR or IDTR";
    LDTR_TR_ACCESS = 47 "access to LDTR or TR";
    EPT_VIOLATION = 48 "EPT violation";
    EPT_MISCONFIGURATION = 49 "EPT misconfiguration";
    INVEPT = 50 "INVEPT";
    RDTSCP = 51 "RDTSCP";
    PREEMPTION_TIMER = 52 "VMX-preemption timer expired";
    INVVPID = 53 "INVVPID";
    WBINVD = 54 "WBINVD or WBNOINVD";
    XSETBV = 55 "XSETBV";
    APIC_WRITE = 56 "APIC write";
    RDRAND = 57 "RDRAND";
    INVPCID = 58 "INVPCID";
    VMFUNC = 59 "VMFUNC";
    ENCLS = 60 "ENCLS";
    RDSEED = 61 "RDSEED";
    PML_FULL = 62 "page-modification log full";
    XSAVES = 63 "XSAVES";
    XRSTORS = 64 "XRSTORS";
    PCONFIG = 65 "PCONFIG";
    SPP_EVENT = 66 "SPP-related event";
    UMWAIT = 67 "UMWAIT";
    TPAUSE = 68 "TPAUSE";
    LOADIWKEY = 69 "LOADIWKEY";
    ENCLV = 70 "ENCLV";
    ENQCMD_PASID = 72 "ENQCMD PASID translation failure";
    ENQCMDS_PASID = 73 "ENQCMDS PASID translation failure";
    BUS_LOCK = 74 "bus lock";
    INSTRUCTION_TIMEOUT = 75 "instruction timeout";
    SEAMCALL = 76 "SEAMCALL";
    TDCALL = 77 "TDCALL";
    RDMSRLIST = 78 "RDMSRLIST";
    WRMSRLIST = 79 "WRMSRLIST";
}

impl ExitReason {
    /// Bit 31 of the exit-reason field: the exit is a failed VM entry.
    pub const ENTRY_FAILURE: u32 = 1 << 31;
    /// Bit 27: the exit was incident to enclave mode.
    pub const ENCLAVE_MODE: u32 = 1 << 27;
    /// Bit 28: a pending MTF exit was recorded (SMM VM exits).
    pub const PENDING_MTF: u32 = 1 << 28;
    /// Bit 29: the SMM VM exit came from VMX root operation.
    pub const FROM_VMX_ROOT: u32 = 1 << 29;
    /// Bit 26: the guest took a bus lock; also in exits for that reason.
    pub const BUS_LOCK_PENDING: u32 = 1 << 26;

    /// Whether the guest executed an instruction of VMX's own other than VMCALL and VMFUNC; they exit unconditionally
    /// (SDM Vol. 3C "Instructions That Cause VM Exits Unconditionally").
    pub const fn is_vmx_instruction(self) -> bool {
        matches!(
            self,
            Self::VMCLEAR
                | Self::VMLAUNCH
                | Self::VMPTRLD
                | Self::VMPTRST
                | Self::VMREAD
                | Self::VMRESUME
                | Self::VMWRITE
                | Self::VMXOFF
                | Self::VMXON
                | Self::INVEPT
                | Self::INVVPID
        )
    }
}

numbered! {
    /// A VM-instruction error number (SDM Vol. 3D "VM Instruction Error Numbers").
    InstructionError(u32);
    VMCALL_IN_ROOT = 1 "VMCALL executed in VMX root operation";
    VMCLEAR_ADDRESS = 2 "VMCLEAR with invalid physical address";
    VMCLEAR_VMXON_POINTER = 3 "VMCLEAR with VMXON pointer";
    VMLAUNCH_NOT_CLEAR = 4 "VMLAUNCH with non-clear VMCS";
    VMRESUME_NOT_LAUNCHED = 5 "VMRESUME with non-launched VMCS";
    VMRESUME_AFTER_VMXOFF = 6 "VMRESUME after VMXOFF (VMXOFF and VMXON between VMLAUNCH and VMRESUME)";
    ENTRY_CONTROLS = 7 "VM entry with invalid control field(s)";
    ENTRY_HOST_STATE = 8 "VM entry with invalid host-state field(s)";
    VMPTRLD_ADDRESS = 9 "VMPTRLD with invalid physical address";
    VMPTRLD_VMXON_POINTER = 10 "VMPTRLD with VMXON pointer";
    VMPTRLD_REVISION = 11 "VMPTRLD with incorrect VMCS revision identifier";
    UNSUPPORTED_FIELD = 12 "VMREAD/VMWRITE from/to unsupported VMCS component";
    VMWRITE_READ_ONLY = 13 "VMWRITE to read-only VMCS component";
    VMXON_IN_ROOT = 15 "VMXON executed in VMX root operation";
    ENTRY_EXECUTIVE_POINTER = 16 "VM entry with invalid executive-VMCS pointer";
    ENTRY_EXECUTIVE_NOT_LAUNCHED = 17 "VM entry with non-launched executive VMCS";
    ENTRY_EXECUTIVE_NOT_VMXON_POINTER = 18 "VM entry with executive-VMCS pointer not VMXON pointer";
    VMCALL_NOT_CLEAR = 19 "VMCALL with non-clear VMCS";
    VMCALL_EXIT_CONTROLS = 20 "VMCALL with invalid VM-exit control fields";
    VMCALL_MSEG_REVISION = 22 "VMCALL with incorrect MSEG revision identifier";
    VMXOFF_DUAL_MONITOR = 23 "VMXOFF under dual-monitor treatment of SMIs and SMM";
    VMCALL_SMM_MONITOR = 24 "VMCALL with invalid SMM-monitor features";
    ENTRY_EXECUTIVE_CONTROLS = 25 "VM entry with invalid VM-execution control fields in executive VMCS";
    ENTRY_MOV_SS = 26 "VM entry with events blocked by MOV SS";
    INVEPT_INVVPID_OPERAND = 28 "invalid operand to INVEPT/INVVPID";
}
