//! The intercept vectors: 192 bits at the start of the VMCB, each with a name
//! (APM Vol. 2 (24593 rev. 3.43) "VMCB Layout", "Control Area").

use super::Field;

/// A bit of the intercept vectors: 32 times the vector's number plus the bit's. For all but the maps and a few events
/// it is also the exit code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Intercept(pub u8);

/// A row of the table of intercepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterceptRow {
    /// The bit.
    pub bit: Intercept,
    /// Name: that of the exit code without its prefix.
    pub name: &'static str,
    /// What it intercepts.
    pub text: &'static str,
}

macro_rules! intercepts {
    ($($name:ident = $bit:literal, $text:literal;)*) => {
        #[allow(missing_docs, reason = "each has its text")]
        impl Intercept {
            $(#[doc = concat!("Intercepts ", $text, ".")] pub const $name: Self = Self($bit);)*
        }

        /// Every named intercept, ascending.
        pub const INTERCEPTS: &[InterceptRow] =
            &[$(InterceptRow { bit: Intercept::$name, name: stringify!($name), text: $text }),*];
    };
}

intercepts! {
    CR0_READ = 0, "reads of CR0";
    CR1_READ = 1, "reads of CR1";
    CR2_READ = 2, "reads of CR2";
    CR3_READ = 3, "reads of CR3";
    CR4_READ = 4, "reads of CR4";
    CR5_READ = 5, "reads of CR5";
    CR6_READ = 6, "reads of CR6";
    CR7_READ = 7, "reads of CR7";
    CR8_READ = 8, "reads of CR8";
    CR9_READ = 9, "reads of CR9";
    CR10_READ = 10, "reads of CR10";
    CR11_READ = 11, "reads of CR11";
    CR12_READ = 12, "reads of CR12";
    CR13_READ = 13, "reads of CR13";
    CR14_READ = 14, "reads of CR14";
    CR15_READ = 15, "reads of CR15";
    CR0_WRITE = 16, "writes of CR0";
    CR1_WRITE = 17, "writes of CR1";
    CR2_WRITE = 18, "writes of CR2";
    CR3_WRITE = 19, "writes of CR3";
    CR4_WRITE = 20, "writes of CR4";
    CR5_WRITE = 21, "writes of CR5";
    CR6_WRITE = 22, "writes of CR6";
    CR7_WRITE = 23, "writes of CR7";
    CR8_WRITE = 24, "writes of CR8";
    CR9_WRITE = 25, "writes of CR9";
    CR10_WRITE = 26, "writes of CR10";
    CR11_WRITE = 27, "writes of CR11";
    CR12_WRITE = 28, "writes of CR12";
    CR13_WRITE = 29, "writes of CR13";
    CR14_WRITE = 30, "writes of CR14";
    CR15_WRITE = 31, "writes of CR15";
    DR0_READ = 32, "reads of DR0";
    DR1_READ = 33, "reads of DR1";
    DR2_READ = 34, "reads of DR2";
    DR3_READ = 35, "reads of DR3";
    DR4_READ = 36, "reads of DR4";
    DR5_READ = 37, "reads of DR5";
    DR6_READ = 38, "reads of DR6";
    DR7_READ = 39, "reads of DR7";
    DR8_READ = 40, "reads of DR8";
    DR9_READ = 41, "reads of DR9";
    DR10_READ = 42, "reads of DR10";
    DR11_READ = 43, "reads of DR11";
    DR12_READ = 44, "reads of DR12";
    DR13_READ = 45, "reads of DR13";
    DR14_READ = 46, "reads of DR14";
    DR15_READ = 47, "reads of DR15";
    DR0_WRITE = 48, "writes of DR0";
    DR1_WRITE = 49, "writes of DR1";
    DR2_WRITE = 50, "writes of DR2";
    DR3_WRITE = 51, "writes of DR3";
    DR4_WRITE = 52, "writes of DR4";
    DR5_WRITE = 53, "writes of DR5";
    DR6_WRITE = 54, "writes of DR6";
    DR7_WRITE = 55, "writes of DR7";
    DR8_WRITE = 56, "writes of DR8";
    DR9_WRITE = 57, "writes of DR9";
    DR10_WRITE = 58, "writes of DR10";
    DR11_WRITE = 59, "writes of DR11";
    DR12_WRITE = 60, "writes of DR12";
    DR13_WRITE = 61, "writes of DR13";
    DR14_WRITE = 62, "writes of DR14";
    DR15_WRITE = 63, "writes of DR15";
    EXCP_DE = 64, "#DE";
    EXCP_DB = 65, "#DB";
    EXCP_NMI = 66, "vector 2: not implemented";
    EXCP_BP = 67, "#BP";
    EXCP_OF = 68, "#OF";
    EXCP_BR = 69, "#BR";
    EXCP_UD = 70, "#UD";
    EXCP_NM = 71, "#NM";
    EXCP_DF = 72, "#DF";
    EXCP_9 = 73, "exception vector 9";
    EXCP_TS = 74, "#TS";
    EXCP_NP = 75, "#NP";
    EXCP_SS = 76, "#SS";
    EXCP_GP = 77, "#GP";
    EXCP_PF = 78, "#PF";
    EXCP_15 = 79, "exception vector 15";
    EXCP_MF = 80, "#MF";
    EXCP_AC = 81, "#AC";
    EXCP_MC = 82, "#MC";
    EXCP_XF = 83, "#XF";
    EXCP_20 = 84, "exception vector 20";
    EXCP_CP = 85, "#CP";
    EXCP_22 = 86, "exception vector 22";
    EXCP_23 = 87, "exception vector 23";
    EXCP_24 = 88, "exception vector 24";
    EXCP_25 = 89, "exception vector 25";
    EXCP_26 = 90, "exception vector 26";
    EXCP_27 = 91, "exception vector 27";
    EXCP_HV = 92, "#HV";
    EXCP_VC = 93, "#VC";
    EXCP_SX = 94, "#SX";
    EXCP_31 = 95, "exception vector 31";
    INTR = 96, "physical maskable interrupts";
    NMI = 97, "physical NMIs";
    SMI = 98, "SMIs";
    INIT = 99, "INIT";
    VINTR = 100, "virtual interrupts";
    CR0_SEL_WRITE = 101, "CR0 writes that change bits other than TS and MP";
    IDTR_READ = 102, "SIDT";
    GDTR_READ = 103, "SGDT";
    LDTR_READ = 104, "SLDT";
    TR_READ = 105, "STR";
    IDTR_WRITE = 106, "LIDT";
    GDTR_WRITE = 107, "LGDT";
    LDTR_WRITE = 108, "LLDT";
    TR_WRITE = 109, "LTR";
    RDTSC = 110, "RDTSC";
    RDPMC = 111, "RDPMC";
    PUSHF = 112, "PUSHF";
    POPF = 113, "POPF";
    CPUID = 114, "CPUID";
    RSM = 115, "RSM";
    IRET = 116, "IRET";
    SWINT = 117, "INT n";
    INVD = 118, "INVD";
    PAUSE = 119, "PAUSE";
    HLT = 120, "HLT";
    INVLPG = 121, "INVLPG";
    INVLPGA = 122, "INVLPGA";
    IOIO_PROT = 123, "IN and OUT of ports that the I/O permission map selects";
    MSR_PROT = 124, "RDMSR and WRMSR of MSRs that the MSR permission map selects";
    TASK_SWITCH = 125, "task switches";
    FERR_FREEZE = 126, "freezing on legacy FERR handling";
    SHUTDOWN = 127, "shutdown";
    VMRUN = 128, "VMRUN";
    VMMCALL = 129, "VMMCALL";
    VMLOAD = 130, "VMLOAD";
    VMSAVE = 131, "VMSAVE";
    STGI = 132, "STGI";
    CLGI = 133, "CLGI";
    SKINIT = 134, "SKINIT";
    RDTSCP = 135, "RDTSCP";
    ICEBP = 136, "INT1";
    WBINVD = 137, "WBINVD and WBNOINVD";
    MONITOR = 138, "MONITOR and MONITORX";
    MWAIT = 139, "MWAIT and MWAITX";
    MWAIT_CONDITIONAL = 140, "MWAIT and MWAITX while the monitor is armed";
    XSETBV = 141, "XSETBV";
    RDPRU = 142, "RDPRU";
    EFER_WRITE_TRAP = 143, "writes of EFER, after the instruction";
    CR0_WRITE_TRAP = 144, "writes of CR0, after the instruction";
    CR1_WRITE_TRAP = 145, "writes of CR1, after the instruction";
    CR2_WRITE_TRAP = 146, "writes of CR2, after the instruction";
    CR3_WRITE_TRAP = 147, "writes of CR3, after the instruction";
    CR4_WRITE_TRAP = 148, "writes of CR4, after the instruction";
    CR5_WRITE_TRAP = 149, "writes of CR5, after the instruction";
    CR6_WRITE_TRAP = 150, "writes of CR6, after the instruction";
    CR7_WRITE_TRAP = 151, "writes of CR7, after the instruction";
    CR8_WRITE_TRAP = 152, "writes of CR8, after the instruction";
    CR9_WRITE_TRAP = 153, "writes of CR9, after the instruction";
    CR10_WRITE_TRAP = 154, "writes of CR10, after the instruction";
    CR11_WRITE_TRAP = 155, "writes of CR11, after the instruction";
    CR12_WRITE_TRAP = 156, "writes of CR12, after the instruction";
    CR13_WRITE_TRAP = 157, "writes of CR13, after the instruction";
    CR14_WRITE_TRAP = 158, "writes of CR14, after the instruction";
    CR15_WRITE_TRAP = 159, "writes of CR15, after the instruction";
    INVLPGB = 160, "INVLPGB";
    INVLPGB_ILLEGAL = 161, "INVLPGB with illegal operands";
    INVPCID = 162, "INVPCID";
    MCOMMIT = 163, "MCOMMIT";
    TLBSYNC = 164, "TLBSYNC";
    BUSLOCK = 165, "bus locks once the counter is 0";
    IDLE_HLT = 166, "HLT while no virtual interrupt is pending";
}

impl Intercept {
    /// Reads of CR `n`, 0 to 15.
    pub const fn cr_read(n: u8) -> Self {
        Self(n & 15)
    }
    /// Writes of CR `n`, 0 to 15.
    pub const fn cr_write(n: u8) -> Self {
        Self(16 + (n & 15))
    }
    /// Reads of DR `n`, 0 to 15.
    pub const fn dr_read(n: u8) -> Self {
        Self(32 + (n & 15))
    }
    /// Writes of DR `n`, 0 to 15.
    pub const fn dr_write(n: u8) -> Self {
        Self(48 + (n & 15))
    }
    /// Exception vector `n`, 0 to 31.
    pub const fn exception(n: u8) -> Self {
        Self(64 + (n & 31))
    }
    /// Writes of CR `n`, 0 to 15, after the instruction.
    pub const fn cr_write_trap(n: u8) -> Self {
        Self(144 + (n & 15))
    }
    /// The VMCB field that holds the bit; `None` past the last vector.
    pub const fn field(self) -> Option<Field> {
        let word = self.0 as usize / 32;
        if word < 6 { Some(Intercepts::FIELDS[word]) } else { None }
    }
    /// The bit's number within its vector, 0 to 31.
    pub const fn bit_in_field(self) -> u8 {
        self.0 % 32
    }
    /// The bit's row, unless it is reserved.
    pub fn row(self) -> Option<&'static InterceptRow> {
        INTERCEPTS.iter().find(|row| row.bit == self)
    }
    /// The intercept called `name` in the table.
    pub fn from_name(name: &str) -> Option<Self> {
        INTERCEPTS.iter().find(|row| row.name == name).map(|row| row.bit)
    }
}

