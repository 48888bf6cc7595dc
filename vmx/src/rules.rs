//! The rules of VM entry: one table, in hardware's order
//! (SDM Vol. 3C (325384-083, Mar 2024), chapter "VM Entries").
//!
//! Each [`Rule`] is one sentence of the manual. [`judge_all`] asks all of them; [`check_entry`] stops at the first that
//! is broken, as the processor does. Both are generated from the same rows, so they cannot disagree.
//!
//! **Order.** Basic checks, controls (VM-execution, VM-exit, VM-entry), host state, guest state, MSR loading. The manual
//! lets a processor check controls and host state in any order, and the guest state in any order; there, the
//! table's order (that of the manual's sections and sentences; segment by segment among the segment registers) decides.
//!
//! **Overlap.** A rule whose precondition another rule already demands holds when the precondition is broken, so that each
//! rule can be violated alone.
//!
//! **Mutation.** A [`Rule`] is a value: [`Rule::judge`] can be asked about any context, so a mutant is a row left out, its answer
//! negated, or the rule asked about a VMCS in which one of the fields that it reads ([`Rule::reads`]) is changed.
//!
//! **Latitude.** Where processors differ ("a processor may require ..."), a processor value decides: [`Item::NmiNeedsNoSti`].
//! What the manual leaves to the model (reserved bits of IA32_PERF_GLOBAL_CTRL and IA32_RTIT_CTL) is one too.
//!
//! **Not here.** Checks of VM entries that return from SMM or use the executive VMCS (chapter "System Management Mode"), and
//! processors without Intel 64 architecture.

mod basic;
mod entry_controls;
mod execution_controls;
mod exit_controls;
mod guest_registers;
mod guest_rip;
mod guest_segments;
mod host_registers;
mod host_segments;
mod msr_load;
mod nearest;
mod non_register;
mod passed;
mod pdptes;
mod view;

pub(crate) use nearest::candidates;
pub use nearest::{Correction, Place, corrections, nearest};
pub use passed::Passed;
pub use view::{Missing, Reads, View};

use crate::context::{EntryContext, Item};
use crate::definitions::exit_reason::{ExitReason, InstructionError};
use crate::definitions::field::Field;

/// The section of the manual that a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// "Basic VM-Entry Checks".
    Basic,
    /// "VM-Execution Control Fields".
    ExecutionControls,
    /// "VM-Exit Control Fields".
    ExitControls,
    /// "VM-Entry Control Fields".
    EntryControls,
    /// "Checks on Host Control Registers, MSRs, and SSP".
    HostRegisters,
    /// "Checks on Host Segment and Descriptor-Table Registers".
    HostSegments,
    /// "Checks Related to Address-Space Size".
    AddressSpace,
    /// "Checks on Guest Control Registers, Debug Registers, and MSRs".
    GuestRegisters,
    /// "Checks on Guest Segment Registers".
    GuestSegments,
    /// "Checks on Guest Descriptor-Table Registers".
    GuestDescriptorTables,
    /// "Checks on Guest RIP, RFLAGS, and SSP".
    GuestRip,
    /// "Checks on Guest Non-Register State".
    NonRegister,
    /// "Checks on Guest Page-Directory-Pointer-Table Entries".
    Pdptes,
    /// "Loading MSRs".
    MsrLoading,
}

impl Group {
    /// Every group, in hardware's order.
    pub const ALL: [Group; 14] = [
        Self::Basic,
        Self::ExecutionControls,
        Self::ExitControls,
        Self::EntryControls,
        Self::HostRegisters,
        Self::HostSegments,
        Self::AddressSpace,
        Self::GuestRegisters,
        Self::GuestSegments,
        Self::GuestDescriptorTables,
        Self::GuestRip,
        Self::NonRegister,
        Self::Pdptes,
        Self::MsrLoading,
    ];

