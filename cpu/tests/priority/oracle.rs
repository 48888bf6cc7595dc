//! What comes in which order when several things wait at one instruction boundary (SDM Vol. 3A "Prioritization of
//! Concurrent Events", "Masking Exceptions and Interrupts When Switching Stacks", "Handling Multiple NMIs"; Vol. 3B "Debug
//! Exception Conditions"), as a walk over the manual's list. Nothing here comes from the processor.

/// The instruction before the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Previous {
    /// Loads RAX.
    Load,
    /// STI that sets IF.
    Sti,
    /// MOV SS from memory.
    MovSs,
}

/// The instruction behind the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nop,
    /// It lies on a page that is not present.
    Unfetchable,
    /// 16 bytes long.
    TooLong,
    /// UD2.
    Undefined,
    /// It reads a page that is not present.
    Faulting,
}

/// Everything that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) amd: bool,
    pub(crate) previous: Previous,
    pub(crate) next: Next,
    /// RFLAGS.TF during the previous instruction.
    pub(crate) single_step: bool,
    /// The previous instruction's operand has a data breakpoint (number 1).
    pub(crate) data_breakpoint: bool,
    /// The next instruction has a breakpoint (number 0).
    pub(crate) code_breakpoint: bool,
    pub(crate) nmi: bool,
    pub(crate) nmi_blocked: bool,
    pub(crate) interrupt: bool,
    /// RFLAGS.IF, where the previous instruction does not set it.
    pub(crate) enabled: bool,
    pub(crate) smi: bool,
}

/// One delivery: the vector, and for #DB what DR6 says (bits 3:0, and 14 for single step).
pub(crate) type Delivered = (u8, u64);

pub(crate) const INTERRUPT: u8 = 0x40;
const STEP: u64 = 0x4000;

/// What blocks events for one more instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shadow {
    None,
    Sti,
    MovSs,
}

/// The deliveries, in order. Handlers of NMIs, interrupts and #DB return; #DB's clears TF, and sets RF behind a code
/// breakpoint. Handlers of faults halt.
pub(crate) fn deliveries(case: &Case) -> Vec<Delivered> {
    let mut order = Vec::new();
    let mut shadow = match case.previous {
        Previous::Load => Shadow::None,
        Previous::Sti => Shadow::Sti,
        Previous::MovSs => Shadow::MovSs,
    };
    let enabled = case.enabled || case.previous == Previous::Sti;
    let (mut step, mut blocked) = (case.single_step, case.nmi_blocked);
    let (mut nmi, mut interrupt, mut code_breakpoint) = (case.nmi, case.interrupt, case.code_breakpoint);
    let mut trap = if case.data_breakpoint { 2 } else { 0 };
    // MOV SS makes no single-step trap of its own, and holds back its other traps.
    if step && shadow != Shadow::MovSs {
        trap |= STEP;
    }
    let mut next = Some(case.next);
    loop {
        // A handler that returns is interrupted by an NMI only: gates clear IF. Its IRET unblocks NMIs.
        let handler = |order: &mut Vec<Delivered>, nmi: &mut bool, blocked: &mut bool| {
            if *nmi && !*blocked {
                order.push((2, 0));
                *nmi = false;
            }
            *blocked = false;
        };
        if trap != 0 && shadow != Shadow::MovSs {
            order.push((1, std::mem::take(&mut trap)));
            (step, shadow) = (false, Shadow::None);
            handler(&mut order, &mut nmi, &mut blocked);
        } else if nmi && !blocked && shadow == Shadow::None {
            order.push((2, 0));
            nmi = false;
        } else if interrupt && enabled && shadow == Shadow::None {
            order.push((INTERRUPT, 0));
            interrupt = false;
            handler(&mut order, &mut nmi, &mut blocked);
        } else if code_breakpoint && next.is_some() && (case.amd || shadow != Shadow::MovSs) {
            order.push((1, 1));
            (code_breakpoint, step, shadow) = (false, false, Shadow::None);
            handler(&mut order, &mut nmi, &mut blocked);
        } else if let Some(instruction) = next.take() {
            let fault = match instruction {
                Next::Nop => None,
                Next::Unfetchable => Some(14),
                Next::TooLong => Some(13),
                Next::Undefined => Some(6),
                Next::Faulting => Some(14),
            };
            if let Some(vector) = fault {
                order.push((vector, 0));
                handler(&mut order, &mut nmi, &mut blocked);
                return order;
            }
            shadow = Shadow::None;
            if step {
                trap |= STEP;
            }
        } else {
            return order;
        }
    }
}
