//! Bits of the VMCB's control fields: virtual interrupts, enables, TLB control, clean bits, injected events.

use super::Field;
use rootmode_arch::bits;

bits! {
    /// VINTR_CONTROL, Linux's `int_ctl`: byte 0x60 (APM Vol. 2 (24593 rev. 3.43) "VMCB Layout"). Bits 3:0 are V_TPR,
    /// 19:16 V_INTR_PRIO.
    pub struct IntCtl(u32) {
        V_IRQ = 8, "a virtual interrupt is pending";
        V_GIF = 9, "virtual global interrupt flag";
        V_NMI = 11, "a virtual NMI is pending";
        V_NMI_MASK = 12, "virtual NMIs are masked";
        V_IGN_TPR = 20, "the pending virtual interrupt ignores V_TPR";
        V_INTR_MASKING = 24, "EFLAGS.IF and CR8 are virtual";
        V_GIF_ENABLE = 25, "virtual GIF is enabled";
        V_NMI_ENABLE = 26, "NMI virtualization is enabled";
        X2AVIC_ENABLE = 30, "x2AVIC is enabled";
        AVIC_ENABLE = 31, "AVIC is enabled";
    }
}

impl IntCtl {
    /// Bits that should be zero: 7:4, 10, 15:13, 23:21, 29:27.
    pub const RESERVED: u32 = 0x38e0_e4f0;

    /// The virtual task priority, 0 to 15.
    pub const fn v_tpr(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// The priority of the pending virtual interrupt, 0 to 15.
    pub const fn v_intr_prio(self) -> u8 {
        (self.0 >> 16 & 15) as u8
    }
    /// This value with V_TPR replaced by the low four bits of `tpr`.
    pub const fn with_v_tpr(self, tpr: u8) -> Self {
        Self(self.0 & !15 | (tpr & 15) as u32)
    }
    /// This value with V_INTR_PRIO replaced by the low four bits of `priority`.
    pub const fn with_v_intr_prio(self, priority: u8) -> Self {
        Self(self.0 & !(15 << 16) | ((priority & 15) as u32) << 16)
    }
}

bits! {
    /// The enables at byte 0x90, Linux's `nested_ctl`.
    pub struct NestedControl(u64) {
        NP_ENABLE = 0, "nested paging";
        SEV_ENABLE = 1, "secure encrypted virtualization";
        SEV_ES_ENABLE = 2, "encrypted state";
        GMET_ENABLE = 3, "guest mode execute trap";
        SSS_CHECK_ENABLE = 4, "supervisor shadow-stack restrictions in nested page tables";
        VTE_ENABLE = 5, "virtual transparent encryption";
        ROGPT_ENABLE = 6, "read-only guest page tables";
        INVLPGB_ENABLE = 7, "INVLPGB and TLBSYNC in the guest";
    }
}

bits! {
    /// The enables at byte 0xb8, Linux's `virt_ext`.
    pub struct VirtExt(u64) {
        LBR_ENABLE = 0, "LBR virtualization";
        VMLOAD_VMSAVE_ENABLE = 1, "VMLOAD and VMSAVE virtualization";
        IBS_ENABLE = 2, "IBS virtualization";
        PMC_ENABLE = 3, "PMC virtualization";
    }
}

/// What VMRUN flushes (APM Vol. 2 (24593 rev. 3.43) "TLB Flush").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TlbControl {
    /// Nothing.
    Nothing = 0,
    /// All entries of all ASIDs.
    FlushAll = 1,
    /// This guest's entries.
    FlushGuest = 3,
    /// This guest's non-global entries.
    FlushGuestNonGlobal = 7,
}

impl TlbControl {
    /// Every defined command.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::FlushAll, Self::FlushGuest, Self::FlushGuestNonGlobal];

    /// The command with this encoding; `None` if it is reserved.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Nothing),
            1 => Some(Self::FlushAll),
            3 => Some(Self::FlushGuest),
            7 => Some(Self::FlushGuestNonGlobal),
            _ => None,
        }
    }
    /// Whether the command needs FlushByAsid (CPUID 0x8000000a EDX bit 6).
    pub const fn needs_flush_by_asid(self) -> bool {
        matches!(self, Self::FlushGuest | Self::FlushGuestNonGlobal)
    }
}

bits! {
    /// VMCB clean bits: what did not change since the last exit of this VMCB
    /// (APM Vol. 2 (24593 rev. 3.43) "VMCB Clean Field"). [`CLEAN_ROWS`] says which fields each bit covers.
    pub struct Clean(u32) {
        I = 0, "intercepts, TSC offset, PAUSE filter";
        IOPM = 1, "permission map addresses";
        ASID = 2, "ASID";
        TPR = 3, "virtual interrupt";
        NP = 4, "nested paging";
        CRX = 5, "control registers, EFER";
        DRX = 6, "DR6, DR7";
        DT = 7, "GDT, IDT";
        SEG = 8, "segments, CPL";
        CR2 = 9, "CR2";
        LBR = 10, "last branch records";
        AVIC = 11, "AVIC pointers";
        CET = 12, "shadow stacks";
        SOFTWARE = 31, "never used by the processor; Hyper-V: nested enlightenments unchanged";
    }
}

/// What a clean bit covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanRow {
    /// The bit.
    pub bit: Clean,
    /// The fields that the processor need not read while the bit is set.
    pub fields: &'static [Field],
}