    /// The manual's section title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Basic => "Basic VM-Entry Checks",
            Self::ExecutionControls => "VM-Execution Control Fields",
            Self::ExitControls => "VM-Exit Control Fields",
            Self::EntryControls => "VM-Entry Control Fields",
            Self::HostRegisters => "Checks on Host Control Registers, MSRs, and SSP",
            Self::HostSegments => "Checks on Host Segment and Descriptor-Table Registers",
            Self::AddressSpace => "Checks Related to Address-Space Size",
            Self::GuestRegisters => "Checks on Guest Control Registers, Debug Registers, and MSRs",
            Self::GuestSegments => "Checks on Guest Segment Registers",
            Self::GuestDescriptorTables => "Checks on Guest Descriptor-Table Registers",
            Self::GuestRip => "Checks on Guest RIP, RFLAGS, and SSP",
            Self::NonRegister => "Checks on Guest Non-Register State",
            Self::Pdptes => "Checks on Guest Page-Directory-Pointer-Table Entries",
            Self::MsrLoading => "Loading MSRs",
        }
    }

    /// What the processor reports when a rule of the group is broken, unless the rule says otherwise.
    pub const fn report(self) -> Report {
        match self {
            Self::Basic => Report::FailInvalid,
            Self::ExecutionControls | Self::ExitControls | Self::EntryControls => {
                Report::Fail(InstructionError::ENTRY_CONTROLS)
            }
            Self::HostRegisters | Self::HostSegments | Self::AddressSpace => {
                Report::Fail(InstructionError::ENTRY_HOST_STATE)
            }
            Self::MsrLoading => Report::Exit { reason: ExitReason::MSR_LOADING, qualification: 0 },
            Self::Pdptes => Report::Exit { reason: ExitReason::INVALID_GUEST_STATE, qualification: 2 },
            _ => Report::Exit { reason: ExitReason::INVALID_GUEST_STATE, qualification: 0 },
        }
    }
}

/// The manual and edition that the rules cite; the section is [`Group::title`].
pub const MANUAL: &str = "SDM Vol. 3C (325384-083, Mar 2024)";

/// What the processor does when VM entry fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// The instruction causes an exception: vector, and error code 0 if the vector has one.
    Exception(u8),
    /// VMfailInvalid: CF is 1.
    FailInvalid,
    /// VMfailValid: ZF is 1, and the VM-instruction error field gets the number.
    Fail(InstructionError),
    /// A VM exit with bit 31 of the exit reason set. For MSR loading the qualification is the 1-based index of the entry.
    Exit {
        /// The basic exit reason.
        reason: ExitReason,
        /// The exit qualification.
        qualification: u64,
    },
}

impl Report {
    /// The exit-reason field, with bit 31 set, if there is an exit.
    pub const fn exit_reason(self) -> Option<u32> {
        match self {
            Self::Exit { reason, .. } => Some(reason.0 as u32 | ExitReason::ENTRY_FAILURE),
            _ => None,
        }
    }
    /// The VM-instruction error field, if VMfailValid.
    pub const fn instruction_error(self) -> Option<u32> {
        match self {
            Self::Fail(error) => Some(error.0),
            _ => None,
        }
    }
}

/// What a check finds, when everything that it reads is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The demand is met.
    Satisfied,
    /// It is not.
    Violated,
    /// It is not met by the entry with this 1-based index of the VM-entry MSR-load area.
    ViolatedAt(u32),
}

impl From<bool> for Outcome {
    #[inline(always)]
    fn from(holds: bool) -> Self {
        if holds { Self::Satisfied } else { Self::Violated }
    }
}

/// The answer of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The demand is met.
    Satisfied,
    /// It is not.
    Violated {
        /// For rules on the VM-entry MSR-load area: the 1-based index of the first entry that breaks the rule.
        index: Option<u32>,
    },
    /// It cannot be judged because this is not known.
    Unknown(Missing),
}

impl Judgement {
    /// Whether the rule is violated.
    pub const fn is_violated(self) -> bool {
        matches!(self, Self::Violated { .. })
    }
    /// Whether the rule is satisfied.
    pub const fn is_satisfied(self) -> bool {
        matches!(self, Self::Satisfied)
    }
}

/// One rule of VM entry.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Stable identifier, such as `vmx.guest.cs.type`.
    pub id: &'static str,
    /// What is demanded, in one sentence.
    pub demand: &'static str,
    /// The section that it comes from.
    pub group: Group,
    /// The VMCS fields that the demand is about. (What else a check read on a given state: [`Rule::reads`].)
    pub fields: &'static [Field],
    /// The processor values that the demand is about.
    pub items: &'static [Item],
    /// What the processor reports.
    pub report: Report,
    check: fn(&View<'_, true>) -> Result<Outcome, Missing>,
}

impl Rule {
    /// The rule called `id`.
    pub fn from_id(id: &str) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.id == id)
    }
    /// Asks the rule about `context`.
    pub fn judge(&self, context: &EntryContext<'_>) -> Judgement {
        match (self.check)(&View::new(context)) {
            Ok(Outcome::Satisfied) => Judgement::Satisfied,
            Ok(Outcome::Violated) => Judgement::Violated { index: None },
            Ok(Outcome::ViolatedAt(index)) => Judgement::Violated { index: Some(index) },
            Err(missing) => Judgement::Unknown(missing),
        }
    }
    /// What the rule reads when it is asked about `context`: for a report, and for finding what to change.
    pub fn reads(&self, context: &EntryContext<'_>) -> Reads {
        let reads = core::cell::Cell::new(Reads::default());
        // Only the reads matter here, the answer is `judge`'s.
        let _ = (self.check)(&View::traced(context, &reads));
        reads.get()
    }
    /// What the processor reports for a violation with this judgement.
    pub const fn report_for(&self, judgement: Judgement) -> Report {
        match (self.report, judgement) {
            (Report::Exit { reason, .. }, Judgement::Violated { index: Some(index) }) => {
                Report::Exit { reason, qualification: index as u64 }
            }
            (report, _) => report,
        }
    }
}

