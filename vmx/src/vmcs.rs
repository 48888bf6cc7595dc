//! A VMCS as values: what VMREAD would return for each field, and which fields are known.
//! A dump with gaps and a complete VMCS are the same type.

use crate::definitions::field::{Access, Field, FieldSet, Width};

/// Values of VMCS fields. Unknown fields read as 0.
#[derive(Clone, PartialEq, Eq)]
pub struct Vmcs {
    values: [u64; Field::COUNT],
    known: FieldSet,
}

impl Vmcs {
    /// No field known.
    pub const fn unknown() -> Self {
        Self { values: [0; Field::COUNT], known: FieldSet::none() }
    }
    /// Every field known to be 0.
    pub const fn zeroed() -> Self {
        Self { values: [0; Field::COUNT], known: FieldSet::all() }
    }
    /// What `vmread` answers for every field; a field for which it answers `None` stays unknown.
    pub fn read(vmread: impl Fn(Field) -> Option<u64>) -> Self {
        let mut vmcs = Self::unknown();
        for field in Field::ALL {
            if let Some(value) = vmread(field) {
                vmcs.set(field, value);
            }
        }
        vmcs
    }

    /// The value, if known.
    pub fn get(&self, field: Field) -> Option<u64> {
        self.known.has(field).then(|| self.value(field))
    }
    /// The value, 0 if unknown.
    #[inline]
    pub fn value(&self, field: Field) -> u64 {
        self.values[field.index()]
    }
    /// Makes `field` known, with the bits of `value` that its width has.
    pub fn set(&mut self, field: Field, value: u64) {
        self.values[field.index()] = value & field.width().mask();
        self.known.insert(field);
    }
    /// The same with `field` set.
    #[must_use]
    pub fn with(mut self, field: Field, value: u64) -> Self {
        self.set(field, value);
        self
    }
    /// Makes `field` unknown.
    pub fn forget(&mut self, field: Field) {
        self.values[field.index()] = 0;
        self.known.remove(field);
    }
    /// VMREAD: the value behind an encoding, high halves included.
    pub fn read_encoding(&self, encoding: u32) -> Option<u64> {
        let (field, access) = Field::from_encoding(encoding)?;
        let value = self.get(field)?;
        Some(if access == Access::High { value >> 32 } else { value })
    }
    /// VMWRITE: sets the field behind an encoding, or its high half; false if no field has it.
    pub fn write_encoding(&mut self, encoding: u32, value: u64) -> bool {
        match Field::from_encoding(encoding) {
            None => false,
            Some((field, Access::Full)) => {
                self.set(field, value);
                true
            }
            Some((field, Access::High)) => {
                debug_assert_eq!(field.width(), Width::Bits64);
                self.set(field, self.value(field) & 0xffff_ffff | value << 32);
                true
            }
        }
    }
    /// Which fields are known.
    pub const fn known(&self) -> &FieldSet {
        &self.known
    }
    /// Whether every field is known.
    pub const fn is_complete(&self) -> bool {
        self.known.is_all()
    }
}

impl core::fmt::Debug for Vmcs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut map = f.debug_map();
        for field in self.known.iter() {
            map.entry(&field, &format_args!("{:#x}", self.value(field)));
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_to_the_width_of_its_field() {
        let vmcs = Vmcs::unknown().with(Field::Vpid, 0x12345).with(Field::GuestRip, !0);
        assert_eq!(vmcs.get(Field::Vpid), Some(0x2345));
        assert_eq!(vmcs.get(Field::GuestRip), Some(!0));
        assert_eq!(vmcs.get(Field::HostRip), None);
    }

    #[test]
    fn a_high_half_is_read_and_written_through_its_odd_encoding() {
        let mut vmcs = Vmcs::zeroed().with(Field::Eptp, 0x1_2345_6789_abcd);
        assert_eq!(vmcs.read_encoding(0x201b), Some(0x1_2345));
        assert!(vmcs.write_encoding(0x201b, 7));
        assert_eq!(vmcs.get(Field::Eptp), Some(0x7_6789_abcd));
        assert!(!vmcs.write_encoding(0x6c17, 0), "a natural-width field has no high half");
    }

    #[test]
    fn a_forgotten_field_is_unknown_again() {
        let mut vmcs = Vmcs::zeroed();
        assert!(vmcs.is_complete());
        vmcs.forget(Field::GuestCr3);
        assert_eq!((vmcs.is_complete(), vmcs.get(Field::GuestCr3)), (false, None));
    }
}
