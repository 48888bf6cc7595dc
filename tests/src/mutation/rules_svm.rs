//! The rules of VMRUN as a subject of mutation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use rootmode_arch::{Cr0, Efer, FeatureSet, HostPhysical};
use rootmode_svm::boundary::{Case, Witness};
use rootmode_svm::capabilities::Processor;
use rootmode_svm::rules::{EntryContext, Host, HostValue, Judgement, PhysicalMemory, RULES};
use rootmode_svm::vmcb::{Area, Field, TABLE as FIELDS, Vmcb, Vmsa};

use super::peers;
use super::rules::{Answer, Change, Pool, Shift, Subject, around};

/// The rules of VMRUN.
#[derive(Debug)]
pub struct Svm;

/// What a rule reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A field where it counts: guest state of an encrypted guest in the VMSA, all else in the VMCB.
    Field(Field),
    /// A value of the host; for those that are true or false one more is the other, one place down is false.
    Host(HostValue),
    /// MAXPHYADDR.
    PhysicalBits,
    /// ASIDs of encrypted guests.
    EncryptedGuests,
    /// The least ASID of a guest with SEV but without SEV-ES.
    MinAsid,
    /// The CPUID features: one more stands for all of them, one place down for none.
    Features,
    /// Every quadword of memory.
    Memory,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Field(field) => write!(f, "{field:?}"),
            Place::Host(value) => write!(f, "host {value:?}"),
            Place::PhysicalBits => write!(f, "physical bits"),
            Place::EncryptedGuests => write!(f, "encrypted guests"),
            Place::MinAsid => write!(f, "least ASID"),
            Place::Features => write!(f, "features"),
            Place::Memory => write!(f, "memory"),
        }
    }
}

const HOST_VALUES: [HostValue; 9] = [
    HostValue::Cr0,
    HostValue::Efer,
    HostValue::In64BitMode,
    HostValue::UCet,
    HostValue::SmmLock,
    HostValue::MemoryEncryption,
    HostValue::SecureNestedPaging,
    HostValue::IbsEnabled,
    HostValue::SiblingIdle,
];

/// Places that no rule names; a rule reads them if they change its answer.
const UNNAMED: [Place; 4] = [Place::PhysicalBits, Place::EncryptedGuests, Place::MinAsid, Place::Features];

static PLACES: LazyLock<BTreeMap<String, Place>> = LazyLock::new(|| {
    let fields = FIELDS.iter().map(|row| Place::Field(row.field));
    let host = HOST_VALUES.into_iter().map(Place::Host);
    let all = fields.chain(host).chain(UNNAMED).chain([Place::Memory]);
    all.map(|place| (format!("{place:?}"), place)).collect()
});

/// Everything that the rules read.
#[derive(Clone)]
pub struct State {
    /// The processor model.
    pub processor: Processor,
    /// The VMCB.
    pub vmcb: Vmcb,
    /// The VMSA, which counts if the guest is encrypted.
    pub vmsa: Vmsa,
    /// Whether it is.
    pub encrypted: bool,
    /// The host.
    pub host: Host,
    /// Memory.
    pub memory: Arc<dyn PhysicalMemory + Send + Sync>,
    /// How quadwords of memory are shifted before they are read.
    pub memory_shift: Option<Shift>,
}

impl From<Case> for State {
    fn from(case: Case) -> Self {
        Self {
            processor: case.processor,
            vmcb: case.vmcb,
            vmsa: case.vmsa,
            encrypted: case.encrypted,
            host: case.host,
            memory: Arc::new(case.memory),
            memory_shift: None,
        }
    }
}

impl PhysicalMemory for State {
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
            processor: &self.processor,
            vmcb: &self.vmcb,
            vmsa: self.encrypted.then_some(&self.vmsa),
            host: self.host,
            memory: self,
        }
    }

    fn is_in_vmsa(&self, field: Field) -> bool {
        match field.row().area {
            Area::Control => false,
            Area::Save => self.encrypted,
            Area::Vmsa => true,
        }
    }

    fn field(&self, field: Field) -> u64 {
        let value = if self.is_in_vmsa(field) { self.vmsa.get(field) } else { self.vmcb.get(field) };
        value.unwrap_or(0)
    }

    fn store(&mut self, field: Field, value: u64) {
        if self.is_in_vmsa(field) {
            self.vmsa.set(field, value);
        } else {
            self.vmcb.set(field, value);
        }
    }
}

