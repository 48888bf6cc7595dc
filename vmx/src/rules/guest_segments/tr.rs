//! "Checks on Guest Segment Registers": TR. These rules hold in virtual-8086 mode too.

use super::{RESERVED_HIGH, RESERVED_LOW, TI, counts_bytes, counts_pages};
use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::AccessRights;

/// Type of a busy 16-bit TSS.
const BUSY_16: u8 = 3;
/// Type of a busy 32-bit TSS, or 64-bit TSS in IA-32e mode.
const BUSY: u8 = 11;

rules! {
    group GuestSegments;

    "vmx.guest.tr.ti", [GuestTrSelector]
    "TI of TR's selector must be 0.",
    |v| v.zero(Field::GuestTrSelector, TI)?;

    "vmx.guest.tr.base", [GuestTrBase]
    "The base of TR must be canonical.",
    |v| v.canonical(Field::GuestTrBase)?;

    "vmx.guest.tr.type.legacy", [GuestTrRights]
    "If \"IA-32e mode guest\" is 0, the type of TR must be 3 (16-bit busy TSS) or 11 (32-bit busy TSS).",
    |v| v.is_ia32e_guest()? || matches!(v.rights(Field::GuestTrRights)?.kind(), BUSY_16 | BUSY);

    "vmx.guest.tr.type.long", [GuestTrRights]
    "If \"IA-32e mode guest\" is 1, the type of TR must be 11 (64-bit busy TSS).",
    |v| !v.is_ia32e_guest()? || v.rights(Field::GuestTrRights)?.kind() == BUSY;

    "vmx.guest.tr.s", [GuestTrRights]
    "S of TR must be 0.",
    |v| !v.rights(Field::GuestTrRights)?.contains(AccessRights::S);

    "vmx.guest.tr.p", [GuestTrRights]
    "P of TR must be 1.",
    |v| v.rights(Field::GuestTrRights)?.contains(AccessRights::P);

    "vmx.guest.tr.reserved-low", [GuestTrRights]
    "Bits 11:8 of the access rights of TR must be 0.",
    |v| v.zero(Field::GuestTrRights, RESERVED_LOW)?;

    "vmx.guest.tr.g-clear", [GuestTrRights, GuestTrLimit]
    "If any of bits 11:0 of the limit of TR is 0, G must be 0.",
    |v| counts_pages(v.get(Field::GuestTrLimit)?) || !v.rights(Field::GuestTrRights)?.contains(AccessRights::G);

    "vmx.guest.tr.g-set", [GuestTrRights, GuestTrLimit]
    "If any of bits 31:20 of the limit of TR is 1, G must be 1.",
    |v| counts_bytes(v.get(Field::GuestTrLimit)?) || v.rights(Field::GuestTrRights)?.contains(AccessRights::G);

    "vmx.guest.tr.unusable", [GuestTrRights]
    "TR must not be marked unusable.",
    |v| v.rights(Field::GuestTrRights)?.is_usable();

    "vmx.guest.tr.reserved-high", [GuestTrRights]
    "Bits 31:17 of the access rights of TR must be 0.",
    |v| v.zero(Field::GuestTrRights, RESERVED_HIGH)?;
}
