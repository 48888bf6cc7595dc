//! Control, flag and debug registers: bit names as in SDM Vol. 3A "Control Registers", "Debug Registers"
//! (325462-083, Mar 2024) and APM Vol. 2 "System-Control Registers" (24593 rev. 3.42).

use crate::bits;

bits! {
    /// CR0.
    pub struct Cr0(u64) {
        PE = 0, "protection enable";
        MP = 1, "monitor coprocessor";
        EM = 2, "emulation";
        TS = 3, "task switched";
        ET = 4, "extension type, always 1";
        NE = 5, "numeric error";
        WP = 16, "write protect";
        AM = 18, "alignment mask";
        NW = 29, "not write-through";
        CD = 30, "cache disable";
        PG = 31, "paging";
    }
}

bits! {
    /// CR3: page-directory base, or PCID in bits 11:0 when CR4.PCIDE = 1.
    pub struct Cr3(u64) {
        PWT = 3, "page-level write-through";
        PCD = 4, "page-level cache disable";
        LAM_U57 = 61, "user LAM, 57-bit";
        LAM_U48 = 62, "user LAM, 48-bit";
    }
}

bits! {
    /// CR4.
    pub struct Cr4(u64) {
        VME = 0, "virtual-8086 mode extensions";
        PVI = 1, "protected-mode virtual interrupts";
        TSD = 2, "time-stamp disable";
        DE = 3, "debugging extensions";
        PSE = 4, "page size extensions";
        PAE = 5, "physical address extension";
        MCE = 6, "machine-check enable";
        PGE = 7, "page global enable";
        PCE = 8, "RDPMC at any privilege level";
        OSFXSR = 9, "FXSAVE and FXRSTOR supported by the system";
        OSXMMEXCPT = 10, "SIMD exceptions supported by the system";
        UMIP = 11, "user-mode instruction prevention";
        LA57 = 12, "57-bit linear addresses";
        VMXE = 13, "VMX enable";
        SMXE = 14, "SMX enable";
        FSGSBASE = 16, "RDFSBASE and relatives";
        PCIDE = 17, "process-context identifiers";
        OSXSAVE = 18, "XSAVE enabled by the system";
        KL = 19, "key locker";
        SMEP = 20, "supervisor-mode execution prevention";
        SMAP = 21, "supervisor-mode access prevention";
        PKE = 22, "protection keys for user pages";
        CET = 23, "control-flow enforcement";
        PKS = 24, "protection keys for supervisor pages";
        UINTR = 25, "user interrupts";
        LASS = 27, "linear-address-space separation";
        LAM_SUP = 28, "supervisor linear-address masking";
        FRED = 32, "flexible return and event delivery";
    }
}

bits! {
    /// IA32_EFER, MSR 0xC0000080.
    pub struct Efer(u64) {
        SCE = 0, "SYSCALL enable";
        LME = 8, "long mode enable";
        LMA = 10, "long mode active";
        NXE = 11, "no-execute enable";
        SVME = 12, "SVM enable";
        LMSLE = 13, "long mode segment limit enable";
        FFXSR = 14, "fast FXSAVE";
        TCE = 15, "translation cache extension";
        MCOMMIT = 17, "MCOMMIT enable";
        INTWB = 18, "interruptible WBINVD";
        UAIE = 20, "upper address ignore";
        AUTOIBRS = 21, "automatic IBRS";
    }
}

bits! {
    /// RFLAGS.
    pub struct RFlags(u64) {
        CF = 0, "carry";
        ONE = 1, "reserved, always 1";
        PF = 2, "parity";
        AF = 4, "auxiliary carry";
        ZF = 6, "zero";
        SF = 7, "sign";
        TF = 8, "trap";
        IF = 9, "interrupt enable";
        DF = 10, "direction";
        OF = 11, "overflow";
        NT = 14, "nested task";
        RF = 16, "resume";
        VM = 17, "virtual-8086 mode";
        AC = 18, "alignment check";
        VIF = 19, "virtual interrupt flag";
        VIP = 20, "virtual interrupt pending";
        ID = 21, "CPUID available";
    }
}

impl RFlags {
    /// Bits that must be 0: 63:22, 15, 5, 3.
    pub const RESERVED_ZERO: u64 = !0x3f_ffff | 1 << 15 | 1 << 5 | 1 << 3;

    /// I/O privilege level, 0 to 3.
    pub const fn iopl(self) -> u8 {
        (self.0 >> 12 & 3) as u8
    }
}

bits! {
    /// DR6.
    pub struct Dr6(u64) {
        B0 = 0, "breakpoint 0";
        B1 = 1, "breakpoint 1";
        B2 = 2, "breakpoint 2";
        B3 = 3, "breakpoint 3";
        BLD = 11, "bus lock detected, active low";
        BD = 13, "debug-register access";
        BS = 14, "single step";
        BT = 15, "task switch";
        RTM = 16, "transactional region, active low";
    }
}

bits! {
    /// DR7.
    pub struct Dr7(u64) {
        L0 = 0, "local enable 0";
        G0 = 1, "global enable 0";
        L1 = 2, "local enable 1";
        G1 = 3, "global enable 1";
        L2 = 4, "local enable 2";
        G2 = 5, "global enable 2";
        L3 = 6, "local enable 3";
        G3 = 7, "global enable 3";
        LE = 8, "local exact";
        GE = 9, "global exact";
        ONE = 10, "reserved, always 1";
        RTM = 11, "transactional debugging";
        GD = 13, "general detect";
    }
}

bits! {
    /// IA32_DEBUGCTL, MSR 0x1D9.
    pub struct DebugCtl(u64) {
        LBR = 0, "last branch records";
        BTF = 1, "single step on branches";
        BLD = 2, "bus-lock detection";
        TR = 6, "branch trace messages";
        BTS = 7, "branch trace store";
        BTINT = 8, "branch trace interrupt";
        BTS_OFF_OS = 9, "no BTS at CPL 0";
        BTS_OFF_USR = 10, "no BTS above CPL 0";
        FREEZE_LBRS_ON_PMI = 11, "freeze LBRs on PMI";
        FREEZE_PERFMON_ON_PMI = 12, "freeze counters on PMI";
        ENABLE_UNCORE_PMI = 13, "uncore PMI";
        FREEZE_WHILE_SMM = 14, "freeze while in SMM";
        RTM_DEBUG = 15, "RTM region debug";
    }
}

/// The sixteen general-purpose registers, numbered as instructions encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All sixteen, by number.
    pub const ALL: [Gpr; 16] = [
        Gpr::Rax,
        Gpr::Rcx,
        Gpr::Rdx,
        Gpr::Rbx,
        Gpr::Rsp,
        Gpr::Rbp,
        Gpr::Rsi,
        Gpr::Rdi,
        Gpr::R8,
        Gpr::R9,
        Gpr::R10,
        Gpr::R11,
        Gpr::R12,
        Gpr::R13,
        Gpr::R14,
        Gpr::R15,
    ];
    /// The register that instructions encode as `number` (0 to 15; higher bits are ignored).
    pub const fn from_number(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }
    /// The encoding, 0 to 15.
    pub const fn number(self) -> u8 {
        self as u8
    }
}