impl core::fmt::Debug for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Rule {}

/// Why VM entry fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first rule that is broken.
    pub rule: &'static Rule,
    /// What the processor reports.
    pub report: Report,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {} ({} \"{}\")", self.rule.id, self.rule.demand, MANUAL, self.rule.group.title())
    }
}

impl core::error::Error for Refusal {}

/// Declares the rules of a section. A row is: identifier, `[fields]`, optionally `@items [...]` and `@report ...;`, the
/// demand, and the check over a view `v`, which is an expression of type `bool` or [`Outcome`] that may use `?`.
/// Where all rules of a section share a condition, it stands once, as `@applies |v| ...;`: otherwise they hold.
///
/// It expands to the rows of the table, whose check answers "unknown" where something is missing, and to one function
/// that runs the same checks in a row on a complete context, monomorphised: the fast path of VM entry.
macro_rules! rules {
    (group $group:ident; $(@applies |$w:ident| $applies:expr;)? $(
        $id:expr, [$($field:ident),*] $(@items [$($item:ident),*])? $(@report $report:expr;)? $demand:expr, |$v:ident| $check:expr;
    )*) => {
        /// Whether the rules of this section apply at all.
        #[inline(always)]
        fn applies<const PARTIAL: bool>(
            view: &crate::rules::View<'_, PARTIAL>,
        ) -> Result<bool, crate::rules::Missing> {
            // A section without a condition reads nothing.
            let _ = view;
            $(let $w = view; if !$applies { return Ok(false); })?
            Ok(true)
        }

        pub(in crate::rules) const RULES: &[crate::rules::Rule] = &[$(crate::rules::Rule {
            id: $id,
            demand: $demand,
            group: crate::rules::Group::$group,
            fields: &[$(crate::Field::$field),*],
            items: &[$($(crate::context::Item::$item),*)?],
            report: crate::rules::rules!(@report $group $($report)?),
            check: {
                fn check($v: &crate::rules::View<'_, true>) -> Result<crate::rules::Outcome, crate::rules::Missing> {
                    if !applies($v)? {
                        return Ok(crate::rules::Outcome::Satisfied);
                    }
                    Ok(crate::rules::Outcome::from($check))
                }
                check
            },
        }),*];

        /// Whether no rule of this section is broken; what cannot be judged counts as met.
        /// Not short-circuiting: almost always all hold, and then straight code is what is fast.
        pub(in crate::rules) fn all_hold(view: &crate::rules::View<'_, false>) -> bool {
            if !matches!(applies(view), Ok(true)) {
                return true;
            }
            let mut hold = true;
            $({
                let $v = view;
                let check = || -> Result<crate::rules::Outcome, crate::rules::Missing> {
                    Ok(crate::rules::Outcome::from($check))
                };
                hold &= matches!(check(), Ok(crate::rules::Outcome::Satisfied) | Err(_));
            })*
            hold
        }
    };
    (@report $group:ident) => { crate::rules::Group::$group.report() };
    (@report $group:ident $report:expr) => { $report };
}
use rules;

/// Rules that are checked in one go.
struct Section {
    rules: &'static [Rule],
    all_hold: fn(&View<'_, false>) -> bool,
}

/// Joins the sections to the table and to the fast path, in hardware's order.
macro_rules! sections {
    ($($first:ident $(:: $rest:ident)*;)*) => {
        const COUNT: usize = 0 $(+ $first $(::$rest)*::RULES.len())*;

        const fn joined() -> [Rule; COUNT] {
            let sections = [$($first $(::$rest)*::RULES),*];
            let mut all = [sections[0][0]; COUNT];
            let (mut section, mut to) = (0, 0);
            while section < sections.len() {
                let mut from = 0;
                while from < sections[section].len() {
                    all[to] = sections[section][from];
                    from += 1;
                    to += 1;
                }
                section += 1;
            }
            all
        }

        fn all_hold(view: &View<'_, false>) -> bool {
            true $(&& $first $(::$rest)*::all_hold(view))*
        }

        /// The sections, for who asks them one by one.
        const SECTIONS: [Section; [$(stringify!($first $(::$rest)*)),*].len()] =
            [$(Section { rules: $first $(::$rest)*::RULES, all_hold: $first $(::$rest)*::all_hold }),*];
    };
}

sections! {
    basic;
    execution_controls;
    execution_controls::virtual_apic;
    execution_controls::second_stage;
    execution_controls::tertiary;
    exit_controls;
    entry_controls;
    entry_controls::injection;
    host_registers;
    host_registers::fred;
    host_segments;
    host_segments::address_space;
    guest_registers;
    guest_registers::msrs;
    guest_registers::fred;
    guest_registers::fred_mode;
    guest_segments::cs;
    guest_segments::ss;
    guest_segments::ds;
    guest_segments::es;
    guest_segments::fs;
    guest_segments::gs;
    guest_segments::ldtr;
    guest_segments::tr;
    guest_segments::descriptor_tables;
    guest_rip;
    non_register;
    non_register::pending_debug;
    non_register::link_pointer;
    pdptes;
    msr_load;
}

/// Every rule, in hardware's order.
pub static RULES: [Rule; COUNT] = joined();

/// Asks every rule, in hardware's order.
pub fn judge_all(context: &EntryContext<'_>, mut each: impl FnMut(&'static Rule, Judgement)) {
    for rule in &RULES {
        each(rule, rule.judge(context));
    }
}

