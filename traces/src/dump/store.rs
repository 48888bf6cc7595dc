//! Puts the numbers of a dump's lines into the structure that it shows.

use std::collections::BTreeMap;

use rootmode_vmx::Field;

use super::template::Target;
use super::types::{Dump, DumpState, EferOrigin, Reason, Source, Sourced, VmcbKey};

/// Whether the dump has a value for this already.
pub(super) fn has(dump: &Dump, target: Target) -> bool {
    match (&dump.state, target) {
        (DumpState::Vmcs(v), Target::Vmcs(encoding)) => {
            field(encoding).is_some_and(|f| v.fields.contains_key(&f))
        }
        (DumpState::Vmcb(v), Target::Vmcb(offset, size)) => v.fields.contains_key(&VmcbKey { offset, size }),
        _ => false,
    }
}

/// Puts a number where it belongs.
pub(super) fn store(
    dump: &mut Dump,
    target: Target,
    value: u64,
    digits: u8,
    line: u32,
    text: &str,
) -> Result<(), Reason> {
    let sourced = Sourced { value, line, source: Source::Kernel };
    match (&mut dump.state, target) {
        (DumpState::Vmcs(vmcs), Target::Vmcs(encoding)) => match field(encoding) {
            Some(field) => put(&mut vmcs.fields, field, sourced, bits(field)),
            None => Ok(()),
        },
        (DumpState::Vmcs(vmcs), Target::GuestEfer) => {
            // Cut short, the words still say that this is not the field.
            let origin = text.split_once('(').map(|(_, word)| match word.as_bytes().first() {
                Some(b'a') => EferOrigin::Autoload,
                _ => EferOrigin::Effective,
            });
            match origin {
                Some(origin) => {
                    vmcs.effective_efer = Some((sourced, origin));
                    Ok(())
                }
                None => put(&mut vmcs.fields, Field::GuestEfer, sourced, 64),
            }
        }
        (DumpState::Vmcb(vmcb), Target::Vmcb(offset, size)) => {
            // Decimal numbers are signed; a negative one of a narrow field was extended to 64 bits.
            let extension = if size < 8 { u64::MAX << (size * 8) } else { 0 };
            let negative = digits < 16 && value & extension == extension;
            let sourced = Sourced { value: if negative { value & !extension } else { value }, ..sourced };
            put(&mut vmcb.fields, VmcbKey { offset, size }, sourced, size * 8)
        }
        (DumpState::Vmcb(vmcb), Target::Intercepts) if digits > 8 => {
            let low = Sourced { value: value & 0xffff_ffff, ..sourced.clone() };
            let high = Sourced { value: value >> 32, ..sourced };
            put(&mut vmcb.fields, VmcbKey { offset: 0x00c, size: 4 }, low, 32)?;
            put(&mut vmcb.fields, VmcbKey { offset: 0x010, size: 4 }, high, 32)
        }
        (DumpState::Vmcb(vmcb), Target::Intercepts) => {
            put(&mut vmcb.fields, VmcbKey { offset: 0x00c, size: 4 }, sourced, 32)
        }
        _ => Ok(()),
    }
}

/// Stores a value unless it is too wide or contradicts the one that is there.
pub(super) fn put<K: Ord>(
    fields: &mut BTreeMap<K, Sourced<u64>>,
    key: K,
    value: Sourced<u64>,
    bits: u8,
) -> Result<(), Reason> {
    if bits < 64 && value.value >> bits != 0 {
        return Err(Reason::TooWide { bits });
    }
    match fields.get(&key) {
        Some(old) if old.value != value.value => Err(Reason::Conflict { first: old.line }),
        Some(_) => Ok(()),
        None => {
            fields.insert(key, value);
            Ok(())
        }
    }
}

/// The field with an encoding of one of our tables, which name only fields that exist.
pub(super) fn field(encoding: u32) -> Option<Field> {
    Field::from_encoding(encoding).map(|(field, _)| field)
}

/// Width of a field in bits.
pub(super) fn bits(field: Field) -> u8 {
    field.width().bits() as u8
}

#[cfg(test)]
mod tests {
    use super::super::template::Target;
    use super::super::vmx_lines;
    use super::*;

    #[test]
    fn every_number_of_a_line_has_a_field() {
        for part in vmx_lines::LINES.iter().flat_map(|t| t.parts) {
            if let Target::Vmcs(encoding) = part.target {
                assert!(field(encoding).is_some(), "{encoding:#x}");
            }
        }
    }
}
