//! The rules of VM entry as a subject of mutation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use rootmode_arch::{FeatureSet, HostPhysical};
use rootmode_vmx::boundary::{self, bases::BASES, edits};
use rootmode_vmx::context::{Item, Memory, Processor, Words};
use rootmode_vmx::rules::{self, RULES};
use rootmode_vmx::{Capabilities, EntryContext, Field, Judgement, Vmcs};

use super::peers;
use super::rules::{Answer, Change, Pool, Shift, Subject};

/// The first of the capability MSRs.
const FIRST_CAPABILITY: u32 = 0x480;

/// The rules of VM entry.
#[derive(Debug)]
pub struct Vmx;

/// What a rule reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A VMCS field.
    Field(Field),
    /// A value of the logical processor.
    Item(Item),
    /// A capability MSR.
    Capability(u32),
    /// The CPUID features: one more stands for all of them, one place down for none.
    Features,
    /// Every word of memory.
    Memory,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Field(field) => write!(f, "{field:?}"),
            Place::Item(item) => write!(f, "{item:?}"),
            Place::Capability(index) => write!(f, "capability {index:x}"),
            Place::Features => write!(f, "features"),
            Place::Memory => write!(f, "memory"),
        }
    }
}

static PLACES: LazyLock<BTreeMap<String, Place>> = LazyLock::new(|| {
    let fields = Field::ALL.iter().map(|field| Place::Field(*field));
    let items = Item::ALL.iter().map(|item| Place::Item(*item));
    let capabilities = (0..32).map(|n| Place::Capability(FIRST_CAPABILITY + n));
    let all = fields.chain(items).chain(capabilities).chain([Place::Features, Place::Memory]);
    all.map(|place| (format!("{place:?}"), place)).collect()
});

/// Everything that the rules read.
#[derive(Clone)]
pub struct State {
    /// The current VMCS.
    pub vmcs: Vmcs,
    /// The capability MSRs.
    pub capabilities: Capabilities,
    /// The logical processor.
    pub processor: Processor,
    /// Memory.
    pub memory: Arc<dyn Memory + Send + Sync>,
    /// How words of memory are shifted before they are read.
    pub memory_shift: Option<Shift>,
}

impl From<&boundary::State> for State {
    fn from(state: &boundary::State) -> Self {
        Self {
            vmcs: state.vmcs.clone(),
            capabilities: state.capabilities,
            processor: state.processor.clone(),
            memory: Arc::new(state.memory.clone()),
            memory_shift: None,
        }
    }
}

/// Memory in which every word that a state does not name has one value.
struct Filled {
    words: Words,
    fill: u64,
}

impl Memory for Filled {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        Some(self.words.read_u64(address).unwrap_or(self.fill))
    }
}

impl Memory for State {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        let value = self.memory.read_u64(address)?;
        Some(self.memory_shift.map_or(value, |shift| shift.of(value)))
    }
}

impl State {
    /// As the rules take it.
    #[must_use]
    pub fn context(&self) -> EntryContext<'_> {
        EntryContext {
            vmcs: &self.vmcs,
            capabilities: &self.capabilities,
            processor: &self.processor,
            memory: self,
        }
    }
}

impl Subject for Vmx {
    type State = State;
    type Place = Place;

