//! [`Table`]: the intercepts as rows, indexed by class of event.

use super::condition::Condition;
use super::exit::{Exit, Info};
use super::rows::{COUNT, ROWS};
use super::view::{Controls, View};
use crate::bitmap::PermissionMaps;
use crate::encode::ExitCode;
use crate::vmcb::Intercept;
use rootmode_arch::{Event, EventClass, EventClasses, Stage};

/// The intercept bit that a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// None.
    Open,
    /// This one.
    Bit(Intercept),
    /// One of `count` from this one on, selected by the event's register or vector number.
    Numbered {
        /// The bit for number 0.
        first: Intercept,
        /// How many there are.
        count: u8,
    },
}

impl Gate {
    #[inline(always)]
    fn is_open(self, controls: &Controls, event: &Event) -> bool {
        match self {
            Self::Open => true,
            Self::Bit(bit) => controls.intercepts.has(bit),
            Self::Numbered { first, count } => {
                let number = number(event);
                number < count && controls.intercepts.has(Intercept(first.0.wrapping_add(number)))
            }
        }
    }
    fn may_be_open(self, controls: &Controls) -> bool {
        match self {
            Self::Open => true,
            Self::Bit(bit) => controls.intercepts.has(bit),
            Self::Numbered { first, count } => {
                (0..count).any(|n| controls.intercepts.has(Intercept(first.0.wrapping_add(n))))
            }
        }
    }
}

/// The register or vector number of an event.
#[inline(always)]
const fn number(event: &Event) -> u8 {
    match event {
        Event::Exception(e) => e.vector,
        Event::CrRead { cr, .. } | Event::CrWrite { cr, .. } | Event::CrWritten { cr, .. } => *cr,
        Event::DrRead { dr, .. } | Event::DrWrite { dr, .. } => *dr,
        _ => 0,
    }
}

/// One row: an event of the class exits with the code if the gate is open and the condition holds.
/// The first row of a class that applies decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable identifier.
    pub id: &'static str,
    /// Class of event. Changing it in a copy of the table has no effect: rows are found by their place.
    pub class: EventClass,
    /// The intercept bit.
    pub gate: Gate,
    /// What else must hold.
    pub condition: Condition,
    /// EXITCODE; for a numbered gate that of number 0.
    pub code: ExitCode,
    /// Stage at which the instruction exits; `None` for events that are not instructions.
    pub stage: Option<Stage>,
    /// What EXITINFO1 and EXITINFO2 hold.
    pub info: Info,
    /// Section title in APM Vol. 2 (24593 rev. 3.43).
    pub source: &'static str,
    /// Whether the row takes part at all; for mutations.
    pub enabled: bool,
    /// Whether the condition is inverted; for mutations.
    pub negated: bool,
}

impl Row {
    /// Whether the event exits by this row. The event must be of the row's class.
    #[inline(always)]
    pub fn applies<M: PermissionMaps + ?Sized>(&self, view: &View<'_, M>, event: &Event) -> bool {
        self.enabled
            && self.gate.is_open(view.controls, event)
            && self.condition.holds(view, event) != self.negated
    }
    /// The exit code for `event`.
    #[inline(always)]
    pub const fn code_of(&self, event: &Event) -> ExitCode {
        match self.gate {
            Gate::Numbered { .. } => ExitCode(self.code.0.wrapping_add(number(event) as u64)),
            Gate::Open | Gate::Bit(_) => self.code,
        }
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

/// The intercepts, rows of one class side by side. A copy can be changed at run time through [`Table::rows_mut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: [Row; COUNT],
    /// Index of the first row of each class, and the number of rows behind the last.
    first: [u8; CLASSES + 1],
}

impl Table {
    /// The manual's intercepts.
    pub const BUILT_IN: &'static Self = &Self { rows: ROWS, first: index(&ROWS) };

    /// All rows.
    pub const fn rows(&self) -> &[Row] {
        &self.rows
    }
    /// All rows, to be changed.
    pub const fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }
    /// The rows of one class, in order; empty if SVM does not know the class.
    #[inline]
    pub fn of(&self, class: EventClass) -> &[Row] {
        let (from, to) = (self.first[class as usize], self.first[class as usize + 1]);
        &self.rows[usize::from(from)..usize::from(to)]
    }

    /// Whether `event` makes the guest exit.
    #[inline]
    pub fn decide<M: PermissionMaps + ?Sized>(&self, view: &View<'_, M>, event: &Event) -> Option<Exit> {
        let row = self.of(event.class()).iter().find(|row| row.applies(view, event))?;
        Some(Exit::new(view, event, row))
    }

    /// Whether `event`, offered at `stage`, makes the guest exit. Events that are not instructions exit whatever the stage.
    #[inline]
    pub fn decide_at<M: PermissionMaps + ?Sized>(
        &self,
        stage: Stage,
        view: &View<'_, M>,
        event: &Event,
    ) -> Option<Exit> {
        let mut rows = self.of(event.class()).iter().filter(|row| row.stage.is_none_or(|at| at == stage));
        let row = rows.find(|row| row.applies(view, event))?;
        Some(Exit::new(view, event, row))
    }

    /// Whether anything can make `event` exit at `stage`: what is worth asking before a view is gathered.
    #[inline]
    pub fn may_exit_at(&self, stage: Stage, event: &Event) -> bool {
        self.of(event.class()).iter().any(|row| row.stage.is_none_or(|at| at == stage))
    }

    /// The stages at which events of the class may exit; empty for events that are not instructions.
    pub fn stages(&self, class: EventClass) -> Stages {
        Stages(self.of(class).iter().filter_map(|row| row.stage).fold(0, |set, stage| set | 1 << stage as u8))
    }

    /// The classes whose events may exit under `controls`: a superset of what [`Table::decide`] answers.
    pub fn interest(&self, controls: &Controls) -> EventClasses {
        let may = |row: &&Row| {
            row.enabled && row.gate.may_be_open(controls) && (row.negated || row.condition.may_hold(controls))
        };
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
