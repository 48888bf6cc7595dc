//! [`Sheet`]: everything that software can find out about a processor, asked of the processor itself.

use rootmode_arch::record::Level;
use rootmode_arch::{Vendor, msr};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Instruction, Outcome};
use serde::Serialize;

use super::{Processor, flag};

/// A processor's data sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sheet {
    /// Name and changes.
    pub cpu: String,
    /// Whose.
    pub vendor: Vendor,
    /// Family, with the extended family added (SDM Vol. 2A "CPUID—CPU Identification").
    pub family: u32,
    /// Model, with the extended model.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// MAXPHYADDR.
    pub physical_bits: u8,
    /// Flags of the features that it has, by CPUID leaf.
    pub features: Vec<String>,
    /// Flags of what the VMX capability MSRs report.
    pub vmx: Vec<String>,
    /// CPUID of the first processor after reset.
    pub cpuid: Vec<Leaf>,
    /// Every MSR that can be read or written after reset; those of the x2APIC in x2APIC mode.
    pub msrs: Vec<Register>,
    /// What the real part has and the simulator lacks.
    pub lacks: Vec<String>,
}

/// What CPUID answers; registers in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Leaf {
    pub leaf: String,
    pub subleaf: u32,
    pub eax: String,
    pub ebx: String,
    pub ecx: String,
    pub edx: String,
}

/// An MSR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Register {
    /// ECX of RDMSR, in hexadecimal.
    pub index: String,
    /// The manual's name, if the table has it.
    pub name: Option<&'static str>,
    /// What RDMSR answers, in hexadecimal; `None`: it faults.
    pub value: Option<String>,
    /// Whether WRMSR takes that value back (0 if there is none).
    pub writable: bool,
}

/// The ranges that permission maps know: no MSR is elsewhere (SDM Vol. 3C "MSR-Bitmap Address"; APM Vol. 2 "MSR Intercepts").
/// The x2APIC's registers are there in its mode only.
const RANGES: [(std::ops::Range<u32>, bool); 5] = [
    (0..0x800, false),
    (0x800..0x900, true),
    (0x900..0x2000, false),
    (0xc000_0000..0xc000_2000, false),
    (0xc001_0000..0xc001_2000, false),
];
/// IA32_APIC_BASE.EXTD: x2APIC mode.
const EXTD: u64 = 1 << 10;

impl Sheet {
    /// The sheet of `processor`.
    pub fn of(processor: &Processor) -> Self {
        let model = processor.model();
        let signature = model.signature();
        let (family, extended) = (signature >> 8 & 15, signature >> 20 & 0xff);
        let hex = |value: u32| format!("{value:#010x}");
        let leaf = |&(leaf, subleaf): &(u32, u32)| {
            let cr4 = Cpu::new(0, model.clone()).cr4;
            let [eax, ebx, ecx, edx] = model.cpuid(leaf, subleaf, cr4, 0).map(hex);
            Leaf { leaf: hex(leaf), subleaf, eax, ebx, ecx, edx }
        };
        Self {
            cpu: processor.text().to_owned(),
            vendor: processor.vendor(),
            family: if family == 15 { family + extended } else { family },
            model: signature >> 4 & 15 | (signature >> 16 & 15) << 4,
            stepping: signature & 15,
            physical_bits: model.physical_width(),
            features: model.features().iter().map(flag).collect(),
            vmx: processor.vmx_flags(),
            cpuid: model.leaves().keys().map(leaf).collect(),
            msrs: registers(processor),
            lacks: processor.lacks(),
        }
    }
}

/// A board with the processor alone, in x2APIC mode if it has that and `x2apic` asks for it.
fn board(processor: &Processor, x2apic: bool) -> Board {
    let mut board = Board::new();
    let cpu = Cpu::new(0, processor.model().clone());
    board.add_processor(cpu, processor.extension(Level::L1, None));
    if x2apic && let Some(base) = read(&mut board, msr::IA32_APIC_BASE) {
        // Without an x2APIC the bit is reserved, and its registers are not there.
        let _ = board.execute(0, &Instruction::Wrmsr { index: msr::IA32_APIC_BASE, value: base | EXTD });
    }
    board
}

fn read(board: &mut Board, index: u32) -> Option<u64> {
    match board.execute(0, &Instruction::Rdmsr { index }) {
        Ok(Outcome::Value(value)) => Some(value),
        _ => None,
    }
}

fn registers(processor: &Processor) -> Vec<Register> {
    let mut all = Vec::new();
    for (range, x2apic) in RANGES {
        let mut fresh = board(processor, x2apic);
        for index in range {
            let value = read(&mut fresh, index);
            let write = Instruction::Wrmsr { index, value: value.unwrap_or(0) };
            let writable = fresh.execute(0, &write).is_ok();
            if writable {
                // Whatever the write did, the next MSR is asked after reset.
                fresh = board(processor, x2apic);
            }
            if value.is_some() || writable {
                let value = value.map(|value| format!("{value:#018x}"));
                all.push(Register {
                    index: format!("{index:#010x}"),
                    name: msr::name(index),
                    value,
                    writable,
                });
            }
        }
    }
    all
}