    fn ids() -> Vec<&'static str> {
        RULES.iter().map(|rule| rule.id).collect()
    }

    fn ask(rule: usize, state: &State) -> Answer {
        match RULES[rule].judge(&state.context()) {
            Judgement::Satisfied => Answer::Holds,
            Judgement::Violated { index } => Answer::Broken(index.unwrap_or(0)),
            Judgement::Unknown(_) => Answer::Unknown,
        }
    }

    fn reads(rule: usize, state: &State) -> Vec<Place> {
        let reads = RULES[rule].reads(&state.context());
        let fields = reads.fields.iter().map(Place::Field);
        let items = Item::ALL.iter().filter(|item| reads.items >> **item as u32 & 1 != 0);
        let capabilities = (0..32).filter(|n| reads.capabilities >> n & 1 != 0);
        let features = reads.features.then_some(Place::Features);
        let memory = reads.memory[0].map(|_| Place::Memory);
        fields
            .chain(items.map(|item| Place::Item(*item)))
            .chain(capabilities.map(|n| Place::Capability(FIRST_CAPABILITY + n)))
            .chain(features)
            .chain(memory)
            .collect()
    }

    fn shifts(place: Place) -> &'static [Shift] {
        match place {
            Place::Features => Shift::OF_A_BIT,
            Place::Item(item) if item.mask() == 1 => Shift::OF_A_BIT,
            _ => Shift::ALL,
        }
    }

    fn shift(state: &mut State, place: Place, shift: Shift) {
        match place {
            Place::Field(field) => state.vmcs.set(field, shift.of(state.vmcs.value(field))),
            Place::Item(item) => state.processor.set(item, shift.of(state.processor.value(item))),
            Place::Capability(index) => {
                state.capabilities.set(index, shift.of(state.capabilities.value(index)));
            }
            Place::Features => {
                let all = shift == Shift::More;
                state.processor.set_features(if all { FeatureSet::all() } else { FeatureSet::none() });
            }
            Place::Memory => state.memory_shift = Some(shift),
        }
    }

    fn restore(state: &mut State, original: &State, place: Place) {
        match place {
            Place::Field(field) => state.vmcs.set(field, original.vmcs.value(field)),
            Place::Item(item) => state.processor.set(item, original.processor.value(item)),
            Place::Capability(index) => state.capabilities.set(index, original.capabilities.value(index)),
            Place::Features => {
                let features = original.processor.features().copied().unwrap_or_else(FeatureSet::none);
                state.processor.set_features(features);
            }
            Place::Memory => state.memory_shift = original.memory_shift,
        }
    }

    fn value(state: &State, place: Place) -> Option<(u64, u32)> {
        match place {
            Place::Field(field) => Some((state.vmcs.value(field), field.width().bits())),
            Place::Item(item) => Some((state.processor.value(item), 64 - item.mask().leading_zeros())),
            Place::Capability(index) => Some((state.capabilities.value(index), 64)),
            Place::Features | Place::Memory => None,
        }
    }

    fn put(state: &mut State, place: Place, value: u64) {
        match place {
            Place::Field(field) => state.vmcs.set(field, value),
            Place::Item(item) => state.processor.set(item, value),
            Place::Capability(index) => state.capabilities.set(index, value),
            Place::Features | Place::Memory => {}
        }
    }
}

/// States that no single change of a base reaches: several things are unusual at once. `elsewhere` is every word of memory
/// that is not named; an entry of the VM-entry MSR-load area behind the 512th counts only if the list may be so long.
const CORNERS: &[&str] = &[
    // What the TRUE capability MSRs say is not what the others say, and they count.
    "64-bit guest; capability 48d=1600000016",
    "64-bit guest; capability 48e=401e172",
    "64-bit guest; capability 48f=36dff00036dff",
    "64-bit guest; capability 490=11ff000011ff",
    "64-bit guest; capability 481=1600000016",
    "64-bit guest; capability 482=401e172",
    "64-bit guest; capability 483=36dff00036dff",
    "64-bit guest; capability 484=11ff000011ff",
    // The TRUE capability MSRs do not count.
    "64-bit guest; capability 480=1040000000004; capability 481=1600000016",
    "64-bit guest; capability 480=1040000000004; capability 482=401e172",
    "64-bit guest; capability 480=1040000000004; capability 482=fff9fffe0401e172; PrimaryControls=401e172",
    "64-bit guest; capability 480=1040000000004; capability 483=36dff00036dff",
    "64-bit guest; capability 480=1040000000004; capability 484=11ff000011ff",
    "64-bit guest; capability 480=7fffffffffffff; capability 481=1600000016",
    "64-bit guest; capability 480=7fffffffffffff; capability 482=401e172",
    "64-bit guest; capability 480=7fffffffffffff; capability 483=36dff00036dff",
    "64-bit guest; capability 480=7fffffffffffff; capability 484=11ff000011ff",
    "64-bit guest; capability 480=80000000000000; capability 481=1600000016",
    "64-bit guest; capability 480=80000000000000; capability 482=401e172",
    "64-bit guest; capability 480=80000000000000; capability 483=36dff00036dff",
    "64-bit guest; capability 480=80000000000000; capability 484=11ff000011ff",
    "64-bit guest; capability 480=7fffffffffffff; capability 481=ffffffffffff",
    "64-bit guest; capability 480=80000000000000; capability 481=ffffffffffff",
    "64-bit guest; capability 480=40000000000000; capability 481=ffffffffffff",
    "pending MTF exit injected; capability 480=1040000000004",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=fff9fffe",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=7fffffffffffffe",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=800000000000000",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=400000000000000",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=7ffffffffffffff",
    "pending MTF exit injected; capability 480=1040000000004; capability 482=1000000000000000",
    // A PDPTE in memory is bad, and EPT decides whether it counts.
    "PAE guest with EPT; @5000=6003",
    "PAE guest with EPT; @5008=6003",
    "PAE guest with EPT; @5010=6003",
    "PAE guest with EPT; @5018=6003",
    "PAE guest without EPT; @5000=6003; SecondaryControls=2",
    "PAE guest without EPT; @5008=6003; SecondaryControls=2",
    "PAE guest without EPT; @5010=6003; SecondaryControls=2",
    "PAE guest without EPT; @5018=6003; SecondaryControls=2",
    "PAE guest without EPT; @5018=400000000001",
    "PAE guest without EPT; @5018=200000000001",
    "PAE guest without EPT; @5018=2000000001",
    "PAE guest with EPT; GuestPdpte3=400000000001",
    "PAE guest with EPT; GuestPdpte3=200000000001",
    // The 513th entry of the MSR-load area is bad.
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=c0000100",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=800",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=9b",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=79",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=100000174",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=201; elsewhere=174; @102000=277",
    // EFER is loaded from the area, against the mode of the guest.
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=1; @100000=c0000080; @100008=500",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=1; @100000=c0000080; @100008=401",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=1; @100000=c0000080; @100008=d01",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=1; @100000=c0000080; @100008=d01; no features",
    "64-bit guest; EntryMsrLoadAddress=100000; EntryMsrLoadCount=1; @100000=6a2; @100008=3; no features",
    // A processor without any feature.
    "64-bit guest with every plain control; no features; GuestEfer=d01",
    "64-bit guest with every plain control; no features; HostEfer=d01",
    "64-bit guest with every plain control; no features; GuestEfer=500",
    "64-bit guest with every plain control; no features; GuestSCet=3",
    "64-bit guest with every plain control; no features; HostSCet=3",
    "CET on in guest and host; no features; GuestSCet=7fff800000000004",
    "CET on in guest and host; no features; HostSCet=7fff800000000004",
];

