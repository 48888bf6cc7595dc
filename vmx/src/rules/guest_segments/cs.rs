//! "Checks on Guest Segment Registers": CS. Whether CS is marked unusable makes no difference.

use super::{
    RESERVED_HIGH, RESERVED_LOW, VIRTUAL_8086_LIMIT, VIRTUAL_8086_RIGHTS, counts_bytes, counts_pages,
};
use crate::definitions::field::Field;
use crate::rules::rules;
use rootmode_arch::AccessRights;

rules! {
    group GuestSegments;

    "vmx.guest.cs.v8086-base", [GuestCsBase, GuestCsSelector]
    "In virtual-8086 mode the base of CS must be its selector shifted left by 4 bits.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestCsBase)? == v.get(Field::GuestCsSelector)? << 4;

    "vmx.guest.cs.v8086-limit", [GuestCsLimit]
    "In virtual-8086 mode the limit of CS must be 0xffff.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestCsLimit)? == VIRTUAL_8086_LIMIT;

    "vmx.guest.cs.v8086-rights", [GuestCsRights]
    "In virtual-8086 mode the access rights of CS must be 0xf3.",
    |v| !v.is_virtual_8086()? || v.get(Field::GuestCsRights)? == VIRTUAL_8086_RIGHTS;

    "vmx.guest.cs.base", [GuestCsBase]
    "Bits 63:32 of the base of CS must be 0.",
    |v| v.is_virtual_8086()? || v.get(Field::GuestCsBase)? >> 32 == 0;

    "vmx.guest.cs.type", [GuestCsRights]
    "The type of CS must be 9, 11, 13 or 15 (accessed code), or 3 (read/write accessed expand-up data) if \"unrestricted guest\" is 1.",
    |v| v.is_virtual_8086()? || match v.rights(Field::GuestCsRights)?.kind() {
        9 | 11 | 13 | 15 => true,
        3 => v.is_unrestricted()?,
        _ => false,
    };

    "vmx.guest.cs.s", [GuestCsRights]
    "S of CS must be 1.",
    |v| v.is_virtual_8086()? || v.rights(Field::GuestCsRights)?.contains(AccessRights::S);

    "vmx.guest.cs.dpl.data", [GuestCsRights]
    "If the type of CS is 3 (read/write accessed expand-up data), its DPL must be 0.",
    |v| v.is_virtual_8086()?
        || v.rights(Field::GuestCsRights)?.kind() != 3
        || !v.is_unrestricted()?
        || v.rights(Field::GuestCsRights)?.dpl() == 0;

    "vmx.guest.cs.dpl.non-conforming", [GuestCsRights, GuestSsRights]
    "If the type of CS is 9 or 11 (non-conforming accessed code), its DPL must equal DPL of SS.",
    |v| v.is_virtual_8086()?
        || !matches!(v.rights(Field::GuestCsRights)?.kind(), 9 | 11)
        || v.rights(Field::GuestCsRights)?.dpl() == v.rights(Field::GuestSsRights)?.dpl();

    "vmx.guest.cs.dpl.conforming", [GuestCsRights, GuestSsRights]
    "If the type of CS is 13 or 15 (conforming accessed code), its DPL must not be greater than DPL of SS.",
    |v| v.is_virtual_8086()?
        || !matches!(v.rights(Field::GuestCsRights)?.kind(), 13 | 15)
        || v.rights(Field::GuestCsRights)?.dpl() <= v.rights(Field::GuestSsRights)?.dpl();

    "vmx.guest.cs.p", [GuestCsRights]
    "P of CS must be 1.",
    |v| v.is_virtual_8086()? || v.rights(Field::GuestCsRights)?.contains(AccessRights::P);

    "vmx.guest.cs.reserved-low", [GuestCsRights]
    "Bits 11:8 of the access rights of CS must be 0.",
    |v| v.is_virtual_8086()? || v.zero(Field::GuestCsRights, RESERVED_LOW)?;

    "vmx.guest.cs.d", [GuestCsRights]
    "If \"IA-32e mode guest\" is 1 and L of CS is 1, D of CS must be 0.",
    |v| v.is_virtual_8086()?
        || !v.is_ia32e_guest()?
        || !v.rights(Field::GuestCsRights)?.contains(AccessRights::L | AccessRights::DB);

    "vmx.guest.cs.g-clear", [GuestCsRights, GuestCsLimit]
    "If any of bits 11:0 of the limit of CS is 0, G must be 0.",
    |v| v.is_virtual_8086()?
        || counts_pages(v.get(Field::GuestCsLimit)?)
        || !v.rights(Field::GuestCsRights)?.contains(AccessRights::G);

    "vmx.guest.cs.g-set", [GuestCsRights, GuestCsLimit]
    "If any of bits 31:20 of the limit of CS is 1, G must be 1.",
    |v| v.is_virtual_8086()?
        || counts_bytes(v.get(Field::GuestCsLimit)?)
        || v.rights(Field::GuestCsRights)?.contains(AccessRights::G);

    "vmx.guest.cs.reserved-high", [GuestCsRights]
    "Bits 31:17 of the access rights of CS must be 0.",
    |v| v.is_virtual_8086()? || v.zero(Field::GuestCsRights, RESERVED_HIGH)?;
}
