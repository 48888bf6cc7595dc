//! "Checks on Guest Non-Register State": activity and interruptibility. Pending debug exceptions and the link pointer
//! have files of their own.

use super::view::Injection;
use super::{ExitReason, Report, rules};
use crate::context::Item;
use crate::definitions::capabilities::Misc;
use crate::definitions::controls::{EntryControls as Entry, PinControls as Pin};
use crate::definitions::field::Field;
use rootmode_arch::{Feature, RFlags, vector};

pub(in crate::rules) mod link_pointer;
pub(in crate::rules) mod pending_debug;

/// Activity states.
const ACTIVE: u64 = 0;
const HLT: u64 = 1;
const SHUTDOWN: u64 = 2;
const WAIT_FOR_SIPI: u64 = 3;

/// Interruptibility bits.
const STI: u64 = 1;
const MOV_SS: u64 = 2;
const SMI: u64 = 4;
const NMI: u64 = 8;
const ENCLAVE: u64 = 16;

/// "Failure was due to an attempt to inject an NMI into a guest that blocks events through blocking by STI."
const NMI_UNDER_STI: Report = Report::Exit { reason: ExitReason::INVALID_GUEST_STATE, qualification: 3 };

rules! {
    group NonRegister;

    "vmx.guest.activity.supported", [GuestActivity]
    "The activity state must be 0 (active) or a state that IA32_VMX_MISC reports: 1 (HLT), 2 (shutdown), 3 (wait-for-SIPI).",
    |v| match v.get(Field::GuestActivity)? {
        ACTIVE => true,
        HLT => v.misc()?.contains(Misc::ACTIVITY_HLT),
        SHUTDOWN => v.misc()?.contains(Misc::ACTIVITY_SHUTDOWN),
        WAIT_FOR_SIPI => v.misc()?.contains(Misc::ACTIVITY_SIPI),
        _ => false,
    };

    "vmx.guest.activity.hlt-ring", [GuestActivity, GuestSsRights]
    "The activity state must not be HLT if DPL of SS is not 0.",
    |v| v.get(Field::GuestActivity)? != HLT || v.rights(Field::GuestSsRights)?.dpl() == 0;

    "vmx.guest.activity.blocking", [GuestActivity, GuestInterruptibility]
    "The activity state must be active if there is blocking by MOV SS or by STI.",
    |v| v.zero(Field::GuestInterruptibility, STI | MOV_SS)? || !matches!(v.get(Field::GuestActivity)?, HLT..=WAIT_FOR_SIPI);

    "vmx.guest.activity.hlt-injection", [GuestActivity, EntryInterruptionInfo]
    "In activity state HLT only these can be injected: external interrupt, NMI, #DB or #MC as hardware exception, pending MTF VM exit.",
    |v| v.get(Field::GuestActivity)? != HLT || match v.injection()? {
        None => true,
        Some(event) => match event.kind {
            Injection::EXTERNAL | Injection::NMI => true,
            Injection::HARDWARE => matches!(event.vector, vector::DB | vector::MC),
            Injection::OTHER => event.vector == 0,
            _ => false,
        },
    };

    "vmx.guest.activity.shutdown-injection", [GuestActivity, EntryInterruptionInfo]
    "In activity state shutdown only these can be injected: NMI, and #MC as hardware exception.",
    |v| v.get(Field::GuestActivity)? != SHUTDOWN || match v.injection()? {
        None => true,
        Some(event) => match event.kind {
            Injection::NMI => true,
            Injection::HARDWARE => event.vector == vector::MC,
            _ => false,
        },
    };

    "vmx.guest.activity.sipi-injection", [GuestActivity, EntryInterruptionInfo]
    "In activity state wait-for-SIPI nothing can be injected.",
    |v| v.get(Field::GuestActivity)? != WAIT_FOR_SIPI || v.injection()?.is_none();

    "vmx.guest.activity.sipi-smm", [GuestActivity, EntryControls]
    "If \"entry to SMM\" is 1, the activity state must not be wait-for-SIPI.",
    |v| v.get(Field::GuestActivity)? != WAIT_FOR_SIPI || !v.entry()?.contains(Entry::ENTRY_TO_SMM);

    "vmx.guest.interruptibility.reserved", [GuestInterruptibility]
    "Bits 31:5 of the interruptibility state must be 0.",
    |v| v.zero(Field::GuestInterruptibility, !0x1f)?;

    "vmx.guest.interruptibility.exclusive", [GuestInterruptibility]
    "Blocking by STI and blocking by MOV SS cannot both be 1.",
    |v| v.get(Field::GuestInterruptibility)? & (STI | MOV_SS) != STI | MOV_SS;

    "vmx.guest.interruptibility.sti-if", [GuestInterruptibility, GuestRflags]
    "Blocking by STI must be 0 if IF of RFLAGS is 0.",
    |v| v.zero(Field::GuestInterruptibility, STI)? || v.rflags()?.contains(RFlags::IF);

    "vmx.guest.interruptibility.external", [GuestInterruptibility, EntryInterruptionInfo]
    "If an external interrupt is injected, blocking by STI and blocking by MOV SS must be 0.",
    |v| !v.injects(Injection::EXTERNAL)? || v.zero(Field::GuestInterruptibility, STI | MOV_SS)?;

    "vmx.guest.interruptibility.nmi-mov-ss", [GuestInterruptibility, EntryInterruptionInfo]
    "If an NMI is injected, blocking by MOV SS must be 0.",
    |v| !v.injects(Injection::NMI)? || v.zero(Field::GuestInterruptibility, MOV_SS)?;

    "vmx.guest.interruptibility.smi", [GuestInterruptibility] @items [InSmm]
    "Blocking by SMI must be 0 if the processor is not in SMM.",
    |v| v.zero(Field::GuestInterruptibility, SMI)? || v.is(Item::InSmm)?;

    "vmx.guest.interruptibility.smm-entry", [GuestInterruptibility]
    "Blocking by SMI must be 1 if \"entry to SMM\" is 1.",
    |v| !v.entry()?.contains(Entry::ENTRY_TO_SMM)
        || !v.is(Item::InSmm)?
        || !v.zero(Field::GuestInterruptibility, SMI)?;

    "vmx.guest.interruptibility.nmi-sti", [GuestInterruptibility, EntryInterruptionInfo] @items [NmiNeedsNoSti]
    @report NMI_UNDER_STI;
    "If an NMI is injected, blocking by STI must be 0, on processors that demand it.",
    |v| !v.injects(Injection::NMI)? || v.zero(Field::GuestInterruptibility, STI)? || !v.is(Item::NmiNeedsNoSti)?;

    "vmx.guest.interruptibility.virtual-nmi", [GuestInterruptibility, EntryInterruptionInfo]
    "If an NMI is injected and \"virtual NMIs\" is 1, blocking by NMI must be 0.",
    |v| !v.injects(Injection::NMI)?
        || !v.pin()?.contains(Pin::VIRTUAL_NMIS)
        || v.zero(Field::GuestInterruptibility, NMI)?;

    "vmx.guest.interruptibility.enclave-mov-ss", [GuestInterruptibility]
    "If bit 4 (enclave interruption) is 1, blocking by MOV SS must be 0.",
    |v| v.get(Field::GuestInterruptibility)? & (ENCLAVE | MOV_SS) != ENCLAVE | MOV_SS;

    "vmx.guest.interruptibility.enclave-sgx", [GuestInterruptibility]
    "If bit 4 (enclave interruption) is 1, the processor must support SGX.",
    |v| v.zero(Field::GuestInterruptibility, ENCLAVE)? || v.feature(Feature::Sgx)?;
}