impl Pool for Vmx {
    const TABLE: &'static str = "rules-vmx";
    const GOLDEN: &'static str = include_str!("../../golden/rules-vmx.txt");
    const FILE: &'static str = "tests/golden/rules-vmx.txt";
    const CORNERS: &'static [&'static str] = CORNERS;

    fn offer(rule: usize, visit: &mut dyn FnMut(&State, &dyn Fn() -> String) -> bool) {
        for text in CORNERS {
            let state = Vmx::state(text).unwrap_or_else(|| panic!("no such state: {text}"));
            if !visit(&state, &|| (*text).to_owned()) {
                return;
            }
        }
        for base in BASES {
            let built = (base.build)();
            let valid = State::from(&built);
            if !visit(&valid, &|| base.name.to_owned()) {
                return;
            }
            let mut edited = valid.clone();
            let mut go_on = true;
            edits(&RULES[rule], &built, |edit| {
                if !go_on {
                    return;
                }
                let undo = match edit.place {
                    rules::Place::Field(field) => {
                        edited.vmcs.set(field, edit.value);
                        Some(Place::Field(field))
                    }
                    rules::Place::Processor(item) => {
                        edited.processor.set(item, edit.value);
                        Some(Place::Item(item))
                    }
                    rules::Place::Memory(_) => {
                        let mut changed = built.clone();
                        edit.apply(&mut changed);
                        edited.memory = Arc::new(changed.memory);
                        None
                    }
                };
                let place = match edit.place {
                    rules::Place::Field(field) => format!("{field:?}"),
                    rules::Place::Processor(item) => format!("{item:?}"),
                    rules::Place::Memory(address) => format!("@{:x}", address.0),
                };
                go_on = visit(&edited, &|| format!("{}; {place}={:x}", base.name, edit.value));
                match undo {
                    Some(place) => Vmx::restore(&mut edited, &valid, place),
                    None => edited.memory = Arc::clone(&valid.memory),
                }
            });
            if !go_on {
                return;
            }
        }
    }

    fn state(text: &str) -> Option<State> {
        let mut parts = text.split("; ");
        let name = parts.next()?;
        let mut built = (BASES.iter().find(|base| base.name == name)?.build)();
        let (mut changes, mut fill, mut features) = (Vec::new(), None, true);
        for part in parts {
            if part == "no features" {
                features = false;
                continue;
            }
            let (place, value) = part.split_once('=')?;
            let value = u64::from_str_radix(value, 16).ok()?;
            if place == "elsewhere" {
                fill = Some(value);
            } else if let Some(address) = place.strip_prefix('@') {
                built.put(rules::Place::Memory(HostPhysical(u64::from_str_radix(address, 16).ok()?)), value);
            } else {
                changes.push((*PLACES.get(place)?, value));
            }
        }
        let mut state = State::from(&built);
        if let Some(fill) = fill {
            state.memory = Arc::new(Filled { words: built.memory.clone(), fill });
        }
        if !features {
            state.processor.set_features(FeatureSet::none());
        }
        for (place, value) in changes {
            Vmx::value(&state, place)?;
            Vmx::put(&mut state, place, value);
        }
        Some(state)
    }

    fn place(text: &str) -> Option<Place> {
        PLACES.get(text).copied()
    }

    fn peers_notice(rule: usize, change: &Change<Place>) -> bool {
        peers::vmx_notices(rule, change)
    }
}