fn forget_host(host: &mut Host, value: HostValue) {
    match value {
        HostValue::Cr0 => host.cr0 = None,
        HostValue::Efer => host.efer = None,
        HostValue::In64BitMode => host.in_64_bit_mode = None,
        HostValue::UCet => host.u_cet = None,
        HostValue::SmmLock => host.smm_locked = None,
        HostValue::MemoryEncryption => host.memory_encryption = None,
        HostValue::SecureNestedPaging => host.secure_nested_paging = None,
        HostValue::IbsEnabled => host.ibs_enabled = None,
        HostValue::SiblingIdle => host.sibling_idle = None,
    }
}

fn shift_host(host: &mut Host, value: HostValue, shift: Shift) {
    let flag = |flag: &mut Option<bool>| *flag = flag.map(|on| shift == Shift::More && !on);
    match value {
        HostValue::Cr0 => host.cr0 = host.cr0.map(|cr0| Cr0(shift.of(cr0.0))),
        HostValue::Efer => host.efer = host.efer.map(|efer| Efer(shift.of(efer.0))),
        HostValue::UCet => host.u_cet = host.u_cet.map(|u_cet| shift.of(u_cet)),
        HostValue::In64BitMode => flag(&mut host.in_64_bit_mode),
        HostValue::SmmLock => flag(&mut host.smm_locked),
        HostValue::MemoryEncryption => flag(&mut host.memory_encryption),
        HostValue::SecureNestedPaging => flag(&mut host.secure_nested_paging),
        HostValue::IbsEnabled => flag(&mut host.ibs_enabled),
        HostValue::SiblingIdle => flag(&mut host.sibling_idle),
    }
}

impl Subject for Svm {
    type State = State;
    type Place = Place;

