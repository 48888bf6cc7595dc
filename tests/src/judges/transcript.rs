//! Reads what a ROM printed, together with what Bochs logged in between, into one outcome a case.

use rootmode_arch::FeatureSet;
use rootmode_arch::cpuid::TABLE;

/// What the ROM said about the processor before the first case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Index and value of each model-specific register printed.
    pub msrs: Vec<(u32, u64)>,
    /// Encodings of the VMCS fields that it does not have.
    pub missing_fields: Vec<u32>,
    /// Leaf and subleaf, and EAX, EBX, ECX, EDX, of each CPUID leaf printed.
    pub cpuid: Vec<((u32, u32), [u32; 4])>,
}

impl Processor {
    /// The value of model-specific register `index`, or zero when the ROM did not print it.
    #[must_use]
    pub fn msr(&self, index: u32) -> u64 {
        self.msrs.iter().find(|(known, _)| *known == index).map_or(0, |(_, value)| *value)
    }

    /// The bits of a control that must be 1 and those that may be, by its capability register (480H and on). The TRUE
    /// registers, where there are any, say which of the default-1 bits may be 0.
    #[must_use]
    pub fn settings(&self, capability: u32) -> (u64, u64) {
        let truth = match capability {
            0x481..=0x484 if self.msr(0x480) >> 55 & 1 != 0 => capability + 12,
            other => other,
        };
        (self.msr(truth) & 0xffff_ffff, self.msr(capability) >> 32)
    }

    /// EAX, EBX, ECX, EDX of a CPUID leaf; zeros when the ROM did not print it or the processor does not have it.
    #[must_use]
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let raw = |leaf, subleaf| {
            let found = self.cpuid.iter().find(|(known, _)| *known == (leaf, subleaf));
            found.map_or([0; 4], |(_, registers)| *registers)
        };
        // Beyond the largest leaf a processor repeats another one.
        let beyond = leaf > raw(leaf & 0x8000_0000, 0)[0] || leaf == 7 && subleaf > raw(7, 0)[0];
        if beyond { [0; 4] } else { raw(leaf, subleaf) }
    }

    /// The features of `rootmode-arch`'s table that the processor has.
    #[must_use]
    pub fn features(&self) -> FeatureSet {
        TABLE.iter().fold(FeatureSet::none(), |set, row| {
            let registers = self.cpuid(row.leaf, row.subleaf);
            let has = registers[row.output as usize] >> row.bit & 1 != 0;
            if has { set.with(row.feature) } else { set }
        })
    }

    /// MAXPHYADDR.
    #[must_use]
    pub fn physical_address_bits(&self) -> u8 {
        self.cpuid(0x8000_0008, 0)[0] as u8
    }
}

/// How a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The instruction failed: RFLAGS (CF and ZF) and the VM-instruction error.
    Failed {
        /// CF (bit 0) and ZF (bit 6).
        flags: u64,
        /// The VM-instruction error field.
        error: u64,
    },
    /// A VM exit or `#VMEXIT`: reason or code, and qualification or EXITINFO1.
    Exit {
        /// Exit reason, or EXITCODE.
        reason: u64,
        /// Exit qualification, or EXITINFO1.
        qualification: u64,
    },
    /// The machine stopped, or got stuck, before the case reported anything.
    Lost,
}

/// One case as the judging machine saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The identifier of the case in its batch.
    pub id: u32,
    /// How the launch ended.
    pub end: End,
    /// What the machine logged during the launch, first line first; empty for QEMU, which gives no reasons.
    pub logged: Vec<String>,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The processor, when the ROM got that far.
    pub processor: Processor,
    /// Whether the first case was reached.
    pub started: bool,
    /// Whether the last case was reached.
    pub finished: bool,
    /// The outcomes in order; the last one is [`End::Lost`] when the machine stopped within it.
    pub outcomes: Vec<Outcome>,
}

/// Reads a log.
///
/// Lines of Bochs look like `00000012345i[BIOS  ] TEXT`; those of its BIOS device are what the ROM printed, errors and
/// panics (`e`, `p`) of the processor are its reasons. A log without such prefixes is the ROM's output itself.
#[must_use]
pub fn read(log: &str) -> Transcript {
    let mut transcript = Transcript::default();
    for line in log.lines() {
        match Line::of(line) {
            Line::Printed(text) => transcript.printed(text),
            Line::Reason(text) => {
                if let Some(outcome) = transcript.outcomes.last_mut()
                    && outcome.end == End::Lost
                {
                    outcome.logged.push(text.to_owned());
                }
            }
            Line::Other => {}
        }
    }
    transcript
}

