//! "Checks on Guest Segment Registers": SS. The rules on its DPL apply whether or not it is usable.

use super::{
    RESERVED_HIGH, RESERVED_LOW, VIRTUAL_8086_LIMIT, VIRTUAL_8086_RIGHTS, counts_bytes, counts_pages,
};
use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::{AccessRights, Cr0};

rules! {
    group GuestSegments;

    "vmx.guest.ss.rpl", [GuestSsSelector, GuestCsSelector]
    "If the guest will not be virtual-8086 and \"unrestricted guest\" is 0, RPL of SS must equal RPL of CS.",
    |v| v.is_virtual_8086()?
        || v.is_unrestricted()?
        || (v.get(Field::GuestSsSelector)? ^ v.get(Field::GuestCsSelector)?) & 3 == 0;

    "vmx.guest.ss.v8086-base", [GuestSsBase, GuestSsSelector]
    "In virtual-8086 mode the base of SS must be its selector shifted left by 4 bits.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestSsBase)? == v.get(Field::GuestSsSelector)? << 4;

    "vmx.guest.ss.v8086-limit", [GuestSsLimit]
    "In virtual-8086 mode the limit of SS must be 0xffff.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestSsLimit)? == VIRTUAL_8086_LIMIT;

    "vmx.guest.ss.v8086-rights", [GuestSsRights]
    "In virtual-8086 mode the access rights of SS must be 0xf3.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestSsRights)? == VIRTUAL_8086_RIGHTS;

    "vmx.guest.ss.base", [GuestSsBase]
    "If SS is usable, bits 63:32 of its base must be 0.",
    |v| !v.is_ordinary(Field::GuestSsRights)? || v.get(Field::GuestSsBase)? >> 32 == 0;

    "vmx.guest.ss.type", [GuestSsRights]
    "If SS is usable, its type must be 3 or 7 (read/write accessed data).",
    |v| !v.is_ordinary(Field::GuestSsRights)? || matches!(v.rights(Field::GuestSsRights)?.kind(), 3 | 7);

    "vmx.guest.ss.s", [GuestSsRights]
    "If SS is usable, S must be 1.",
    |v| !v.is_ordinary(Field::GuestSsRights)? || v.rights(Field::GuestSsRights)?.contains(AccessRights::S);

    "vmx.guest.ss.dpl.rpl", [GuestSsRights, GuestSsSelector]
    "If \"unrestricted guest\" is 0, DPL of SS must equal RPL of its selector.",
    |v| v.is_virtual_8086()?
        || v.is_unrestricted()?
        || u64::from(v.rights(Field::GuestSsRights)?.dpl()) == v.get(Field::GuestSsSelector)? & 3;

    "vmx.guest.ss.dpl.data-cs", [GuestSsRights]
    "If the type of CS is 3 (read/write accessed expand-up data), DPL of SS must be 0.",
    |v| v.is_virtual_8086()?
        || v.rights(Field::GuestCsRights)?.kind() != 3
        || !v.is_unrestricted()?
        || v.rights(Field::GuestSsRights)?.dpl() == 0;

    "vmx.guest.ss.dpl.real", [GuestSsRights]
    "If bit 0 (PE) of the guest's CR0 is 0, DPL of SS must be 0.",
    |v| v.is_virtual_8086()?
        || v.cr0()?.contains(Cr0::PE)
        || !v.is_unrestricted()?
        || v.rights(Field::GuestCsRights)?.kind() == 3
        || v.rights(Field::GuestSsRights)?.dpl() == 0;

    "vmx.guest.ss.p", [GuestSsRights]
    "If SS is usable, P must be 1.",
    |v| !v.is_ordinary(Field::GuestSsRights)? || v.rights(Field::GuestSsRights)?.contains(AccessRights::P);

    "vmx.guest.ss.reserved-low", [GuestSsRights]
    "If SS is usable, bits 11:8 of its access rights must be 0.",
    |v| !v.is_ordinary(Field::GuestSsRights)? || v.zero(Field::GuestSsRights, RESERVED_LOW)?;

    "vmx.guest.ss.g-clear", [GuestSsRights, GuestSsLimit]
    "If SS is usable and any of bits 11:0 of its limit is 0, G must be 0.",
    |v| !v.is_ordinary(Field::GuestSsRights)?
        || counts_pages(v.get(Field::GuestSsLimit)?)
        || !v.rights(Field::GuestSsRights)?.contains(AccessRights::G);

    "vmx.guest.ss.g-set", [GuestSsRights, GuestSsLimit]
    "If SS is usable and any of bits 31:20 of its limit is 1, G must be 1.",
    |v| !v.is_ordinary(Field::GuestSsRights)?
        || counts_bytes(v.get(Field::GuestSsLimit)?)
        || v.rights(Field::GuestSsRights)?.contains(AccessRights::G);

    "vmx.guest.ss.reserved-high", [GuestSsRights]
    "If SS is usable, bits 31:17 of its access rights must be 0.",
    |v| !v.is_ordinary(Field::GuestSsRights)? || v.zero(Field::GuestSsRights, RESERVED_HIGH)?;
}
