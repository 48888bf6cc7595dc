//! Which status flags an instruction of a block writes in vain: the next ones overwrite them before anyone can look.

use super::super::execute::flags::{CF, OF, STATUS};

/// What a quick form does to the status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlagUse {
    /// Flags that it reads.
    pub(super) reads: u64,
    /// Flags that it always replaces.
    pub(super) writes: u64,
    /// Something else may look at the flags before it completes: it can fault, or hand over.
    pub(super) observable: bool,
}

impl FlagUse {
    /// Neither reads nor writes; cannot fault.
    pub(super) const NONE: Self = Self { reads: 0, writes: 0, observable: false };
    /// Replaces all; cannot fault.
    pub(super) const ALL: Self = Self { writes: STATUS, ..Self::NONE };
    /// Replaces all but CF (INC, DEC).
    pub(super) const BUT_CARRY: Self = Self { writes: STATUS & !CF, ..Self::NONE };
    /// Replaces CF (BT).
    pub(super) const CARRY: Self = Self { writes: CF, ..Self::NONE };
    /// Replaces CF and OF (rotates).
    pub(super) const ROTATE: Self = Self { writes: CF | OF, ..Self::NONE };
    /// Anything may happen.
    pub(super) const ANY: Self = Self { reads: STATUS, writes: 0, observable: true };
}

/// For each use, whether any flag that it writes is needed.
pub(super) fn needed(uses: &[FlagUse]) -> Vec<bool> {
    let mut live = STATUS;
    let mut needed = vec![true; uses.len()];
    for (at, flags) in uses.iter().enumerate().rev() {
        needed[at] = flags.writes & live != 0;
        live = if flags.observable { STATUS } else { live & !flags.writes | flags.reads };
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_needed_until_all_of_them_are_overwritten() {
        let rotate = FlagUse::ROTATE;
        // add; xor; lea; rol; dec; jnz of the next block: only ROL's carry and DEC's flags are seen.
        let uses = [FlagUse::ALL, FlagUse::ALL, FlagUse::NONE, rotate, FlagUse::BUT_CARRY, FlagUse::ANY];
        assert_eq!(needed(&uses), [false, false, false, true, true, false]);
    }

    #[test]
    fn a_load_that_may_fault_keeps_the_flags_before_it() {
        let load = FlagUse { observable: true, ..FlagUse::NONE };
        assert_eq!(needed(&[FlagUse::ALL, load, FlagUse::ALL]), [true, false, true]);
    }
}
