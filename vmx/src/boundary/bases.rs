//! Valid states of many kinds, by name. Each satisfies every rule.

use super::State;
use super::equip::*;
use crate::context::Item;
use crate::definitions::capabilities::{Basic, EptVpid, Misc};
use crate::definitions::field::Field::*;
use crate::definitions::models::{MAX, Model, SAPPHIRE_RAPIDS, SKYLAKE};
use rootmode_arch::{Cr4, Feature, msr};

/// A base state.
#[derive(Clone, Copy)]
pub struct Base {
    /// What it is, in a few words.
    pub name: &'static str,
    /// Makes it.
    pub build: fn() -> State,
}

impl core::fmt::Debug for Base {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// A processor with the least that VMX allows: no default1 control released, no activity state but active.
const LEAST: Model = Model {
    name: "least",
    text: "as little as VMX allows",
    features: SKYLAKE.features.without(Feature::Rtm).without(Feature::Mpx),
    misc: Misc(4 << 16),
    basic: Basic(SKYLAKE.basic.0),
    ept_vpid: EptVpid(EptVpid::WALK_4.0 | EptVpid::MEMORY_WB.0),
    ..SKYLAKE
};

macro_rules! bases {
    ($($name:literal $model:ident |$state:ident| $change:expr;)*) => {
        /// Every base state.
        pub static BASES: &[Base] = &[$(Base {
            name: $name,
            build: || {
                let mut state = long_mode(&$model);
                let change: fn(&mut State) = |$state| { $change };
                change(&mut state);
                state
            },
        }),*];
    };
}

bases! {
    "64-bit guest" SAPPHIRE_RAPIDS |_s| ();
    "64-bit guest with every plain control" SAPPHIRE_RAPIDS |s| { plain_controls(s); loaded_state(s) };
    "64-bit guest, every control, virtual interrupts" MAX |s| {
        plain_controls(s);
        second_stage(s);
        virtual_interrupts(s);
        loaded_state(s);
        msr_areas(s);
    };
    "TPR shadow, threshold at VTPR" SAPPHIRE_RAPIDS |s| { plain_controls(s); tpr_shadow(s) };
    "APIC accesses virtualized" SAPPHIRE_RAPIDS |s| {
        tpr_shadow(s);
        s.enable(secondary(0));
        s.set(&[(ApicAccessAddress, 0xfee0_0000), (TprThreshold, 9)]);
    };
    "x2APIC mode virtualized" SAPPHIRE_RAPIDS |s| { virtual_interrupts(s); s.enable(secondary(4)); };
    "virtual-interrupt delivery without posting" SAPPHIRE_RAPIDS |s| { virtual_interrupts(s); s.disable(pin(7)) };
    "posted interrupts with a small TPR threshold" SAPPHIRE_RAPIDS |s| {
        virtual_interrupts(s);
        s.set(&[(TprThreshold, 5)]);
    };
    "tertiary controls activated, without EPT or TPR shadow" MAX |s| { s.enable(primary(17)); };
    "VM functions without EPT" MAX |s| { s.enable(secondary(13)); };
    "Intel PT with guest-physical addresses" MAX |s| {
        ept(s);
        loaded_state(s);
        s.enable(secondary(24));
    };
    "Intel PT with guest-physical addresses, 32-bit guest" MAX |s| {
        guest_pae(s);
        ept(s);
        loaded_state(s);
        s.enable(secondary(24));
        s.set(&[(GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::CET).0)]);
    };
    "entered with Intel PT tracing" MAX |s| s.processor.set(Item::TraceEnabled, 1);
    "64-bit guest on Skylake" SKYLAKE |s| { plain_controls(s); second_stage(s); loaded_state(s); msr_areas(s) };
    "unrestricted guest" SAPPHIRE_RAPIDS |s| unrestricted(s);
    "unrestricted guest with a data segment in CS" SAPPHIRE_RAPIDS |s| {
        guest_pae(s);
        unrestricted(s);
        s.set(&[(GuestCsRights, 0xc093)]);
    };
    "PAE guest with EPT" SAPPHIRE_RAPIDS |s| { guest_pae(s); ept(s); loaded_state(s) };
    "PAE guest without EPT" SAPPHIRE_RAPIDS |s| guest_pae(s);
    "PAE guest, all segments" SAPPHIRE_RAPIDS |s| {
        guest_pae(s);
        all_segments(s);
        s.set(&[(GuestTrRights, 0x83)]);
    };
    "PAE guest, LDT counted in pages" SAPPHIRE_RAPIDS |s| {
        guest_pae(s);
        all_segments(s);
        s.set(&[(GuestLdtrLimit, 0xfff), (GuestLdtrRights, 0x8082)]);
    };
    "64-bit guest, all segments" SAPPHIRE_RAPIDS |s| all_segments(s);
    "conforming code" SAPPHIRE_RAPIDS |s| { guest_ring_3(s); s.set(&[(GuestCsRights, 0xa0df)]) };
    "user-mode guest" SAPPHIRE_RAPIDS |s| guest_ring_3(s);
    "compatibility-mode guest" SAPPHIRE_RAPIDS |s| guest_compatibility(s);
    "real-mode guest" SAPPHIRE_RAPIDS |s| guest_real(s);
    "real-mode guest with conforming code" SAPPHIRE_RAPIDS |s| { guest_real(s); s.set(&[(GuestCsRights, 0x9f)]) };
    "real-mode guest taking #GP" SKYLAKE |s| { guest_real(s); inject(s, 13, 3, None) };
    "protected mode without paging" SAPPHIRE_RAPIDS |s| guest_unpaged(s);
    "virtual-8086 guest" SAPPHIRE_RAPIDS |s| guest_v8086(s);
    "virtual-8086 guest with PAE paging" SAPPHIRE_RAPIDS |s| {
        guest_v8086(s);
        s.set(&[(GuestCr4, (Cr4::PAE | Cr4::VMXE).0)]);
    };
    "virtual-8086 guest, unrestricted" SAPPHIRE_RAPIDS |s| { guest_v8086(s); unrestricted(s) };
    "32-bit host" SAPPHIRE_RAPIDS |s| { guest_pae(s); host_32(s); loaded_state(s) };
    "32-bit host that loads CET state" MAX |s| { guest_pae(s); host_32(s); loaded_state(s) };
    "32-bit host without CET" SKYLAKE |s| { guest_pae(s); host_32(s) };
    "MSR areas" SAPPHIRE_RAPIDS |s| msr_areas(s);
    "linked VMCS" SAPPHIRE_RAPIDS |s| linked(s, false);
    "linked shadow VMCS" SAPPHIRE_RAPIDS |s| linked(s, true);
    "external interrupt injected" SAPPHIRE_RAPIDS |s| inject(s, 0x20, 0, None);
    "NMI injected" SAPPHIRE_RAPIDS |s| { s.enable(pin(3)); s.enable(pin(5)); inject(s, 2, 2, None) };
    "NMI injected under STI" SAPPHIRE_RAPIDS |s| {
        inject(s, 2, 2, None);
        s.set(&[(GuestInterruptibility, 1)]);
    };
    "#PF injected" SAPPHIRE_RAPIDS |s| inject(s, 14, 3, Some(2));
    "#GP injected on Skylake" SKYLAKE |s| inject(s, 13, 3, Some(0x18));
    "#UD injected on Skylake" SKYLAKE |s| inject(s, 6, 3, None);
    "#GP injected, unrestricted guest" SAPPHIRE_RAPIDS |s| { unrestricted(s); inject(s, 13, 3, Some(0)) };
    "nested exception injected" MAX |s| {
        inject(s, 14, 3, Some(2));
        s.set(&[(EntryInterruptionInfo, s.vmcs.value(EntryInterruptionInfo) | 1 << 13)]);
    };
    "software interrupt injected" SAPPHIRE_RAPIDS |s| { inject(s, 0x80, 4, None); s.set(&[(EntryInstructionLength, 15)]) };
    "INT1 injected" SAPPHIRE_RAPIDS |s| inject(s, 1, 5, None);
    "software exception injected, least processor" LEAST |s| inject(s, 3, 6, None);
    "pending MTF exit injected" SAPPHIRE_RAPIDS |s| inject(s, 0, 7, None);
    "SYSENTER injected under FRED" MAX |s| {
        inject(s, 2, 7, None);
        s.set(&[(GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::FRED).0)]);
    };
    "processor without monitor trap flag" SAPPHIRE_RAPIDS |s| {
        let index = msr::IA32_VMX_TRUE_PROCBASED_CTLS;
        s.capabilities.set(index, s.capabilities.value(index) & !(1 << 27 << 32));
        s.set(&[(EntryInterruptionInfo, 1 << 31 | 6 << 8), (EntryInstructionLength, 1)]);
    };
    "least processor" LEAST |s| ept(s);
    "least processor, enabled breakpoint pending" LEAST |s| s.set(&[(GuestPendingDebug, 0x1000)]);
    "secondary controls with a required bit" SAPPHIRE_RAPIDS |s| {
        s.enable(secondary(5));
        s.enable(secondary(3));
        s.capabilities.set(msr::IA32_VMX_PROCBASED_CTLS2, s.capabilities.value(msr::IA32_VMX_PROCBASED_CTLS2) | 8);
        s.set(&[(Vpid, 0xffff)]);
    };
    "halted" SAPPHIRE_RAPIDS |s| s.set(&[(GuestActivity, 1)]);
    "halted, #DB injected" SAPPHIRE_RAPIDS |s| { s.set(&[(GuestActivity, 1)]); inject(s, 1, 3, None) };
    "halted, external interrupt injected" SAPPHIRE_RAPIDS |s| { s.set(&[(GuestActivity, 1)]); inject(s, 0x31, 0, None) };
    "shutdown" SAPPHIRE_RAPIDS |s| s.set(&[(GuestActivity, 2)]);
    "shutdown, #MC injected" SAPPHIRE_RAPIDS |s| { s.set(&[(GuestActivity, 2)]); inject(s, 18, 3, None) };
    "wait-for-SIPI" SAPPHIRE_RAPIDS |s| s.set(&[(GuestActivity, 3)]);
    "blocking by STI" SAPPHIRE_RAPIDS |s| s.set(&[(GuestInterruptibility, 1)]);
    "blocking by MOV SS, single step pending" SAPPHIRE_RAPIDS |s| s.set(&[
        (GuestInterruptibility, 2),
        (GuestRflags, 0x102),
        (GuestPendingDebug, 0x4000),
    ]);
    "halted while single-stepping branches" SAPPHIRE_RAPIDS |s| s.set(&[
        (GuestActivity, 1),
        (GuestRflags, 0x302),
        (GuestDebugCtl, 2),
    ]);
    "blocking by NMI with an interrupted enclave" MAX |s| s.set(&[(GuestInterruptibility, 0x18)]);
    "debug exception pending in a transaction" SAPPHIRE_RAPIDS |s| s.set(&[(GuestPendingDebug, 0x1_1000)]);
    "bus lock and breakpoints pending" SAPPHIRE_RAPIDS |s| s.set(&[(GuestPendingDebug, 0x180f)]);
    "FRED guest" MAX |s| {
        loaded_state(s);
        s.set(&[(GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::FRED).0)]);
    };
    "FRED guest in user mode" MAX |s| {
        guest_ring_3(s);
        s.set(&[(GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::FRED).0)]);
    };
    "FRED guest in conforming code" MAX |s| {
        unrestricted(s);
        s.set(&[
            (GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::FRED).0),
            (GuestCsRights, 0xa09f),
            (GuestRip, 0x10_0000),
        ]);
    };
    "CET on in guest and host" SAPPHIRE_RAPIDS |s| {
        loaded_state(s);
        s.set(&[
            (GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::CET).0),
            (HostCr4, (Cr4::PAE | Cr4::VMXE | Cr4::CET | Cr4::PCIDE).0),
        ]);
    };
    "5-level paging in guest and host" SAPPHIRE_RAPIDS |s| s.set(&[
        (GuestCr4, (Cr4::PAE | Cr4::VMXE | Cr4::LA57).0),
        (HostCr4, (Cr4::PAE | Cr4::VMXE | Cr4::LA57).0),
        (HostRip, 0xff00_0000_0000_0000),
        (GuestRip, 0x00ff_ffff_ffff_ffff),
    ]);
    "resumed" SAPPHIRE_RAPIDS |s| {
        s.processor.set(Item::IsResume, 1);
        s.processor.set(Item::Launched, 1);
    };
    "in SMM, returning" MAX |s| {
        s.processor.set(Item::InSmm, 1);
        linked(s, false);
        s.set(&[(ExecutiveVmcsPointer, CURRENT.0)]);
    };
    "in SMM, dual-monitor treatment to be deactivated" MAX |s| {
        s.processor.set(Item::InSmm, 1);
        s.enable(entry(11));
        s.set(&[(GuestInterruptibility, 4)]);
    };
    "entry to SMM" MAX |s| {
        s.processor.set(Item::InSmm, 1);
        s.enable(entry(10));
        linked(s, false);
        s.set(&[(GuestInterruptibility, 4)]);
    };
    "MSR areas at the end of physical memory" SKYLAKE |s| {
        let top = 1u64 << 46;
        s.set(&[
            (ExitMsrStoreCount, 4),
            (ExitMsrStoreAddress, top - 64),
            (ExitMsrLoadCount, 4),
            (ExitMsrLoadAddress, top - 64),
        ]);
    };
    "MSR area to be loaded at the end of physical memory" SKYLAKE |s| {
        let top = 1u64 << 46;
        s.memory.set(rootmode_arch::HostPhysical(top - 16), u64::from(msr::IA32_TSC_AUX));
        s.memory.set(rootmode_arch::HostPhysical(top - 8), 0xffff_ffff);
        s.set(&[(EntryMsrLoadCount, 1), (EntryMsrLoadAddress, top - 16)]);
    };
    "PID-pointer table at the end of physical memory" SAPPHIRE_RAPIDS |s| {
        virtual_interrupts(s);
        s.set(&[(PidPointerTable, (1 << 46) - 64), (LastPidPointerIndex, 7)]);
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{RULES, check_entry};

    #[test]
    fn every_base_satisfies_every_rule_and_enters() {
        for base in BASES {
            let state = (base.build)();
            assert!(state.context().is_complete(), "{}", base.name);
            for rule in &RULES {
                assert!(
                    rule.judge(&state.context()).is_satisfied(),
                    "{}: {} {:?}",
                    base.name,
                    rule.id,
                    rule.judge(&state.context())
                );
            }
            assert_eq!(check_entry(&state.context()), Ok(()), "{}", base.name);
        }
    }
}
