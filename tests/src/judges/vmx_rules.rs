//! Our verdict on a VMX case: the rules of `rootmode-vmx` for the processor that the machine describes.

use std::sync::LazyLock;

use rootmode_arch::HostPhysical;
use rootmode_vmx::context::{EntryContext, Item, Memory, Processor};
use rootmode_vmx::definitions::exit_reason::InstructionError;
use rootmode_vmx::rules::{Judgement, Report, judge_all};
use rootmode_vmx::{Capabilities, ExitReason, Vmcs};

use super::arena::arena;
use super::batch::{Case, Way};
use super::layout::{ARENA, CONTROL_REGION, MEMORY_MIB, VMXON_REGION};
use super::transcript;
use super::verdict::{Stage, Violation};
use super::vmx_bases::Launch;

static ARENA_BYTES: LazyLock<Vec<u8>> = LazyLock::new(arena);

/// A machine's processor and capabilities, as our rules want them.
#[derive(Clone, Debug)]
pub struct Described {
    processor: Processor,
    /// Its capability MSRs.
    pub capabilities: Capabilities,
    revision: u64,
}

impl Described {
    /// The logical processor about to launch a guest in this way.
    #[must_use]
    pub fn processor_at(&self, way: Way) -> Processor {
        let mut processor = self.processor.clone();
        match way {
            Way::Launch => {}
            Way::Resume => processor.set(Item::IsResume, 1),
            Way::AfterMovSs => processor.set(Item::MovSsBlocking, 1),
            Way::WithoutVmcs => processor.set(Item::CurrentVmcs, u64::MAX),
            Way::Legacy => processor.set(Item::LongModeActive, 0),
        }
        processor
    }
}

/// Translates what the ROM printed; the processor is in 64-bit mode and VMX root operation, about to launch the region
/// that holds every case.
#[must_use]
pub fn describe(machine: &transcript::Processor) -> Described {
    let mut processor = Processor::unknown();
    for item in Item::ALL {
        processor.set(*item, 0);
    }
    processor.set(Item::PhysicalWidth, u64::from(machine.physical_address_bits()));
    // Neither of the models has five-level paging, and both report 48 bits.
    processor.set(Item::LinearWidth, 48);
    processor.set(Item::LongModeActive, 1);
    processor.set(Item::InVmxRoot, 1);
    processor.set(Item::CurrentVmcs, CONTROL_REGION);
    // Bochs is one of the processors that demand it.
    processor.set(Item::NmiNeedsNoSti, 1);
    processor.set_features(machine.features());
    Described {
        processor,
        capabilities: Capabilities::read(|index| Some(machine.msr(index))),
        revision: machine.msr(0x480) & 0x7fff_ffff,
    }
}

/// The rules that `launch`, which the ROM gets as `case`, breaks, in the order of the table.
///
/// `None` when a rule depends on memory whose content nobody decided.
#[must_use]
pub fn violations(described: &Described, launch: &Launch, case: &Case) -> Option<Vec<Violation>> {
    let mut vmcs = Vmcs::zeroed();
    for (encoding, value) in launch.vmcs.fields() {
        vmcs.write_encoding(encoding, value);
    }
    let memory = Decided::new(described, case);
    let processor = described.processor_at(launch.way);
    let context = EntryContext {
        vmcs: &vmcs,
        capabilities: &described.capabilities,
        processor: &processor,
        memory: &memory,
    };
    let mut violations = Some(Vec::new());
    judge_all(&context, |rule, judgement| match judgement {
        Judgement::Satisfied => {}
        Judgement::Unknown(_) => violations = None,
        Judgement::Violated { .. } => {
            if let Some(violations) = &mut violations {
                let stage = stage(rule.report_for(judgement));
                violations.push(Violation { rule: rule.id.to_owned(), stage });
            }
        }
    });
    violations
}

/// Where an entry that breaks a rule with this report ends.
pub(crate) fn stage(report: Report) -> Stage {
    match report {
        Report::Fail(InstructionError::ENTRY_HOST_STATE) => Stage::Host,
        Report::Fail(error) => Stage::Controls(u64::from(error.0)),
        Report::Exit { reason: ExitReason::MSR_LOADING, qualification } => Stage::MsrLoad(qualification),
        Report::Exit { qualification, .. } => Stage::Guest(qualification),
        Report::FailInvalid => Stage::Controls(0),
        // The ROM executes the instruction where it is allowed; should a rule say otherwise, it is a verdict that no
        // machine gives.
        Report::Exception(_) => Stage::Controls(u64::MAX),
    }
}

/// Memory as the ROM and the case leave it: words of the case, the arena, regions with a revision; zero elsewhere in low
/// memory and in the rest of RAM; unknown where the host keeps its own data and where there is no RAM.
#[derive(Clone, Debug)]
pub struct Decided {
    pokes: Vec<(u32, u64)>,
    revision: u64,
}

impl Decided {
    /// The memory of `case` on the machine that `described` tells of.
    #[must_use]
    pub fn new(described: &Described, case: &Case) -> Self {
        Self { pokes: case.pokes.clone(), revision: described.revision }
    }
}

impl Memory for Decided {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        let address = address.0;
        let poked = |&&(at, _): &&(u32, u64)| u64::from(at) == address;
        if let Some((_, value)) = self.pokes.iter().find(poked) {
            return Some(*value);
        }
        let in_arena = address.checked_sub(ARENA).and_then(|at| {
            let at = usize::try_from(at).ok()?;
            ARENA_BYTES.get(at..at.checked_add(8)?)
        });
        match address {
            _ if let Some(bytes) = in_arena => {
                Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
            }
            VMXON_REGION | CONTROL_REGION => Some(self.revision),
            0..0x4000 | 0x2_0000..0xA_0000 => Some(0),
            0x10_0000.. if address < MEMORY_MIB << 20 => Some(0),
            _ => None,
        }
    }
}