enum Line<'a> {
    Printed(&'a str),
    Reason(&'a str),
    Other,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Line<'a> {
        let Some((prefix, text)) = line.split_once("] ") else {
            return Line::Printed(line);
        };
        let Some((time_and_level, device)) = prefix.split_once('[') else {
            return Line::Printed(line);
        };
        match (time_and_level.chars().last(), device.trim()) {
            (_, "BIOS") => Line::Printed(text),
            (Some('e' | 'p'), "CPU0") => Line::Reason(text),
            _ => Line::Other,
        }
    }
}

impl Transcript {
    fn printed(&mut self, text: &str) {
        let mut words = text.split_ascii_whitespace();
        let kind = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| u64::from_str_radix(word, 16).ok()).collect();
        let Some(numbers) = numbers else { return };
        match (kind, numbers.as_slice()) {
            (Some("M"), &[index, value]) => self.processor.msrs.push((index as u32, value)),
            (Some("P"), &[leaf, subleaf, eax, ebx, ecx, edx]) => {
                let registers = [eax, ebx, ecx, edx].map(|register| register as u32);
                self.processor.cpuid.push(((leaf as u32, subleaf as u32), registers));
            }
            (Some("U"), &[encoding]) => self.processor.missing_fields.push(encoding as u32),
            (Some("S"), []) => self.started = true,
            (Some("E"), []) => self.finished = true,
            (Some("B"), &[id]) => {
                self.outcomes.push(Outcome { id: id as u32, end: End::Lost, logged: Vec::new() });
            }
            (Some("F"), &[flags, error]) => self.end(End::Failed { flags, error }),
            (Some("X"), &[reason, qualification]) => self.end(End::Exit { reason, qualification }),
            _ => {}
        }
    }

    fn end(&mut self, end: End) {
        if let Some(outcome) = self.outcomes.last_mut() {
            outcome.end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bochs_logs_during_a_launch_belongs_to_that_launch() {
        let log = "\
00000000001i[MEM0  ] something else\n\
00000000002i[BIOS  ] M 480 2B \n\
00000000003i[BIOS  ] S\n\
00000000004i[BIOS  ] B 0 \n\
00000000005e[CPU0  ] VMFAIL: first reason\n\
00000000006i[BIOS  ] F 40 7 \n\
00000000007e[CPU0  ] said between the cases\n\
00000000008i[BIOS  ] B 1 \n\
00000000009i[BIOS  ] X 80000021 4 \n\
00000000010i[BIOS  ] B A \n\
00000000011p[CPU0  ] >>PANIC<< broken\n";
        let transcript = read(log);
        assert_eq!((transcript.started, transcript.finished), (true, false));
        assert_eq!(transcript.processor.msr(0x480), 0x2b);
        let ends: Vec<_> = transcript.outcomes.iter().map(|o| (o.id, o.end, o.logged.len())).collect();
        assert_eq!(
            ends,
            [
                (0, End::Failed { flags: 0x40, error: 7 }, 1),
                (1, End::Exit { reason: 0x8000_0021, qualification: 4 }, 0),
                (10, End::Lost, 1),
            ]
        );
    }

    #[test]
    fn what_qemu_writes_is_the_output_itself() {
        let transcript = read("S\nB 0 \nX FFFFFFFF 0 \nE\n");
        assert!(transcript.finished);
        assert_eq!(transcript.outcomes[0].end, End::Exit { reason: 0xffff_ffff, qualification: 0 });
    }

    #[test]
    fn leaves_beyond_the_largest_are_not_believed() {
        let transcript = read("P 0 0 7 0 0 0 \nP 7 0 0 1 0 0 \nP 14 0 FF FF FF FF \nP 7 1 FF FF FF FF \n");
        assert_eq!(transcript.processor.cpuid(7, 0), [0, 1, 0, 0]);
        assert_eq!(transcript.processor.cpuid(7, 1), [0; 4], "subleaf 0 reports none above it");
        assert_eq!(transcript.processor.cpuid(0x14, 0), [0; 4]);
    }
}