impl core::fmt::Debug for Intercept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "reserved intercept {}", self.0),
        }
    }
}

/// The six intercept vectors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Intercepts(pub [u32; 6]);

impl Intercepts {
    /// No intercept.
    pub const NONE: Self = Self([0; 6]);
    /// Bits 31:7 of vector 5 are reserved.
    pub const NAMED: Self = Self([!0, !0, !0, !0, !0, 0x7f]);
    /// The fields that hold the vectors.
    pub const FIELDS: [Field; 6] = [
        Field::InterceptCr,
        Field::InterceptDr,
        Field::InterceptException,
        Field::Intercept3,
        Field::Intercept4,
        Field::Intercept5,
    ];

    /// Whether `intercept` is set.
    #[inline(always)]
    pub const fn has(&self, intercept: Intercept) -> bool {
        let word = intercept.0 as usize / 32;
        word < 6 && self.0[word] >> (intercept.0 % 32) & 1 != 0
    }
    /// The vectors with `intercept` set.
    pub const fn with(mut self, intercept: Intercept) -> Self {
        self.0[intercept.0 as usize / 32] |= 1 << (intercept.0 % 32);
        self
    }
    /// The vectors with `intercept` clear.
    pub const fn without(mut self, intercept: Intercept) -> Self {
        self.0[intercept.0 as usize / 32] &= !(1 << (intercept.0 % 32));
        self
    }
    /// The set bits, ascending, reserved ones included.
    pub fn iter(&self) -> impl Iterator<Item = Intercept> + '_ {
        (0..192).map(Intercept).filter(|i| self.has(*i))
    }
}

impl core::fmt::Debug for Intercepts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
