//! What L2 does and what L1 intercepts, drawn from `Choices`: one list of draws is one pair of guest programs.

use rootmode_arch::{Choices, Site, Vendor, msr};

use super::l2::{SENSITIVE, Sensitive};
use super::layout::WINDOW_PAGES;

/// MSRs that L2 may access, with two well-formed values.
pub const MSRS: &[(u32, [u64; 2])] = &[
    (msr::IA32_KERNEL_GS_BASE, [0x1234_5000, 0xffff_8000_0000_1000]),
    (msr::IA32_SYSENTER_EIP, [0x7000, 0xffff_8000_0040_0000]),
    (msr::IA32_SYSENTER_ESP, [0x8000, 0x5_0000]),
    (msr::IA32_SYSENTER_CS, [0x10, 0x33]),
    (msr::IA32_STAR, [0x0023_0010_0000_0000, 0x0033_0008_0000_0000]),
    (msr::IA32_LSTAR, [0x1_2340, 0xffff_ffff_8100_0000]),
    (msr::IA32_FMASK, [0x4_7700, 0x200]),
    (msr::IA32_FS_BASE, [0x4_2000, 0x7fff_f000]),
    (msr::IA32_GS_BASE, [0x4_3000, 0xffff_8880_0000_0000]),
];

/// Ports that L2 may access; none has a device behind it.
pub const PORTS: &[u16] = &[0x60, 0x80, 0x3f8, 0x7fff, 0x8000, 0xcfc];

/// One thing that L2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Mixes its accumulator this many times.
    Compute {
        /// Rounds of the loop.
        rounds: u8,
    },
    /// CPUID.
    Cpuid {
        /// EAX.
        leaf: u32,
    },
    /// RDMSR; the value enters the accumulator.
    ReadMsr {
        /// ECX.
        index: u32,
    },
    /// WRMSR.
    WriteMsr {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// IN from a port.
    In {
        /// Port.
        port: u16,
        /// Bytes: 1, 2, 4.
        size: u8,
    },
    /// OUT of part of the accumulator.
    Out {
        /// Port.
        port: u16,
        /// Bytes: 1, 2, 4.
        size: u8,
    },
    /// VMCALL or VMMCALL; L1's answer enters the accumulator.
    Hypercall {
        /// Passed in RAX.
        number: u32,
    },
    /// Reads or writes a page of the window whose second-stage entries are chosen.
    Touch {
        /// Page of the window.
        page: u8,
        /// Write the accumulator rather than read.
        write: bool,
    },
    /// Reads or writes a linear page that L2's page table leaves absent: #PF.
    Fault {
        /// Page of the absent window.
        page: u8,
        /// Write rather than read.
        write: bool,
    },
    /// HLT, which L1 always intercepts.
    Halt,
    /// UD2.
    Undefined,
    /// INT3.
    Breakpoint,
    /// RDTSC; the value enters the accumulator.
    ReadTsc,
    /// Reads CR3 and writes it back.
    ReloadCr3,
    /// RDMSR of an MSR that does not exist: #GP.
    AbsentMsr,
    /// An instruction that a hypervisor may want to see.
    Execute {
        /// Which.
        instruction: &'static Sensitive,
    },
    /// Asks L1 to inject an event.
    Inject {
        /// Interruption information, or EVENTINJ; L1 goes by it as it is.
        event: u32,
    },
}

/// Kinds of [`Operation`]; those that come behind the first ones are as likely as all of these together.
const KINDS: u64 = 15;

/// What the second stage holds for a page before L2 first touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initially {
    /// Mapped with all permissions.
    Mapped,
    /// Not present.
    Absent,
    /// Present, not writable.
    ReadOnly,
    /// An entry that the processor rejects (EPT: writable but not readable; NPT: a reserved bit).
    Malformed,
}

/// What L1 intercepts, beyond what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    /// RDTSC exits.
    pub rdtsc: bool,
    /// MOV to CR3 exits.
    pub cr3_load: bool,
    /// MOV from CR3 exits.
    pub cr3_store: bool,
    /// CPUID exits (SVM; VMX has no choice).
    pub cpuid: bool,
    /// I/O permission maps rather than all ports exiting (SVM: no I/O intercept at all instead).
    pub io_map: bool,
    /// Ports of [`PORTS`] that exit, as a mask, when maps are used.
    pub ports: u64,
    /// MSRs of [`MSRS`] whose reads exit, as a mask.
    pub msr_reads: u64,
    /// MSRs of [`MSRS`] whose writes exit, as a mask.
    pub msr_writes: u64,
    /// Exception vectors that exit, as a mask.
    pub exceptions: u32,
    /// Added to what L2 reads as TSC.
    pub tsc_offset: u64,
    /// What exits once: L1 takes the intercept away and lets L2 go on. A mask over the vendor's list.
    pub once: u64,
    /// VPID or ASID, at least 1.
    pub tag: u16,
    /// Second-stage entries of pages 1 to 15 (tables, descriptor tables, stack, handlers) that start absent, as a mask.
    pub low_absent: u64,
    /// Second-stage entries of the window's pages.
    pub window: [Initially; WINDOW_PAGES as usize],
}

/// One pair of programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Whose extension L1 uses.
    pub vendor: Vendor,
    /// What L1 intercepts.
    pub controls: Controls,
    /// What L2 does, in order; a final hypercall follows, or a triple fault.
    pub operations: Vec<Operation>,
    /// What L1 tries before its first entry that cannot work, as a mask over the vendor's list.
    pub tries: u64,
    /// L2 ends with a triple fault.
    pub shutdown: bool,
}