/// VM entry's answer: the first broken rule in hardware's order. What cannot be judged counts as met.
///
/// On a complete context all checks of a valid VMCS take well under a microsecond.
///
/// # Errors
/// [`Refusal`] names the rule and what the processor reports.
pub fn check_entry(context: &EntryContext<'_>) -> Result<(), Refusal> {
    if context.is_complete() && all_hold(&View::new(context)) {
        return Ok(());
    }
    match RULES.iter().position(|rule| rule.judge(context).is_violated()) {
        None => Ok(()),
        Some(position) => Err(refuse(context, position)),
    }
}

/// The refusal for the rule at `position`. Entries of the MSR-load area are processed one by one, so that there the lowest index wins.
#[cold]
fn refuse(context: &EntryContext<'_>, position: usize) -> Refusal {
    let mut rule = &RULES[position];
    let mut judgement = rule.judge(context);
    for other in RULES[position..].iter().filter(|other| other.group == Group::MsrLoading) {
        if rule.group != Group::MsrLoading {
            break;
        }
        if let (Judgement::Violated { index: Some(new) }, Judgement::Violated { index: Some(old) }) =
            (other.judge(context), judgement)
            && new < old
        {
            (rule, judgement) = (other, Judgement::Violated { index: Some(new) });
        }
    }
    Refusal { rule, report: rule.report_for(judgement) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{NoMemory, Processor};
    use crate::definitions::models::SAPPHIRE_RAPIDS;
    use crate::{Capabilities, Vmcs};
    use rootmode_arch::HostPhysical;
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_unique_and_lie_under_vmx() {
        let ids: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        assert!(ids.iter().all(|id| id.starts_with("vmx.")));
    }

    #[test]
    fn groups_stand_in_hardwares_order() {
        // The MSRs of a section may stand in a file of their own, so a group may be continued, but never after a later error number.
        let class = |rule: &Rule| match rule.group.report() {
            Report::Fail(error) => error.0,
            Report::Exit { reason, .. } => u32::from(reason.0),
            _ => 0,
        };
        assert!(RULES.windows(2).all(|w| class(&w[0]) <= class(&w[1])));
    }

    #[test]
    fn demands_are_sentences() {
        for rule in &RULES {
            let (first, last) = (rule.demand.chars().next(), rule.demand.chars().last());
            assert!(first.is_some_and(|c| c.is_uppercase() || c == '"'), "{}", rule.id);
            assert!(matches!(last, Some('.' | ')')), "{}", rule.id);
        }
    }

    #[test]
    fn nothing_can_be_judged_when_nothing_is_known() {
        let (vmcs, capabilities, processor) =
            (Vmcs::unknown(), Capabilities::unknown(), Processor::unknown());
        let context = EntryContext {
            vmcs: &vmcs,
            capabilities: &capabilities,
            processor: &processor,
            memory: &NoMemory,
        };
        judge_all(&context, |rule, judgement| {
            assert!(matches!(judgement, Judgement::Unknown(_)), "{} {judgement:?}", rule.id);
        });
        assert_eq!(check_entry(&context), Ok(()));
    }

    #[test]
    fn an_all_zero_vmcs_fails_with_error_7_because_of_its_pin_based_controls() {
        let (vmcs, capabilities) = (Vmcs::zeroed(), SAPPHIRE_RAPIDS.capabilities());
        let processor = Processor::new(&SAPPHIRE_RAPIDS, HostPhysical(0x1000));
        let context = EntryContext {
            vmcs: &vmcs,
            capabilities: &capabilities,
            processor: &processor,
            memory: &NoMemory,
        };
        let refusal = check_entry(&context).unwrap_err();
        assert_eq!(refusal.rule.id, "vmx.control.pin.required");
        assert_eq!(refusal.report.instruction_error(), Some(7));
    }
}
