//! Mutants of a table of entry rules, for either vendor: each rule dropped, negated, and asked about a state in which one
//! value that it reads is one more, one less, or moved by one bit (the same as moving the bounds and bits in the rule).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::Report;
use super::golden::Golden;

/// What a rule says of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Holds,
    /// It is broken; rules about lists say by which entry, all others 0.
    Broken(u32),
    /// Something is missing.
    Unknown,
}

/// A table of rules with the states that it is asked about.
pub trait Subject {
    /// Everything that a rule reads.
    type State: Clone;
    /// Where a value stands.
    type Place: Copy + Debug + PartialEq;

    /// Identifiers of the rules.
    fn ids() -> Vec<&'static str>;
    /// What rule number `rule` says of `state`.
    fn ask(rule: usize, state: &Self::State) -> Answer;
    /// The places that rule number `rule` reads on `state`.
    fn reads(rule: usize, state: &Self::State) -> Vec<Self::Place>;
    /// The shifts that make a difference at `place`.
    fn shifts(place: Self::Place) -> &'static [Shift];
    /// Shifts the value at `place`.
    fn shift(state: &mut Self::State, place: Self::Place, shift: Shift);
    /// Puts back what `shift` or `put` changed at `place`; `original` is the state before.
    fn restore(state: &mut Self::State, original: &Self::State, place: Self::Place);
    /// The value at `place` and how many bits it has; `None` where values are not numbers.
    fn value(state: &Self::State, place: Self::Place) -> Option<(u64, u32)>;
    /// Stores a value at a place that has one.
    fn put(state: &mut Self::State, place: Self::Place, value: u64);
}

/// How a value is moved before a rule reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// One more.
    More,
    /// One less.
    Less,
    /// Every bit one place up.
    Up,
    /// Every bit one place down.
    Down,
}

impl Shift {
    /// All of them, for numbers.
    pub const ALL: &'static [Shift] = &[Shift::More, Shift::Less, Shift::Up, Shift::Down];
    /// For single bits: one more is the other value, one place down is 0; the rest repeats these.
    pub const OF_A_BIT: &'static [Shift] = &[Shift::More, Shift::Down];

    /// Moves `value`; the caller cuts it to its width.
    #[must_use]
    pub const fn of(self, value: u64) -> u64 {
        match self {
            Self::More => value.wrapping_add(1),
            Self::Less => value.wrapping_sub(1),
            Self::Up => value << 1,
            Self::Down => value >> 1,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::More => "+1",
            Self::Less => "-1",
            Self::Up => "<<1",
            Self::Down => ">>1",
        }
    }
}

/// What is done to a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<P> {
    /// It always holds.
    Dropped,
    /// It holds where it is broken, and the other way round.
    Negated,
    /// It sees another value at one place.
    Sees(P, Shift),
}

impl<P: Copy + Debug> Change<P> {
    /// Every change of a rule that reads `places`.
    pub fn all<S: Subject<Place = P>>(places: &[P]) -> Vec<Change<P>> {
        let seen = places.iter().flat_map(|place| {
            S::shifts(*place).iter().map(|shift| Change::Sees(*place, *shift)).collect::<Vec<_>>()
        });
        [Change::Dropped, Change::Negated].into_iter().chain(seen).collect()
    }

    /// What the changed rule says of `state`, which is the same again afterwards.
    pub fn ask<S: Subject<Place = P>>(
        &self,
        rule: usize,
        state: &mut S::State,
        original: &S::State,
    ) -> Answer {
        match *self {
            Change::Dropped => Answer::Holds,
            Change::Negated => match S::ask(rule, state) {
                Answer::Holds => Answer::Broken(0),
                Answer::Broken(_) => Answer::Holds,
                Answer::Unknown => Answer::Unknown,
            },
            Change::Sees(place, shift) => {
                S::shift(state, place, shift);
                let answer = S::ask(rule, state);
                S::restore(state, original, place);
                answer
            }
        }
    }

    /// What was done, in a few words.
    pub fn text(&self) -> String {
        match self {
            Change::Dropped => "dropped".to_owned(),
            Change::Negated => "negated".to_owned(),
            Change::Sees(place, shift) => format!("{place:?} {}", shift.text()),
        }
    }
}

