//! "Checks on Guest Segment Registers": LDTR, if it is usable. These rules hold in virtual-8086 mode too.

use super::{RESERVED_HIGH, RESERVED_LOW, TI, counts_bytes, counts_pages};
use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::AccessRights;

/// Type of an LDT descriptor.
const LDT: u8 = 2;

rules! {
    group GuestSegments;

    "vmx.guest.ldtr.ti", [GuestLdtrSelector]
    "If LDTR is usable, TI of its selector must be 0.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable() || v.zero(Field::GuestLdtrSelector, TI)?;

    "vmx.guest.ldtr.base", [GuestLdtrBase]
    "If LDTR is usable, its base must be canonical.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable() || v.canonical(Field::GuestLdtrBase)?;

    "vmx.guest.ldtr.type", [GuestLdtrRights]
    "If LDTR is usable, its type must be 2 (LDT).",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable() || v.rights(Field::GuestLdtrRights)?.kind() == LDT;

    "vmx.guest.ldtr.s", [GuestLdtrRights]
    "If LDTR is usable, S must be 0.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable()
        || !v.rights(Field::GuestLdtrRights)?.contains(AccessRights::S);

    "vmx.guest.ldtr.p", [GuestLdtrRights]
    "If LDTR is usable, P must be 1.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable()
        || v.rights(Field::GuestLdtrRights)?.contains(AccessRights::P);

    "vmx.guest.ldtr.reserved-low", [GuestLdtrRights]
    "If LDTR is usable, bits 11:8 of its access rights must be 0.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable() || v.zero(Field::GuestLdtrRights, RESERVED_LOW)?;

    "vmx.guest.ldtr.g-clear", [GuestLdtrRights, GuestLdtrLimit]
    "If LDTR is usable and any of bits 11:0 of its limit is 0, G must be 0.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable()
        || counts_pages(v.get(Field::GuestLdtrLimit)?)
        || !v.rights(Field::GuestLdtrRights)?.contains(AccessRights::G);

    "vmx.guest.ldtr.g-set", [GuestLdtrRights, GuestLdtrLimit]
    "If LDTR is usable and any of bits 31:20 of its limit is 1, G must be 1.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable()
        || counts_bytes(v.get(Field::GuestLdtrLimit)?)
        || v.rights(Field::GuestLdtrRights)?.contains(AccessRights::G);

    "vmx.guest.ldtr.reserved-high", [GuestLdtrRights]
    "If LDTR is usable, bits 31:17 of its access rights must be 0.",
    |v| !v.rights(Field::GuestLdtrRights)?.is_usable() || v.zero(Field::GuestLdtrRights, RESERVED_HIGH)?;
}