/// Every hardware clean bit with its fields. Fields in no row are read by every VMRUN: TLB_CONTROL, interrupt shadow,
/// event injection, RFLAGS, RIP, RSP, RAX, and those that only exits write.
pub const CLEAN_ROWS: &[CleanRow] = &[
    CleanRow {
        bit: Clean::I,
        fields: &[
            Field::InterceptCr,
            Field::InterceptDr,
            Field::InterceptException,
            Field::Intercept3,
            Field::Intercept4,
            Field::Intercept5,
            Field::PauseFilterThreshold,
            Field::PauseFilterCount,
            Field::TscOffset,
        ],
    },
    CleanRow { bit: Clean::IOPM, fields: &[Field::IopmBase, Field::MsrpmBase] },
    CleanRow { bit: Clean::ASID, fields: &[Field::Asid] },
    CleanRow { bit: Clean::TPR, fields: &[Field::IntCtl, Field::IntVector] },
    CleanRow { bit: Clean::NP, fields: &[Field::NestedCr3, Field::GPat] },
    CleanRow { bit: Clean::CRX, fields: &[Field::Cr0, Field::Cr3, Field::Cr4, Field::Efer] },
    CleanRow { bit: Clean::DRX, fields: &[Field::Dr6, Field::Dr7] },
    CleanRow {
        bit: Clean::DT,
        fields: &[Field::GdtrLimit, Field::GdtrBase, Field::IdtrLimit, Field::IdtrBase],
    },
    CleanRow {
        bit: Clean::SEG,
        fields: &[
            Field::CsSelector,
            Field::CsAttrib,
            Field::CsLimit,
            Field::CsBase,
            Field::DsSelector,
            Field::DsAttrib,
            Field::DsLimit,
            Field::DsBase,
            Field::SsSelector,
            Field::SsAttrib,
            Field::SsLimit,
            Field::SsBase,
            Field::EsSelector,
            Field::EsAttrib,
            Field::EsLimit,
            Field::EsBase,
            Field::Cpl,
        ],
    },
    CleanRow { bit: Clean::CR2, fields: &[Field::Cr2] },
    CleanRow {
        bit: Clean::LBR,
        fields: &[Field::Dbgctl, Field::BrFrom, Field::BrTo, Field::LastExcpFrom, Field::LastExcpTo],
    },
    CleanRow {
        bit: Clean::AVIC,
        fields: &[
            Field::AvicApicBar,
            Field::AvicBackingPage,
            Field::AvicLogicalTable,
            Field::AvicPhysicalTable,
        ],
    },
    CleanRow { bit: Clean::CET, fields: &[Field::SCet, Field::Ssp, Field::IsstAddr] },
];

/// The kind of an event in EVENTINJ and EXITINTINFO (APM Vol. 2 (24593 rev. 3.43) "Event Injection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// External or virtual interrupt.
    Interrupt = 0,
    /// NMI; the vector is ignored.
    Nmi = 2,
    /// Fault or trap, INT1, INT3 and INTO included.
    Exception = 3,
    /// INT n.
    SoftwareInterrupt = 4,
}

impl EventKind {
    /// The kind with this encoding; `None` if it is reserved.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Interrupt),
            2 => Some(Self::Nmi),
            3 => Some(Self::Exception),
            4 => Some(Self::SoftwareInterrupt),
            _ => None,
        }
    }
}

/// EVENTINJ or EXITINTINFO: bits 7:0 vector, 10:8 type, 11 error code valid, 31 valid; 63:32 error code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct EventInfo(pub u64);

impl EventInfo {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Bits 30:12, which should be zero.
    pub const RESERVED: u64 = 0x7fff_f000;
    /// Bit 31.
    pub const VALID: u64 = 1 << 31;
    /// Bit 11.
    pub const ERROR_CODE_VALID: u64 = 1 << 11;

    /// A valid event.
    pub const fn new(kind: EventKind, vector: u8, error_code: Option<u32>) -> Self {
        let base = Self::VALID | (kind as u64) << 8 | vector as u64;
        Self(match error_code {
            Some(code) => base | Self::ERROR_CODE_VALID | (code as u64) << 32,
            None => base,
        })
    }
    /// From the two halves that the VMCB's fields hold.
    pub const fn from_halves(info: u32, error_code: u32) -> Self {
        Self(info as u64 | (error_code as u64) << 32)
    }
    /// Whether there is an event.
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }
    /// The vector field.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }
    /// The type field, 0 to 7.
    pub const fn type_bits(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }
    /// The kind, unless the type is reserved.
    pub const fn kind(self) -> Option<EventKind> {
        EventKind::from_bits(self.type_bits())
    }
    /// The error code, if the event has one.
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & Self::ERROR_CODE_VALID != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
}

impl core::fmt::Debug for EventInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if !self.is_valid() {
            return write!(f, "EventInfo({:#x}, not valid)", self.0);
        }
        write!(f, "EventInfo({:#x}: ", self.0)?;
        match self.kind() {
            Some(kind) => write!(f, "{kind:?}")?,
            None => write!(f, "reserved type {}", self.type_bits())?,
        }
        write!(f, " {:#x}", self.vector())?;
        match self.error_code() {
            Some(code) => write!(f, ", error code {code:#x})"),
            None => f.write_str(")"),
        }
    }
}
