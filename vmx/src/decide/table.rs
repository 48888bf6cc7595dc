//! [`Table`]: the intercept rules as rows, indexed by class of event.

use super::condition::Condition;
use super::exit::Exit;
use super::rows::{COUNT, ROWS};
use super::view::{Controls, View};
use crate::bitmap::Bitmaps;
use crate::definitions::controls::Word;
use crate::information::Format;
use crate::{Control, ExitReason, PinControls, PrimaryControls, SecondaryControls, TertiaryControls};
use rootmode_arch::event::VmxInstruction;
use rootmode_arch::{Event, EventClass, EventClasses, Stage};

/// A control and the value that it must have for a row to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The control.
    pub control: Control,
    /// The value: 1 (`true`) or 0.
    pub on: bool,
}

impl Gate {
    const fn new(word: Word, bits: u64) -> Option<Self> {
        Some(Self { control: Control { word, bit: bits.trailing_zeros() as u8 }, on: true })
    }
    pub(super) const fn pin(control: PinControls) -> Option<Self> {
        Self::new(Word::Pin, control.0 as u64)
    }
    pub(super) const fn primary(control: PrimaryControls) -> Option<Self> {
        Self::new(Word::Primary, control.0 as u64)
    }
    pub(super) const fn secondary(control: SecondaryControls) -> Option<Self> {
        Self::new(Word::Secondary, control.0 as u64)
    }
    pub(super) const fn tertiary(control: TertiaryControls) -> Option<Self> {
        Self::new(Word::Tertiary, control.0)
    }
    /// The opposite gate.
    pub(super) const fn off(gate: Option<Self>) -> Option<Self> {
        match gate {
            Some(gate) => Some(Self { control: gate.control, on: !gate.on }),
            None => None,
        }
    }
    /// Whether the control has the value.
    #[inline]
    pub const fn is_open(self, controls: &Controls) -> bool {
        controls.is_on(self.control) == self.on
    }
}

/// One rule: an event of the class exits with the reason if all gates are open and the condition holds.
/// The first row of a class that applies decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable identifier.
    pub id: &'static str,
    /// Class of event. Changing it in a copy of the table changes only the interest: rows are found by their place,
    /// those of VMX instructions by instruction.
    pub class: EventClass,
    /// Controls that must have a value; none: unconditional as far as single control bits go.
    pub gates: [Option<Gate>; 2],
    /// What else must hold.
    pub condition: Condition,
    /// Basic exit reason.
    pub reason: ExitReason,
    /// Stage at which the instruction exits; `None` for events that are not instructions.
    pub stage: Option<Stage>,
    /// Format of the instruction information that the exit reports.
    pub information: Option<Format>,
    /// Manual and section title.
    pub source: &'static str,
    /// Whether the row takes part at all; for mutations.
    pub enabled: bool,
    /// Whether the condition is inverted; for mutations.
    pub negated: bool,
}

impl Row {
    #[inline(always)]
    fn gates_are_open(&self, controls: &Controls) -> bool {
        let open = |gate: Option<Gate>| gate.is_none_or(|gate| gate.is_open(controls));
        self.enabled && open(self.gates[0]) && open(self.gates[1])
    }
    /// Whether the event exits by this row. The event must be of the row's class.
    #[inline]
    pub fn applies<B: Bitmaps + ?Sized>(&self, view: &View<'_, B>, event: &Event) -> bool {
        self.gates_are_open(view.controls) && self.condition.holds(view, event) != self.negated
    }
}

impl Row {
    /// The same, for a row that the compiler knows.
    #[inline(always)]
    pub(super) fn applies_inlined<B: Bitmaps + ?Sized>(&self, view: &View<'_, B>, event: &Event) -> bool {
        self.gates_are_open(view.controls) && self.condition.holds_inlined(view, event) != self.negated
    }
}

/// A set of [`Stage`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stages(u8);

impl Stages {
    /// Whether `stage` is in the set.
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 >> stage as u8 & 1 != 0
    }
    /// Whether no stage is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const CLASSES: usize = EventClass::ALL.len();
const INSTRUCTIONS: usize = VmxInstruction::Vmfunc as usize + 1;

/// The rules, rows of one class side by side. A copy can be changed at run time through [`Table::rows_mut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: [Row; COUNT],
    /// Index of the first row of each class, and the number of rows behind the last.
    first: [u8; CLASSES + 1],
    /// The same within the class of VMX instructions, by instruction: most hypervisors' most frequent exits.
    first_vmx: [u8; INSTRUCTIONS + 1],
}