/// Gets a state and a way to write it down; answers whether it wants more.
pub type Visit<'v, State> = &'v mut dyn FnMut(&State, &dyn Fn() -> String) -> bool;

/// The states that recorded answers are taken from.
pub trait Pool: Subject {
    /// The file's name in `tests/golden` and the table's name.
    const TABLE: &'static str;
    /// What the file says.
    const GOLDEN: &'static str;
    /// Its name.
    const FILE: &'static str;
    /// Texts of states that `offer` begins with, because no single change of another reaches them.
    const CORNERS: &'static [&'static str];

    /// Offers states around the boundary of rule number `rule`, with their text, until all were offered or the answer is false.
    fn offer(rule: usize, visit: Visit<'_, Self::State>);
    /// The state behind a text.
    fn state(text: &str) -> Option<Self::State>;
    /// Every place that the rules can read.
    fn place(text: &str) -> Option<Self::Place>;
    /// Whether the recorded verdicts of other machines notice the change.
    fn peers_notice(rule: usize, change: &Change<Self::Place>) -> bool;
}

/// What the table breaks on `state`.
pub fn broken<S: Subject>(state: &S::State) -> BTreeSet<String> {
    let ids = S::ids();
    let is_broken = |&(rule, _): &(usize, &&str)| matches!(S::ask(rule, state), Answer::Broken(_));
    ids.iter().enumerate().filter(is_broken).map(|(_, id)| (*id).to_owned()).collect()
}

/// Judges every mutant by the recorded answers and by the recorded verdicts of other machines.
///
/// # Errors
/// A file that does not fit the table, or an answer of the table that is not the recorded one.
pub fn run<S: Pool>(peers: bool) -> Result<Report, String> {
    let golden = Golden::parse(S::GOLDEN)?;
    let mut states = Vec::new();
    for (text, expected) in &golden.states {
        let state = S::state(text).ok_or_else(|| format!("{}: no such state: {text}", S::FILE))?;
        let found = broken::<S>(&state);
        if found != *expected {
            return Err(format!("{}: {text}: recorded {expected:?}, found {found:?}", S::FILE));
        }
        states.push(state);
    }
    let originals = states.clone();
    let mut report = Report::new(S::TABLE);
    for (rule, id) in S::ids().into_iter().enumerate() {
        let recorded = golden.places(id);
        let place =
            |text: &String| S::place(text).ok_or_else(|| format!("{}: no such place: {text}", S::FILE));
        let places = recorded.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        for state in &states {
            if let Some(new) = S::reads(rule, state).iter().find(|place| !places.contains(place)) {
                return Err(format!("{}: {id} reads {new:?}, which is not recorded", S::FILE));
            }
        }
        let expected: Vec<bool> = golden.states.iter().map(|(_, rules)| rules.contains(id)).collect();
        for change in Change::all::<S>(&places) {
            let differs = |n: usize, state: &mut S::State| {
                matches!(change.ask::<S>(rule, state, &originals[n]), Answer::Broken(_)) != expected[n]
            };
            let by_peers = peers && S::peers_notice(rule, &change);
            let killed = states.iter_mut().enumerate().any(|(n, state)| differs(n, state));
            report.killed_by_peers += usize::from(by_peers);
            report.count(|| format!("{id}: {}", change.text()), killed || by_peers);
        }
    }
    Ok(report)
}

/// Values around `value` in a place of `bits` bits: single bits, runs of ones and zeros below them, neighbours.
pub fn around(value: u64, bits: u32, mut each: impl FnMut(u64)) {
    for bit in 0..bits {
        let (one, below) = (1u64 << bit, (1u64 << bit) - 1);
        let ends =
            [(value | one) & !below, (value & !one) | below, value | one | below, value & !(one | below)];
        for candidate in
            [value ^ one, one, below, !below, value | below, value & !below].into_iter().chain(ends)
        {
            each(candidate);
        }
    }
    for candidate in [0, u64::MAX, value.wrapping_add(1), value.wrapping_sub(1), value << 1, value >> 1] {
        each(candidate);
    }
}

/// What `record` knows of one rule.
struct Hunt<S: Subject> {
    rule: usize,
    places: Vec<S::Place>,
    alive: Vec<Change<S::Place>>,
}

