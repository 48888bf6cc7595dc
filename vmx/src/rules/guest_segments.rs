//! "Checks on Guest Segment Registers", register by register. CS and SS, and the system registers, have files of their own;
//! DS, ES, FS and GS share the rows below.

use super::rules;
use super::view::View;
use crate::definitions::field::Field;
use rootmode_arch::AccessRights;

pub(in crate::rules) mod cs;
pub(in crate::rules) mod descriptor_tables;
pub(in crate::rules) mod ldtr;
pub(in crate::rules) mod ss;
pub(in crate::rules) mod tr;

/// Bits 11:8 of the access rights.
const RESERVED_LOW: u64 = 0xf00;
/// Bits 31:17 of the access rights.
const RESERVED_HIGH: u64 = 0xfffe_0000;
/// TI of a selector.
const TI: u64 = 4;
/// The access rights of every segment in virtual-8086 mode: present, DPL 3, read/write, accessed.
const VIRTUAL_8086_RIGHTS: u64 = 0xf3;
/// The limit of every segment in virtual-8086 mode.
const VIRTUAL_8086_LIMIT: u64 = 0xffff;

/// Whether a limit can be expressed with G = 1: bits 11:0 are all 1.
const fn counts_pages(limit: u64) -> bool {
    limit & 0xfff == 0xfff
}
/// Whether a limit can be expressed with G = 0: bits 31:20 are all 0.
const fn counts_bytes(limit: u64) -> bool {
    limit >> 20 == 0
}

impl<const PARTIAL: bool> View<'_, PARTIAL> {
    /// Whether the rules for protected and IA-32e mode apply to a register: not virtual-8086 mode, and usable.
    #[inline(always)]
    fn is_ordinary(&self, rights: Field) -> Result<bool, super::Missing> {
        Ok(!self.is_virtual_8086()? && self.rights(rights)?.is_usable())
    }
}

/// The rows of a data segment register: identifier, name, the four fields, and the check of the base.
macro_rules! data_segment {
    ($module:ident, $id:literal, $name:literal, $selector:ident, $base:ident, $limit:ident, $rights:ident,
     $base_demand:literal, |$view:ident| $base_check:expr) => {
        pub(in crate::rules) mod $module {
            use super::*;

            rules! {
                group GuestSegments;

                concat!("vmx.guest.", $id, ".v8086-base"), [$base, $selector]
                concat!("In virtual-8086 mode the base of ", $name, " must be its selector shifted left by 4 bits."),
                |v| !v.is_virtual_8086()? || v.get(Field::$base)? == v.get(Field::$selector)? << 4;

                concat!("vmx.guest.", $id, ".v8086-limit"), [$limit]
                concat!("In virtual-8086 mode the limit of ", $name, " must be 0xffff."),
                |v| !v.is_virtual_8086()? || v.get(Field::$limit)? == VIRTUAL_8086_LIMIT;

                concat!("vmx.guest.", $id, ".v8086-rights"), [$rights]
                concat!("In virtual-8086 mode the access rights of ", $name, " must be 0xf3."),
                |v| !v.is_virtual_8086()? || v.get(Field::$rights)? == VIRTUAL_8086_RIGHTS;

                concat!("vmx.guest.", $id, ".base"), [$base]
                concat!("The base of ", $name, $base_demand),
                |$view| $base_check;

                concat!("vmx.guest.", $id, ".accessed"), [$rights]
                concat!("If ", $name, " is usable, bit 0 (accessed) of its type must be 1."),
                |v| !v.is_ordinary(Field::$rights)? || !v.zero(Field::$rights, AccessRights::ACCESSED.0 as u64)?;

                concat!("vmx.guest.", $id, ".readable"), [$rights]
                concat!("If ", $name, " is usable and a code segment, bit 1 (readable) of its type must be 1."),
                |v| !v.is_ordinary(Field::$rights)?
                    || v.get(Field::$rights)? & (AccessRights::CODE | AccessRights::WRITABLE).0 as u64
                        != AccessRights::CODE.0 as u64;

                concat!("vmx.guest.", $id, ".s"), [$rights]
                concat!("If ", $name, " is usable, S must be 1."),
                |v| !v.is_ordinary(Field::$rights)? || !v.zero(Field::$rights, AccessRights::S.0 as u64)?;

                concat!("vmx.guest.", $id, ".dpl"), [$rights, $selector]
                concat!("If ", $name, " is usable, \"unrestricted guest\" is 0 and the type is 0 to 11 (data or non-conforming code), DPL must not be less than RPL of the selector."),
                |v| !v.is_ordinary(Field::$rights)?
                    || v.is_unrestricted()?
                    || v.rights(Field::$rights)?.kind() > 11
                    || u64::from(v.rights(Field::$rights)?.dpl()) >= v.get(Field::$selector)? & 3;

                concat!("vmx.guest.", $id, ".p"), [$rights]
                concat!("If ", $name, " is usable, P must be 1."),
                |v| !v.is_ordinary(Field::$rights)? || !v.zero(Field::$rights, AccessRights::P.0 as u64)?;

                concat!("vmx.guest.", $id, ".reserved-low"), [$rights]
                concat!("If ", $name, " is usable, bits 11:8 of its access rights must be 0."),
                |v| !v.is_ordinary(Field::$rights)? || v.zero(Field::$rights, RESERVED_LOW)?;

                concat!("vmx.guest.", $id, ".g-clear"), [$rights, $limit]
                concat!("If ", $name, " is usable and any of bits 11:0 of its limit is 0, G must be 0."),
                |v| !v.is_ordinary(Field::$rights)?
                    || counts_pages(v.get(Field::$limit)?)
                    || v.zero(Field::$rights, AccessRights::G.0 as u64)?;

                concat!("vmx.guest.", $id, ".g-set"), [$rights, $limit]
                concat!("If ", $name, " is usable and any of bits 31:20 of its limit is 1, G must be 1."),
                |v| !v.is_ordinary(Field::$rights)?
                    || counts_bytes(v.get(Field::$limit)?)
                    || !v.zero(Field::$rights, AccessRights::G.0 as u64)?;

                concat!("vmx.guest.", $id, ".reserved-high"), [$rights]
                concat!("If ", $name, " is usable, bits 31:17 of its access rights must be 0."),
                |v| !v.is_ordinary(Field::$rights)? || v.zero(Field::$rights, RESERVED_HIGH)?;
            }
        }
    };
}

data_segment! {
    ds, "ds", "DS", GuestDsSelector, GuestDsBase, GuestDsLimit, GuestDsRights,
    " must have bits 63:32 clear if DS is usable.",
    |v| !v.is_ordinary(Field::GuestDsRights)? || v.get(Field::GuestDsBase)? >> 32 == 0
}
data_segment! {
    es, "es", "ES", GuestEsSelector, GuestEsBase, GuestEsLimit, GuestEsRights,
    " must have bits 63:32 clear if ES is usable.",
    |v| !v.is_ordinary(Field::GuestEsRights)? || v.get(Field::GuestEsBase)? >> 32 == 0
}
data_segment! {
    fs, "fs", "FS", GuestFsSelector, GuestFsBase, GuestFsLimit, GuestFsRights,
    " must be canonical.",
    |v| v.is_virtual_8086()? || v.canonical(Field::GuestFsBase)?
}
data_segment! {
    gs, "gs", "GS", GuestGsSelector, GuestGsBase, GuestGsLimit, GuestGsRights,
    " must be canonical.",
    |v| v.is_virtual_8086()? || v.canonical(Field::GuestGsBase)?
}
