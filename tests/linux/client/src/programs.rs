//! What the client's guests execute (`programs.s`): position-independent code that is copied to [`BASE`] and entered at its labels.
//!
//! A guest says what it saw by writing EAX to port [`REPORT`].
#![allow(unsafe_code, reason = "where the assembled code lies")]

/// Where the code lies in guest memory.
pub(crate) const BASE: u64 = 0x1_0000;
/// Where EAX is reported.
pub(crate) const REPORT: u16 = 0x500;

macro_rules! programs {
    ($($name:ident)*) => {
        /// A label of the code.
        #[allow(non_camel_case_types, reason = "the labels' own names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Program { $($name,)* }

        // The code begins with the offsets of its labels.
        std::arch::global_asm!(
            ".pushsection .rodata.rootmode_programs, \"a\"",
            ".balign 16",
            ".globl rootmode_programs",
            "rootmode_programs:",
            $(concat!(".long ", stringify!($name), " - rootmode_programs"),)*
            include_str!("programs.s"),
            ".globl rootmode_programs_end",
            "rootmode_programs_end:",
            ".popsection"
        );
    };
}

programs! {
    io string_io mmio cpuid msr msr_denied hlt window nmi page_fault exceptions step dirty read_only
    apic apic_timer apic_message x2apic loop_cpuid loop_io loop_mmio loop_msr loop_hlt loop_fault shutdown
    floating tables real real_end other_processor other_end start_other
    on_divide on_nmi on_invalid on_protection on_page_fault on_interrupt on_apic on_timer on_message
}

unsafe extern "C" {
    static rootmode_programs: u8;
    static rootmode_programs_end: u8;
}

/// The code.
pub(crate) fn code() -> &'static [u8] {
    let (begin, end) = (&raw const rootmode_programs, &raw const rootmode_programs_end);
    // SAFETY: both labels are of the one section above, in this order, and nobody writes to it.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

impl Program {
    /// Its offset in [`code`].
    pub(crate) fn offset(self) -> usize {
        let at = 4 * self as usize;
        let offset = code()[at..at + 4].try_into().map(u32::from_le_bytes);
        offset.expect("four bytes") as usize
    }

    /// Where it lies in guest memory.
    pub(crate) fn address(self) -> u64 {
        BASE + self.offset() as u64
    }
}
