//! Values that would satisfy a violated rule.

use super::look::Look;
use super::{EntryContext, Judgement, PhysicalMemory, Rule, judge_all};
use crate::vmcb::{Field, Vmcb, Vmsa};
use rootmode_arch::HostPhysical;

/// What a repair changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of the VMCB.
    Vmcb(Field),
    /// A field of the VMSA.
    Vmsa(Field),
    /// The quadword at this address.
    Memory(HostPhysical),
}

/// One change that satisfies a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// What to change.
    pub place: Place,
    /// To which value.
    pub value: u64,
}

/// Alternatives, best first: each alone satisfies the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Corrections {
    list: [Option<Correction>; 4],
    count: usize,
}

impl Corrections {
    /// The alternatives, best first.
    pub fn iter(&self) -> impl Iterator<Item = Correction> + '_ {
        self.list[..self.count].iter().flatten().copied()
    }
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Adds an alternative unless it is there already; beyond four they are dropped.
    fn push(&mut self, repair: Correction) {
        if self.count < self.list.len() && !self.iter().any(|other| other == repair) {
            self.list[self.count] = Some(repair);
            self.count += 1;
        }
    }
    /// Proposes a value of a control field.
    pub(super) fn control(&mut self, field: Field, value: u64) {
        self.push(Correction { place: Place::Vmcb(field), value: value & field.mask() });
    }
    /// Proposes to change the bits of a control field: `clear`, then `set`.
    pub(super) fn control_bits(&mut self, cx: &Look, field: Field, clear: u64, set: u64) {
        if let Ok(value) = cx.control(field) {
            self.control(field, value & !clear | set);
        }
    }
    /// Proposes a value of a VMSA field.
    pub(super) fn vmsa(&mut self, field: Field, value: u64) {
        self.push(Correction { place: Place::Vmsa(field), value: value & field.mask() });
    }
    /// Proposes to change the bits of a VMSA field: `clear`, then `set`.
    pub(super) fn vmsa_bits(&mut self, cx: &Look, field: Field, clear: u64, set: u64) {
        if let Ok(value) = cx.vmsa(field) {
            self.vmsa(field, value & !clear | set);
        }
    }
    /// Proposes to change the bits of a field of the guest's state: `clear`, then `set`.
    pub(super) fn guest_bits(&mut self, cx: &Look, field: Field, clear: u64, set: u64) {
        match cx.is_sev_es() {
            Ok(true) => self.vmsa_bits(cx, field, clear, set),
            Ok(false) => self.control_bits(cx, field, clear, set),
            Err(_) => {}
        }
    }
    /// Proposes a value of the quadword at `address`.
    pub(super) fn memory(&mut self, address: HostPhysical, value: u64) {
        self.push(Correction { place: Place::Memory(address), value });
    }
}

/// Memory in which one quadword is replaced.
struct Patched<'a> {
    memory: &'a dyn PhysicalMemory,
    address: HostPhysical,
    value: u64,
}

impl PhysicalMemory for Patched<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        if address == self.address { Some(self.value) } else { self.memory.read_u64(address) }
    }
}

impl Correction {
    /// Runs `look` with a copy of the context in which the change is made.
    pub fn with_applied<R>(&self, cx: &EntryContext, look: impl FnOnce(&EntryContext) -> R) -> R {
        let mut vmcb = cx.vmcb.clone();
        let mut vmsa = cx.vmsa.cloned().unwrap_or_else(Vmsa::unknown);
        let has_vmsa = cx.vmsa.is_some();
        self.apply(&mut vmcb, &mut vmsa);
        let (address, value) = match self.place {
            Place::Memory(address) => (address, self.value),
            Place::Vmcb(_) | Place::Vmsa(_) => {
                return look(&EntryContext { vmcb: &vmcb, vmsa: has_vmsa.then_some(&vmsa), ..*cx });
            }
        };
        let memory = Patched { memory: cx.memory, address, value };
        look(&EntryContext { memory: &memory, ..*cx })
    }

    /// Makes the change, unless it is one of memory.
    pub fn apply(&self, vmcb: &mut Vmcb, vmsa: &mut Vmsa) {
        match self.place {
            Place::Vmcb(field) => {
                vmcb.set(field, self.value);
            }
            Place::Vmsa(field) => {
                vmsa.set(field, self.value);
            }
            Place::Memory(_) => {}
        }
    }
}

/// Changes that satisfy `rule`, best first; each was judged again: it satisfies the rule and breaks no other.
/// Empty if the rule is not violated.
pub fn nearest(cx: &EntryContext, rule: &Rule) -> Corrections {
    let mut good = Corrections::default();
    if rule.judge(cx) != Judgement::Violated {
        return good;
    }
    let mut proposed = Corrections::default();
    (rule.propose)(&Look::new(cx), &mut proposed);
    for repair in proposed.iter() {
        let helps = repair.with_applied(cx, |after| {
            rule.judge(after) == Judgement::Satisfied
                && judge_all(after)
                    .all(|(other, now)| now != Judgement::Violated || other.judge(cx) == Judgement::Violated)
        });
        if helps {
            good.push(repair);
        }
    }
    good
}