    fn ids() -> Vec<&'static str> {
        RULES.iter().map(|rule| rule.id).collect()
    }

    fn ask(rule: usize, state: &State) -> Answer {
        match RULES[rule].judge(&state.context()) {
            Judgement::Satisfied => Answer::Holds,
            Judgement::Violated => Answer::Broken(0),
            Judgement::Unknown(_) => Answer::Unknown,
        }
    }

    fn reads(rule: usize, state: &State) -> Vec<Place> {
        let row = &RULES[rule];
        let mut context = state.context();
        let mut places: Vec<Place> = row.fields.iter().map(|field| Place::Field(*field)).collect();
        let answer = row.judge(&context);
        if matches!(answer, Judgement::Unknown(_)) {
            return places;
        }
        for value in HOST_VALUES {
            forget_host(&mut context.host, value);
            if matches!(row.judge(&context), Judgement::Unknown(_)) {
                places.push(Place::Host(value));
            }
            context.host = state.host;
        }
        let no_memory = rootmode_svm::rules::NoMemory;
        if matches!(row.judge(&context.with_memory(&no_memory)), Judgement::Unknown(_)) {
            places.push(Place::Memory);
        }
        for place in UNNAMED {
            let changes = Svm::shifts(place).iter().any(|shift| {
                let mut processor = state.processor;
                shift_processor(&mut processor, place, *shift);
                row.judge(&EntryContext { processor: &processor, ..state.context() }) != answer
            });
            if changes {
                places.push(place);
            }
        }
        places
    }

    fn shifts(place: Place) -> &'static [Shift] {
        match place {
            Place::Host(HostValue::Cr0 | HostValue::Efer | HostValue::UCet) => Shift::ALL,
            Place::Host(_) | Place::Features => Shift::OF_A_BIT,
            Place::PhysicalBits => &[Shift::More, Shift::Less],
            _ => Shift::ALL,
        }
    }

    fn shift(state: &mut State, place: Place, shift: Shift) {
        match place {
            Place::Field(field) => state.store(field, shift.of(state.field(field))),
            Place::Host(value) => shift_host(&mut state.host, value, shift),
            Place::Memory => state.memory_shift = Some(shift),
            _ => shift_processor(&mut state.processor, place, shift),
        }
    }

    fn restore(state: &mut State, original: &State, place: Place) {
        match place {
            Place::Field(field) => state.store(field, original.field(field)),
            Place::Host(_) => state.host = original.host,
            Place::Memory => state.memory_shift = original.memory_shift,
            _ => state.processor = original.processor,
        }
    }

    fn value(state: &State, place: Place) -> Option<(u64, u32)> {
        let flag = |flag: Option<bool>| flag.map(|on| (u64::from(on), 1));
        let (host, sev) = (&state.host, &state.processor.sev);
        match place {
            Place::Field(field) => Some((state.field(field), 8 * field.size() as u32)),
            Place::Host(HostValue::Cr0) => host.cr0.map(|cr0| (cr0.0, 64)),
            Place::Host(HostValue::Efer) => host.efer.map(|efer| (efer.0, 64)),
            Place::Host(HostValue::UCet) => host.u_cet.map(|u_cet| (u_cet, 64)),
            Place::Host(HostValue::In64BitMode) => flag(host.in_64_bit_mode),
            Place::Host(HostValue::SmmLock) => flag(host.smm_locked),
            Place::Host(HostValue::MemoryEncryption) => flag(host.memory_encryption),
            Place::Host(HostValue::SecureNestedPaging) => flag(host.secure_nested_paging),
            Place::Host(HostValue::IbsEnabled) => flag(host.ibs_enabled),
            Place::Host(HostValue::SiblingIdle) => flag(host.sibling_idle),
            Place::EncryptedGuests => Some((sev.encrypted_guests.into(), 32)),
            Place::MinAsid => Some((sev.min_asid_without_es.into(), 32)),
            Place::PhysicalBits | Place::Features | Place::Memory => None,
        }
    }

    fn put(state: &mut State, place: Place, value: u64) {
        let on = Some(value & 1 != 0);
        match place {
            Place::Field(field) => state.store(field, value),
            Place::Host(HostValue::Cr0) => state.host.cr0 = Some(Cr0(value)),
            Place::Host(HostValue::Efer) => state.host.efer = Some(Efer(value)),
            Place::Host(HostValue::UCet) => state.host.u_cet = Some(value),
            Place::Host(HostValue::In64BitMode) => state.host.in_64_bit_mode = on,
            Place::Host(HostValue::SmmLock) => state.host.smm_locked = on,
            Place::Host(HostValue::MemoryEncryption) => state.host.memory_encryption = on,
            Place::Host(HostValue::SecureNestedPaging) => state.host.secure_nested_paging = on,
            Place::Host(HostValue::IbsEnabled) => state.host.ibs_enabled = on,
            Place::Host(HostValue::SiblingIdle) => state.host.sibling_idle = on,
            Place::EncryptedGuests => state.processor.sev.encrypted_guests = value as u32,
            Place::MinAsid => state.processor.sev.min_asid_without_es = value as u32,
            Place::PhysicalBits | Place::Features | Place::Memory => {}
        }
    }
}

fn shift_processor(processor: &mut Processor, place: Place, shift: Shift) {
    let sev = &mut processor.sev;
    match place {
        Place::PhysicalBits => {
            processor.physical_address_bits = shift.of(processor.physical_address_bits.into()) as u8;
        }
        Place::EncryptedGuests => sev.encrypted_guests = shift.of(sev.encrypted_guests.into()) as u32,
        Place::MinAsid => sev.min_asid_without_es = shift.of(sev.min_asid_without_es.into()) as u32,
        Place::Features => {
            let all = shift == Shift::More;
            *processor = processor.with_features(if all { FeatureSet::all() } else { FeatureSet::none() });
        }
        Place::Field(_) | Place::Host(_) | Place::Memory => {}
    }
}

