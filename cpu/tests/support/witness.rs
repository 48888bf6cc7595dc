//! [`Witness`]: an extension that sees every exception before it is delivered, and stops the processor there.

use rootmode_arch::event::Exception;
use rootmode_arch::{Event, EventClass, EventClasses, Reaction, Stage, Vendor};
use rootmode_cpu::{Activity, Context, Cpu, Virtualization};
use rootmode_mmu::Digest;
use std::sync::{Arc, Mutex};

/// What came, in order.
pub type Seen = Arc<Mutex<Vec<Exception>>>;

/// Sees exceptions.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    seen: Seen,
    /// Lets this many exceptions be delivered before one stops the processor.
    pub passes: usize,
}

impl Witness {
    /// Makes `cpu` offer its exceptions, and answers who sees them and where they are noted.
    pub fn attach(cpu: &mut Cpu, passes: usize) -> (Box<dyn Virtualization>, Seen) {
        cpu.published.intercepts = EventClasses::NONE.with(EventClass::Exception);
        cpu.refresh();
        let witness = Self { passes, ..Self::default() };
        let seen = witness.seen.clone();
        (Box::new(witness), seen)
    }
}

impl Virtualization for Witness {
    fn vendor(&self) -> Vendor {
        Vendor::Intel
    }
    fn raise(&mut self, cpu: &mut Cpu, _: &mut Context<'_>, event: &Event, _: Stage) -> Reaction {
        let Event::Exception(exception) = event else { return Reaction::Proceed };
        let mut seen = self.seen.lock().expect("one thread runs a test");
        seen.push(*exception);
        if seen.len() <= self.passes {
            return Reaction::Proceed;
        }
        cpu.delivering = None;
        cpu.activity = Activity::Halted;
        cpu.refresh();
        Reaction::Exit
    }
    fn digest(&self, _: &mut Digest) {}
    fn clone_box(&self) -> Box<dyn Virtualization> {
        Box::new(self.clone())
    }
}
