//! How the author of a hypervisor links the rules: `explain_failed_entry` asks, on the real machine, why an entry failed.
//!
//! Only `core` and the `no_std` half of the crate are used, no allocation; in a kernel, `vmread`, `rdmsr` and `physical` are a few
//! lines of assembly each. Here a pretended processor answers, so that it runs anywhere:
//! `cargo run -p rootmode-vmx --no-default-features --example hypervisor_skeleton`.

use core::fmt::{self, Write};
use rootmode_arch::HostPhysical;
use rootmode_vmx::boundary::{State, bases::BASES};
use rootmode_vmx::context::NoMemory;
use rootmode_vmx::rules::{self, Correction, MANUAL, Place};
use rootmode_vmx::{
    Capabilities, EntryContext, ExitReason, Field, Item, Judgement, Memory, Processor, Vmcs, judge_all,
};

/// Says on `console` which rules the current VMCS breaks, what each would need, and what could not be judged.
///
/// `vmread` takes an encoding; `rdmsr` a capability MSR's number; both answer `None` for what the processor lacks.
fn explain_failed_entry(
    vmread: impl Fn(u32) -> Option<u64>,
    rdmsr: impl Fn(u32) -> Option<u64>,
    processor: &Processor,
    memory: &dyn Memory,
    console: &mut impl Write,
) -> fmt::Result {
    let vmcs = Vmcs::read(|field| vmread(field.encoding()));
    let capabilities = Capabilities::read(rdmsr);
    let context = EntryContext { vmcs: &vmcs, capabilities: &capabilities, processor, memory };
    let mut unknown = 0;
    let mut result = Ok(());
    judge_all(&context, |rule, judgement| match judgement {
        Judgement::Satisfied => {}
        Judgement::Unknown(_) => unknown += 1,
        Judgement::Violated { .. } => {
            result = result.and_then(|()| {
                writeln!(console, "{}: {}", rule.id, rule.demand)?;
                writeln!(console, "    {MANUAL} \"{}\"", rule.group.title())?;
                for field in rule.fields {
                    writeln!(console, "    {} = {:#x}", field.row().linux, vmcs.value(*field))?;
                }
                match rules::nearest(rule, &context) {
                    Some(Correction { place: Place::Field(field), value, .. }) => {
                        writeln!(console, "    nearest: {} = {value:#x}", field.row().linux)
                    }
                    Some(Correction { place: Place::Processor(item), value, .. }) => {
                        writeln!(console, "    nearest: {}: {value:#x}", item.text())
                    }
                    Some(Correction { place: Place::Memory(address), value, .. }) => {
                        writeln!(console, "    nearest: memory at {address:#x}: {value:#x}")
                    }
                    None => Ok(()),
                }
            });
        }
    });
    result?;
    writeln!(console, "{unknown} of {} rules could not be judged", rules::RULES.len())
}

/// The loop of a hypervisor: enter, and explain if the entry failed.
fn run(machine: &Machine, console: &mut impl Write) -> fmt::Result {
    match machine.vmlaunch() {
        Ok(()) => writeln!(console, "the guest runs"),
        Err(reason) => {
            writeln!(console, "VM entry failed, exit reason {reason:#x}")?;
            let vmread = |encoding| machine.0.vmcs.read_encoding(encoding);
            let rdmsr = |index| machine.0.capabilities.get(index);
            explain_failed_entry(vmread, rdmsr, &this_processor(), &NoMemory, console)
        }
    }
}

/// What the kernel knows about the processor it runs on, from CPUID and from its own state.
fn this_processor() -> Processor {
    Processor::unknown()
        .with(Item::PhysicalWidth, 46)
        .with(Item::LinearWidth, 57)
        .with(Item::LongModeActive, 1)
        .with(Item::InSmm, 0)
        .with(Item::CurrentVmcs, HostPhysical(0x1000).0)
}

/// The pretended processor: where a kernel has VMLAUNCH, it asks the same rules.
struct Machine(State);

impl Machine {
    fn vmlaunch(&self) -> Result<(), u32> {
        rootmode_vmx::check_entry(&self.0.context())
            .map_err(|refusal| refusal.report.exit_reason().unwrap_or(u32::from(ExitReason::VMLAUNCH.0)))
    }
}

/// Standard output as the kernel's console.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print!("{text}");
        Ok(())
    }
}

fn main() -> fmt::Result {
    let mut state = (BASES[0].build)();
    run(&Machine(state.clone()), &mut Console)?;
    // Two classic mistakes: a TSS that is not busy, and RFLAGS of zero.
    state.vmcs.set(Field::GuestTrRights, 0x89);
    state.vmcs.set(Field::GuestRflags, 0);
    run(&Machine(state), &mut Console)
}