impl Table {
    /// The manual's rules.
    pub const BUILT_IN: &'static Self =
        &Self { rows: ROWS, first: index(&ROWS), first_vmx: index_vmx(&ROWS) };

    /// All rows.
    pub const fn rows(&self) -> &[Row] {
        &self.rows
    }
    /// All rows, to be changed.
    pub const fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }
    /// Index of the first row of a class, and of the row behind its last.
    pub(super) const fn range(&self, class: EventClass) -> (u8, u8) {
        (self.first[class as usize], self.first[class as usize + 1])
    }
    /// The rows of one class, in order; empty if VMX does not know the class.
    #[inline]
    pub fn of(&self, class: EventClass) -> &[Row] {
        let (from, to) = (self.first[class as usize], self.first[class as usize + 1]);
        &self.rows[usize::from(from)..usize::from(to)]
    }

    /// The rows that can apply to `event`, in order.
    #[inline]
    fn of_event(&self, event: &Event) -> &[Row] {
        let (from, to) = match event {
            Event::Vmx { instruction, .. } => {
                let instruction = *instruction as usize;
                (self.first_vmx[instruction], self.first_vmx[instruction + 1])
            }
            _ => {
                let class = event.class() as usize;
                (self.first[class], self.first[class + 1])
            }
        };
        &self.rows[usize::from(from)..usize::from(to)]
    }

    /// Whether `event` makes the guest exit.
    #[inline]
    pub fn decide<B: Bitmaps + ?Sized>(&self, view: &View<'_, B>, event: &Event) -> Option<Exit> {
        let row = self.of_event(event).iter().find(|row| row.applies(view, event))?;
        Some(Exit::new(view, event, row))
    }

    /// Whether `event`, offered at `stage`, makes the guest exit. Events that are not instructions exit whatever the stage.
    #[inline]
    pub fn decide_at<B: Bitmaps + ?Sized>(
        &self,
        stage: Stage,
        view: &View<'_, B>,
        event: &Event,
    ) -> Option<Exit> {
        let mut rows = self.of_event(event).iter().filter(|row| row.stage.is_none_or(|at| at == stage));
        let row = rows.find(|row| row.applies(view, event))?;
        Some(Exit::new(view, event, row))
    }

    /// Whether anything can make `event` exit at `stage`: what is worth asking before a view is gathered.
    #[inline]
    pub fn may_exit_at(&self, stage: Stage, event: &Event) -> bool {
        self.of_event(event).iter().any(|row| row.stage.is_none_or(|at| at == stage))
    }

    /// The stages at which events of the class may exit; empty for events that are not instructions.
    pub fn stages(&self, class: EventClass) -> Stages {
        Stages(self.of(class).iter().filter_map(|row| row.stage).fold(0, |set, stage| set | 1 << stage as u8))
    }

    /// The classes whose events may exit under `controls`: a superset of what [`Table::decide`] answers.
    pub fn interest(&self, controls: &Controls) -> EventClasses {
        let may =
            |row: &&Row| row.gates_are_open(controls) && (row.negated || row.condition.may_hold(controls));
        self.rows.iter().filter(may).fold(EventClasses::NONE, |set, row| set.with(row.class))
    }
}

const fn index(rows: &[Row; COUNT]) -> [u8; CLASSES + 1] {
    let mut first = [0; CLASSES + 1];
    let (mut class, mut row) = (0, 0);
    while class < CLASSES {
        first[class] = row as u8;
        while row < COUNT && rows[row].class as usize == class {
            row += 1;
        }
        class += 1;
    }
    assert!(row == COUNT, "rows are sorted by class");
    first[CLASSES] = row as u8;
    first
}

const fn index_vmx(rows: &[Row; COUNT]) -> [u8; INSTRUCTIONS + 1] {
    let mut first = [0; INSTRUCTIONS + 1];
    let mut row = 0;
    while rows[row].class as usize != EventClass::Vmx as usize {
        row += 1;
    }
    let mut instruction = 0;
    while instruction < INSTRUCTIONS {
        first[instruction] = row as u8;
        while let Some(at) = rows[row].condition.instruction()
            && at as usize == instruction
        {
            row += 1;
        }
        instruction += 1;
    }
    assert!(
        rows[row].class as usize != EventClass::Vmx as usize,
        "rows of VMX instructions are sorted by instruction"
    );
    first[INSTRUCTIONS] = row as u8;
    first
}