impl<S: Pool> Hunt<S> {
    /// Adds the mutants of places that the rule reads on `state`.
    fn learn(&mut self, state: &S::State) {
        for place in S::reads(self.rule, state) {
            if !self.places.contains(&place) {
                self.places.push(place);
                self.alive.extend(S::shifts(place).iter().map(|shift| Change::Sees(place, *shift)));
            }
        }
    }

    /// Whether `state` tells a living mutant from the original; those that it tells are dead then.
    fn kills(&mut self, state: &S::State) -> bool {
        let is_broken = |answer| matches!(answer, Answer::Broken(_));
        let answer = is_broken(S::ask(self.rule, state));
        let (mut scratch, before, rule) = (state.clone(), self.alive.len(), self.rule);
        self.alive.retain(|change| is_broken(change.ask::<S>(rule, &mut scratch, state)) == answer);
        before != self.alive.len()
    }

    /// Looks for states that kill what lives: around the boundary, then around the values that living mutants see, on a
    /// state of each kind that breaks the rule and on one that does not.
    fn hunt(&mut self) -> Vec<(S::State, String)> {
        let mut found = Vec::new();
        let mut seeds: BTreeMap<(String, bool), (S::State, String)> = BTreeMap::new();
        S::offer(self.rule, &mut |state, text| {
            self.learn(state);
            let broken = matches!(S::ask(self.rule, state), Answer::Broken(_));
            let kills = self.kills(state);
            let text = text();
            if kills {
                found.push((state.clone(), text.clone()));
            }
            let whole = S::CORNERS.contains(&text.as_str());
            let kind = if whole { &text } else { text.split("; ").next().unwrap_or_default() };
            let kind = kind.to_owned();
            seeds.entry((kind, broken)).or_insert_with(|| (state.clone(), text));
            true
        });
        let by_kind: Vec<(S::State, String)> = seeds.into_values().collect();
        // What killed something lies on a boundary of its own.
        let seeds: Vec<(S::State, String)> = by_kind.into_iter().chain(found.iter().cloned()).collect();
        for (seed, text) in &seeds {
            let seen = |change: &Change<S::Place>| match change {
                Change::Sees(place, _) => Some(*place),
                _ => None,
            };
            let mut places: Vec<S::Place> = self.alive.iter().filter_map(seen).collect();
            places.dedup();
            for place in places {
                let Some((value, bits)) = S::value(seed, place) else { continue };
                let mut state = seed.clone();
                around(value, bits, |value| {
                    S::put(&mut state, place, value);
                    self.learn(&state);
                    if self.kills(&state) {
                        let stored = S::value(&state, place).map_or(0, |(value, _)| value);
                        found.push((state.clone(), format!("{text}; {place:?}={stored:x}")));
                    }
                });
            }
        }
        found
    }
}

/// Chooses, from the states around every boundary, those that tell the mutants from the original, and records the answers.
#[must_use]
pub fn record<S: Pool>() -> Golden {
    let ids = S::ids();
    let mut kept: Vec<(S::State, String)> = Vec::new();
    let new = |rule| Hunt::<S> { rule, places: Vec::new(), alive: vec![Change::Dropped, Change::Negated] };
    let mut hunts: Vec<Hunt<S>> = (0..ids.len()).map(new).collect();
    for hunt in &mut hunts {
        kept.extend(hunt.hunt());
    }
    // States found for one rule may make another read more.
    for hunt in &mut hunts {
        let before = hunt.places.len();
        for (state, _) in &kept {
            hunt.learn(state);
        }
        kept.iter().for_each(|(state, _)| _ = hunt.kills(state));
        if hunt.places.len() != before {
            kept.extend(hunt.hunt());
        }
    }
    let mut golden = Golden::default();
    for hunt in &mut hunts {
        kept.iter().for_each(|(state, _)| hunt.learn(state));
        let places = hunt.places.iter().map(|place| format!("{place:?}")).collect();
        golden.reads.push((ids[hunt.rule].to_owned(), places));
    }
    for (state, text) in kept {
        golden.states.push((text, broken::<S>(&state)));
    }
    golden.states.sort();
    golden.states.dedup();
    golden
}
