//! [`Snapshot`]: a whole board at one moment.

use super::{Board, Deadlines, Input, Slice};
use crate::context::{Bus, Message};
use crate::processor::SavedProcessor;
use rootmode_arch::choices::Choices;
use rootmode_mmu::{LayoutError, MemorySnapshot};
use std::collections::VecDeque;

/// Everything that decides what a board does from here on. Its pages are shared with the board and with other snapshots.
pub struct Snapshot {
    memory: MemorySnapshot,
    slice_ticks: u64,
    gates: bool,
    bus: Box<dyn Bus>,
    choices: Box<dyn Choices + Send>,
    processors: Vec<SavedProcessor>,
    now: u64,
    deadlines: Deadlines,
    inputs: VecDeque<Input>,
    messages: Vec<(u8, Message)>,
    slice: Option<Slice>,
    first: usize,
}

/// Why a board cannot be saved or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bus answers `None` to [`Bus::copy`].
    #[error("a device of this machine cannot be copied")]
    Bus,
    /// The source of choices answers `None` to [`Choices::copy`].
    #[error("the source of choices cannot be copied")]
    Choices,
    /// The snapshot is of a board with another number of processors.
    #[error("the snapshot has {saved} processors, the machine {present}")]
    Processors {
        /// Those of the snapshot.
        saved: usize,
        /// Those of the board.
        present: usize,
    },
    /// The snapshot is of a board with other RAM.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Board {
    /// The state as it is: it changes nothing that anybody can observe, and costs what was written since the last one.
    ///
    /// # Errors
    /// [`SnapshotError`] if devices or choices cannot be copied.
    pub fn snapshot(&mut self) -> Result<Snapshot, SnapshotError> {
        Ok(Snapshot {
            bus: self.bus.copy().ok_or(SnapshotError::Bus)?,
            choices: self.choices.copy().ok_or(SnapshotError::Choices)?,
            memory: self.memory.snapshot(),
            slice_ticks: self.slice_ticks,
            gates: self.gates,
            processors: self.processors.iter().map(crate::Processor::save).collect(),
            now: self.now,
            deadlines: self.deadlines.clone(),
            inputs: self.inputs.clone(),
            messages: self.messages.clone(),
            slice: self.slice,
            first: self.first,
        })
    }

    /// Continues from `snapshot`, which is of this board or of one made of the same parts. The observer stays.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing was changed.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let (saved, present) = (snapshot.processors.len(), self.processors.len());
        if saved != present {
            return Err(SnapshotError::Processors { saved, present });
        }
        let bus = snapshot.bus.copy().ok_or(SnapshotError::Bus)?;
        let choices = snapshot.choices.copy().ok_or(SnapshotError::Choices)?;
        self.memory.restore(&snapshot.memory)?;
        for (processor, saved) in self.processors.iter_mut().zip(&snapshot.processors) {
            processor.restore(saved);
        }
        self.bus = bus;
        self.choices = choices;
        self.slice_ticks = snapshot.slice_ticks;
        self.gates = snapshot.gates;
        self.now = snapshot.now;
        self.deadlines = snapshot.deadlines.clone();
        self.inputs.clone_from(&snapshot.inputs);
        self.messages.clone_from(&snapshot.messages);
        self.slice = snapshot.slice;
        self.first = snapshot.first;
        Ok(())
    }
}
