//! What to change so that a broken rule holds: a search around the values that the rule read, each answer verified by asking the
//! rule again.

use super::{Judgement, RULES, Rule};
use crate::context::{EntryContext, Item, Memory};
use crate::definitions::controls::Word;
use crate::definitions::field::Field;
use rootmode_arch::{HostPhysical, msr};

/// Where a value stands that VM entry reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the VMCS.
    Field(Field),
    /// In the logical processor.
    Processor(Item),
    /// In memory: the 8 bytes at this address.
    Memory(HostPhysical),
}

/// A single change after which a rule that was broken holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Where.
    pub place: Place,
    /// The value that would satisfy the rule.
    pub value: u64,
    /// How many rules are still, or then, broken.
    pub still_broken: usize,
}

/// The best single change after which `rule` holds: one that leaves the fewest rules broken, then the one that is about what
/// the rule is about first, then the one that differs in the fewest bits. `None` if the rule is not broken.
pub fn nearest(rule: &Rule, context: &EntryContext<'_>) -> Option<Correction> {
    let mut best: Option<Correction> = None;
    corrections(rule, context, |found| {
        if best.is_none_or(|old| found.still_broken < old.still_broken) {
            best = Some(found);
        }
    });
    best
}

/// The best change at each place: the fields and processor values that the rule is about, then memory.
pub fn corrections(rule: &Rule, context: &EntryContext<'_>, mut each: impl FnMut(Correction)) {
    if !rule.judge(context).is_violated() {
        return;
    }
    for field in rule.fields {
        let value = context.vmcs.value(*field);
        let mut vmcs = context.vmcs.clone();
        let found = search(rule, context, value, field.width().mask(), |value, ask| {
            vmcs.set(*field, value);
            ask(&EntryContext { vmcs: &vmcs, ..*context });
        });
        each_found(&mut each, Place::Field(*field), found);
    }
    for item in rule.items {
        let value = context.processor.value(*item);
        let mut processor = context.processor.clone();
        let found = search(rule, context, value, item.mask(), |value, ask| {
            processor.set(*item, value);
            ask(&EntryContext { processor: &processor, ..*context });
        });
        each_found(&mut each, Place::Processor(*item), found);
    }
    for address in rule.reads(context).memory.into_iter().flatten() {
        let Some(value) = context.memory.read_u64(address) else { continue };
        let found = search(rule, context, value, !0, |value, ask| {
            let memory = Replaced { memory: context.memory, address, value };
            ask(&EntryContext { memory: &memory, ..*context });
        });
        each_found(&mut each, Place::Memory(address), found);
    }
}

fn each_found(each: &mut impl FnMut(Correction), place: Place, found: Option<(u64, usize)>) {
    if let Some((value, still_broken)) = found {
        each(Correction { place, value, still_broken });
    }
}

/// Memory with one word replaced.
struct Replaced<'a> {
    memory: &'a dyn Memory,
    address: HostPhysical,
    value: u64,
}

impl Memory for Replaced<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        if address == self.address { Some(self.value) } else { self.memory.read_u64(address) }
    }
}

/// A question put to a changed context.
type Question<'q> = &'q mut dyn FnMut(&EntryContext<'_>);

/// The value that satisfies `rule` with the fewest rules broken and the fewest bits changed, and the number of broken rules.
/// `change` puts a value in place and asks a question about the context that results.
fn search(
    rule: &Rule,
    context: &EntryContext<'_>,
    old: u64,
    mask: u64,
    mut change: impl FnMut(u64, Question<'_>),
) -> Option<(u64, usize)> {
    let mut holds = |value: u64| {
        let mut answer = false;
        change(value, &mut |context| answer = rule.judge(context).is_satisfied());
        answer
    };
    // Two candidates are kept, for the last comparison asks every rule: fewest bits, and closest number.
    let mut by_bits: Option<u64> = None;
    let mut by_distance: Option<u64> = None;
    candidates(old, mask, &hints(rule, context), |value| {
        if value == old || !holds(value) {
            return;
        }
        // Take back every change that is not needed, from the top.
        let mut value = value;
        for bit in (0..64).rev().map(|bit| 1u64 << bit) {
            if (value ^ old) & bit != 0 && value ^ bit != old && holds(value ^ bit) {
                value ^= bit;
            }
        }
        if by_bits.is_none_or(|best| (value ^ old).count_ones() < (best ^ old).count_ones()) {
            by_bits = Some(value);
        }
        if by_distance.is_none_or(|best| value.abs_diff(old) < best.abs_diff(old)) {
            by_distance = Some(value);
        }
    });
    let mut broken = |value: u64| {
        let (mut count, mut unknown) = (0, 0);
        change(value, &mut |context| {
            for other in &RULES {
                match other.judge(context) {
                    Judgement::Satisfied => {}
                    Judgement::Violated { .. } => count += 1,
                    Judgement::Unknown(_) => unknown += 1,
                }
            }
        });
        (value, count, unknown)
    };
    let (first, second) = (broken(by_bits?), broken(by_distance?));
    let best = if (second.1, second.2) < (first.1, first.2) { second } else { first };
    Some((best.0, best.1))
}

/// Values that the rule may want, taken from capabilities and from the other fields that it reads.
fn hints(rule: &Rule, context: &EntryContext<'_>) -> [u64; 16] {
    let mut hints = [0; 16];
    let mut add = {
        let mut next = 0;
        let hints = &mut hints;
        move |value: u64| {
            if next < hints.len() {
                hints[next] = value;
                next += 1;
            }
        }
    };
    let caps = context.capabilities;
    for word in Word::ALL {
        if let Some(field) = word.field()
            && rule.fields.contains(&field)
            && let Some(allowed) = caps.allowed(word)
        {
            add(allowed.nearest(context.vmcs.value(field)));
            add(allowed.required);
        }
    }
    add(caps.value(msr::IA32_VMX_CR0_FIXED0));
    add(caps.value(msr::IA32_VMX_CR4_FIXED0));
    add(caps.value(msr::IA32_VMX_BASIC) & 0x7fff_ffff);
    for field in rule.fields {
        add(context.vmcs.value(*field) << 4);
        add(context.vmcs.value(*field));
    }
    add(1 << (context.processor.value(Item::PhysicalWidth) & 63));
    hints
}

/// Values around `old`: what generators and corrections try. May repeat.
pub(crate) fn candidates(old: u64, mask: u64, hints: &[u64], mut each: impl FnMut(u64)) {
    let mut each = |value: u64| each(value & mask);
    for bit in 0..64 {
        each(old ^ 1 << bit);
    }
    for bit in 0..63 {
        each(old ^ 3 << bit);
    }
    for small in 0..32 {
        each(small);
        each(old & !0xff | small);
        each(old & !0xf | small & 0xf);
        each(old & !0xfff | 0x800 | old & 0x700 | small);
    }
    for value in [!0, 0xff, 0x100, 0xffff, 0x1_0000, 0xf3, 0x1000, 0xffff_ffff, 1 << 32] {
        each(value);
    }
    each(old.wrapping_add(1));
    each(old.wrapping_sub(1));
    for k in 1..64 {
        each(old >> k << k);
        each(old << k >> k);
    }
    for unused in [7, 16] {
        each(((old << unused) as i64 >> unused) as u64);
    }
    for hint in hints {
        each(*hint);
        each(hint.wrapping_sub(1));
        each(hint.wrapping_sub(old));
        each(old & *hint);
        each(old | *hint);
    }
}