/// The named state of a witness.
fn witnessed(text: &str) -> Option<Case> {
    let mut words = text.split(' ');
    let witness = Witness::of(words.next()?)?;
    let (kind, number) = (words.next()?, words.next().and_then(|number| number.parse().ok()));
    match (kind, number) {
        ("start", None) => Some(witness.start()),
        ("broken", Some(number)) => (number < witness.violations()).then(|| witness.violation(number)),
        ("edge", Some(number)) => (number < witness.edges()).then(|| witness.edge(number)),
        _ => None,
    }
}

/// Changes that make several things unusual at once, on top of any witness.
const CORNERS: [&str; 5] = [
    "no features",
    "NestedControl=7; host MemoryEncryption=0",
    "NestedControl=7; host MemoryEncryption=1",
    "encrypted",
    "encrypted; UCet=40",
];

/// Moves the guest's state into the VMSA, where the processor finds it with SEV-ES.
fn encrypt(state: &mut State) {
    for row in FIELDS.iter().filter(|row| row.area == Area::Save && row.size <= 8) {
        state.vmsa.set(row.field, state.vmcb.get(row.field).unwrap_or(0));
    }
    state.encrypted = true;
    let enables = state.vmcb.get(Field::NestedControl).unwrap_or(0) | 7;
    state.vmcb.set(Field::NestedControl, enables);
    state.host = Host { memory_encryption: Some(true), secure_nested_paging: Some(true), ..state.host };
}

impl Pool for Svm {
    const TABLE: &'static str = "rules-svm";
    const GOLDEN: &'static str = include_str!("../../golden/rules-svm.txt");
    const FILE: &'static str = "tests/golden/rules-svm.txt";
    const CORNERS: &'static [&'static str] = &[];

    fn offer(rule: usize, visit: &mut dyn FnMut(&State, &dyn Fn() -> String) -> bool) {
        let id = RULES[rule].id;
        let Some(witness) = Witness::of(id) else { return };
        let broken = (0..witness.violations()).map(|n| format!("{id} broken {n}"));
        let edges = (0..witness.edges()).map(|n| format!("{id} edge {n}"));
        let names: Vec<String> = broken.chain(edges).chain([format!("{id} start")]).collect();
        for name in &names {
            let Some(state) = witnessed(name).map(State::from) else { return };
            if !visit(&state, &|| name.clone()) {
                return;
            }
        }
        for name in &names {
            for corner in CORNERS {
                let text = format!("{name}; {corner}");
                if Svm::state(&text).is_some_and(|state| !visit(&state, &|| text.clone())) {
                    return;
                }
            }
        }
        for name in &names {
            let Some(state) = witnessed(name).map(State::from) else { return };
            let mut edited = state.clone();
            for field in RULES[rule].fields {
                let mut go_on = true;
                let original = state.field(*field);
                around(original, 8 * field.size() as u32, |value| {
                    edited.store(*field, value);
                    if go_on && edited.field(*field) != original {
                        go_on = visit(&edited, &|| format!("{name}; {field:?}={:x}", edited.field(*field)));
                    }
                });
                if !go_on {
                    return;
                }
                edited.store(*field, original);
            }
        }
    }

    fn state(text: &str) -> Option<State> {
        let mut parts = text.split("; ");
        let mut state = State::from(witnessed(parts.next()?)?);
        for part in parts {
            if part == "no features" {
                state.processor = state.processor.with_features(FeatureSet::none());
                continue;
            }
            if part == "encrypted" {
                encrypt(&mut state);
                continue;
            }
            let (place, value) = part.split_once('=')?;
            let place = *PLACES.get(place)?;
            Svm::value(&state, place)?;
            Svm::put(&mut state, place, u64::from_str_radix(value, 16).ok()?);
        }
        Some(state)
    }

    fn place(text: &str) -> Option<Place> {
        PLACES.get(text).copied()
    }

    fn peers_notice(rule: usize, change: &Change<Place>) -> bool {
        peers::svm_notices(rule, change)
    }
}
