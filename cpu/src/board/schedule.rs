//! The scheduler: slices, deadlines, sleep.

use super::{Board, Slice, Source, Stopped};
use crate::context::{Context, Effects};
use crate::processor::RunEnd;
use crate::state::Activity;
use rootmode_arch::Site;
use rootmode_arch::record::{Level, Observer, Payload, Stop};

/// Deadlines that may fire at one tick before the machine is said to make no progress.
const DEADLINES_PER_TICK: u32 = 100_000;

impl Board {
    /// Runs until machine time reaches `limit`, or something stops the machine. Continues where the last run stopped.
    pub fn run(&mut self, limit: u64) -> Stopped {
        let (stop, processor) = self.run_until(limit);
        let tick = self.processors.get(usize::from(processor)).map_or(self.now, |p| p.cpu.tick);
        self.emit(processor, Level::L0, Payload::Stopped(stop));
        Stopped { stop, processor, tick }
    }

    fn run_until(&mut self, limit: u64) -> (Stop, u8) {
        loop {
            if self.slice.is_none() {
                if let Some(stop) = self.start_of_slice() {
                    return (stop, 0);
                }
                if self.now >= limit {
                    return (Stop::Limit, 0);
                }
                if !self.may_run() {
                    match self.next_event() {
                        Some(tick) => {
                            self.now = tick.min(limit).max(self.now);
                            self.set_clocks();
                            continue;
                        }
                        None => return (Stop::Idle, 0),
                    }
                }
                self.set_clocks();
                // Slices end on multiples of their length, wherever runs were cut: a limit never changes what happens.
                let length = self.slice_ticks.max(1);
                let mut end = (self.now / length + 1).saturating_mul(length);
                if let Some(tick) = self.next_event() {
                    end = end.min(tick);
                }
                let count = self.processors.len();
                if count > 1 {
                    // Which processor goes first is a choice; the others follow in order.
                    self.first = self.choices.choose(Site::Slice, count as u64) as usize;
                }
                self.slice = Some(Slice { end: end.max(self.now + 1), next: 0 });
            }
            if let Some(stopped) = self.run_slice(limit) {
                return stopped;
            }
        }
    }

    /// Whether any processor has something to do.
    fn may_run(&self) -> bool {
        self.processors.iter().any(|processor| processor.may_run(&self.memory))
    }

    /// Messages, inputs and deadlines that have come.
    fn start_of_slice(&mut self) -> Option<Stop> {
        for (target, message) in std::mem::take(&mut self.messages) {
            self.post(target, message);
        }
        while self.inputs.front().is_some_and(|input| input.tick <= self.now) {
            if let Some(input) = self.inputs.pop_front() {
                self.post(input.processor, input.message);
            }
        }
        let mut fired = 0;
        while let Some(deadline) = self.deadlines.take_due(self.now) {
            fired += 1;
            if fired > DEADLINES_PER_TICK {
                return Some(Stop::NoProgress);
            }
            match deadline.source {
                Source::Bus(number) => {
                    let mut effects = Effects::default();
                    self.bus.deadline(number, self.now, &mut self.memory, &mut effects);
                    if let Some(stop) = self.apply(None, effects) {
                        return Some(stop);
                    }
                }
                Source::Apic(processor) => self.apic_deadline(processor),
            }
        }
        None
    }

    /// The next tick at which something outside the processors, or an extension's deadline, wants attention.
    fn next_event(&self) -> Option<u64> {
        let deadline = self.deadlines.next().map(|d| d.tick);
        let input = self.inputs.front().map(|i| i.tick);
        let timers =
            self.processors.iter().flat_map(|p| [p.cpu.published.deadline, p.cpu.wakes_at()]).flatten();
        // A timer that has come needs no slice boundary: its processor looks at it by itself.
        let timers = timers.filter(|tick| *tick > self.now);
        deadline.into_iter().chain(input).chain(timers).min()
    }

    fn set_clocks(&mut self) {
        for processor in &mut self.processors {
            let cpu = &mut processor.cpu;
            cpu.slept += self.now.saturating_sub(cpu.tick);
            cpu.tick = self.now;
        }
    }

    /// Runs what is left of the current slice, up to `limit`. `None`: it is complete.
    fn run_slice(&mut self, limit: u64) -> Option<(Stop, u8)> {
        let count = self.processors.len();
        while let Some(Slice { end, next }) = self.slice {
            if next >= count {
                self.now = self.end_of_slice(end);
                self.slice = None;
                break;
            }
            let index = (self.first + next) % count;
            let processor = &self.processors[index];
            let shut_down = processor.cpu.activity == Activity::Shutdown && !processor.cpu.published.guest;
            if !processor.may_run(&self.memory) || shut_down {
                self.slice = Some(Slice { end, next: next + 1 });
                continue;
            }
            self.processors[index].cpu.told = self.told();
            let processor = &mut self.processors[index];
            let mut effects = Effects::default();
            let mut context = Context {
                memory: &mut self.memory,
                bus: &mut *self.bus,
                choices: &mut *self.choices,
                observer: self.observer.as_deref_mut().map(|o| o as &mut dyn Observer),
                effects: &mut effects,
                gates: self.gates,
            };
            context.memory.set_management(processor.cpu.smm);
            let ended = processor.run(&mut context, end.min(limit));
            context.memory.set_management(false);
            context.memory.set_writer(None);
            let tick = processor.cpu.tick;
            let source = index as u8;
            let stop = self.apply(Some(source), effects);
            if stop.is_some() {
                self.processors[index].cpu.attention.0 &= !crate::Attention::EFFECTS;
            }
            if let Some(stop) = stop {
                return Some((stop, source));
            }
            match ended {
                RunEnd::Budget if tick < end => return Some((Stop::Limit, source)),
                RunEnd::Budget | RunEnd::Asleep => {
                    self.slice = Some(Slice { end: self.cut(end), next: next + 1 });
                }
                RunEnd::Effects => {
                    self.slice = Some(Slice { end: self.cut(end), next });
                }
                RunEnd::Stop(stop) => return Some((stop, source)),
            }
        }
        None
    }

    /// The latest tick that any processor was told.
    pub(super) fn told(&self) -> u64 {
        self.processors.iter().map(|processor| processor.cpu.told).max().unwrap_or(0)
    }

    /// When a complete slice ends: at `end`, or when the last processor fell asleep if nothing is left that could wake one
    /// before the next event.
    fn end_of_slice(&self, end: u64) -> u64 {
        if !self.messages.is_empty() || self.may_run() {
            return end;
        }
        self.processors.iter().map(|p| p.cpu.tick).max().unwrap_or(end).clamp(self.now, end)
    }

    /// The slice's end, earlier if a deadline was added within it; never before what some processor already reached.
    pub(super) fn cut(&self, end: u64) -> u64 {
        let reached = self.processors.iter().map(|p| p.cpu.tick).max().unwrap_or(self.now);
        let soonest = reached.max(self.now + 1);
        if !self.messages.is_empty() {
            // Who is sent a message gets it before the sender's later stores.
            return end.min(soonest);
        }
        match self.deadlines.next() {
            Some(deadline) => end.min(deadline.tick.max(soonest)),
            None => end,
        }
    }
}