/// Exceptions that L2 has handlers for and L1 may intercept: #BP, #UD, #GP, #PF, #DE, #DB, #NM.
const EXCEPTIONS: [u8; 7] = [3, 6, 13, 14, 0, 1, 7];

/// Events that L2 asks for: an external interrupt, an NMI, #UD, #GP, #PF, INT 33, INT3; VMX's INT1 and its pending MTF exit.
const EVENTS: [[u32; 9]; 2] = [
    [
        0x8000_0020,
        0x8000_0202,
        0x8000_0306,
        0x8000_0b0d,
        0x8000_0b0e,
        0x8000_0421,
        0x8000_0603,
        0x8000_0501,
        0x8000_0700,
    ],
    [
        0x8000_0020,
        0x8000_0202,
        0x8000_0306,
        0x8000_0b0d,
        0x8000_0b0e,
        0x8000_0421,
        0x8000_0303,
        0x8000_0300,
        0x8000_0301,
    ],
];

fn mask(choices: &mut dyn Choices, bits: u64) -> u64 {
    choices.choose(Site::Program, 1 << bits)
}

fn pick<T: Copy>(choices: &mut dyn Choices, from: &[T]) -> T {
    from[choices.choose(Site::Program, from.len() as u64) as usize]
}

impl Controls {
    fn draw(choices: &mut dyn Choices) -> Self {
        let mut flip = |yes_first: bool| (choices.choose(Site::Program, 2) == 1) != yes_first;
        let (rdtsc, cr3_load, cr3_store) = (flip(false), flip(true), flip(false));
        let (cpuid, io_map) = (flip(true), flip(true));
        let everything = (1 << PORTS.len()) - 1;
        let ports = everything ^ mask(choices, PORTS.len() as u64);
        // Tame: the even ones exit, the odd ones pass through.
        let msr_reads = 0b0_1010_1010 ^ mask(choices, MSRS.len() as u64);
        let msr_writes = 0b0_1100_1100 ^ mask(choices, MSRS.len() as u64);
        let exceptions = 0b0010 ^ mask(choices, EXCEPTIONS.len() as u64);
        let exceptions = EXCEPTIONS
            .iter()
            .enumerate()
            .filter(|(i, _)| exceptions >> i & 1 != 0)
            .map(|(_, v)| 1 << v)
            .sum();
        let once = mask(choices, 48);
        let tsc_offset = pick(choices, &[0x1_0000_0000, 0, 0xffff_ffff_ffff_f000]);
        let tag = 1 + choices.choose(Site::Program, 3) as u16;
        let low_absent = mask(choices, 16) & 0xfffe;
        let kinds = [Initially::Absent, Initially::Mapped, Initially::ReadOnly, Initially::Malformed];
        let window = core::array::from_fn(|_| pick(choices, &kinds));
        Self {
            rdtsc,
            cr3_load,
            cr3_store,
            cpuid,
            io_map,
            ports,
            msr_reads,
            msr_writes,
            exceptions,
            tsc_offset,
            once,
            tag,
            low_absent,
            window,
        }
    }
}

impl Operation {
    fn draw(vendor: Vendor, index: u64, choices: &mut dyn Choices) -> Self {
        match choices.choose(Site::Program, 4) {
            2 => {
                let number = choices.choose(Site::Program, SENSITIVE.len() as u64) as usize;
                return Self::Execute { instruction: &SENSITIVE[number] };
            }
            3 => return Self::Inject { event: pick(choices, &EVENTS[vendor as usize]) },
            _ => {}
        }
        // Always choosing 0 goes through all kinds in turn.
        let kind = (index + choices.choose(Site::Program, KINDS)) % KINDS;
        let size = |choices: &mut dyn Choices| pick(choices, &[1, 2, 4]);
        let write = |choices: &mut dyn Choices| choices.choose(Site::Program, 2) == 0;
        let page = |choices: &mut dyn Choices| choices.choose(Site::Program, WINDOW_PAGES) as u8;
        match kind {
            0 => Self::Cpuid { leaf: pick(choices, &[0, 1, 7, 0x8000_0001, 0x8000_0008, 0x4000_0000]) },
            1 => Self::ReadMsr { index: pick(choices, MSRS).0 },
            2 => {
                let (index, values) = pick(choices, MSRS);
                Self::WriteMsr { index, value: pick(choices, &values) }
            }
            3 => Self::In { port: pick(choices, PORTS), size: size(choices) },
            4 => Self::Out { port: pick(choices, PORTS), size: size(choices) },
            5 => Self::Hypercall { number: choices.choose(Site::Program, 256) as u32 },
            6 => Self::Touch { page: page(choices), write: write(choices) },
            7 => Self::Compute { rounds: 1 + choices.choose(Site::Program, 32) as u8 },
            8 => Self::Undefined,
            9 => Self::ReadTsc,
            10 => Self::ReloadCr3,
            11 => Self::Breakpoint,
            12 => Self::Fault { page: page(choices), write: write(choices) },
            13 => Self::AbsentMsr,
            _ => Self::Halt,
        }
    }
}

impl Workload {
    /// Draws a pair of programs; `operations` is the number of things that L2 does.
    pub fn draw(vendor: Vendor, operations: u64, choices: &mut dyn Choices) -> Self {
        let controls = Controls::draw(choices);
        let operations = (0..operations).map(|i| Operation::draw(vendor, i, choices)).collect();
        let tries = mask(choices, 18);
        // An L1 that injects #GP for want of a gate would do that for ever.
        let shutdown = choices.choose(Site::Program, 8) == 7 && controls.exceptions >> 13 & 1 == 0;
        Self { vendor, controls, operations, tries, shutdown }
    }
}
