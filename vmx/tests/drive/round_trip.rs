//! A walk through valid VMCSs: an entry that exits before the guest's first instruction brings every piece of guest state back,
//! and writes the fields that the manual names and no others ("Saving Guest State", "Recording VM-Exit Information and
//! Updating VM-entry Control Fields").

use super::bench::*;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{Cr0, Cr4, Efer, SegmentName, Site};
use rootmode_cpu::Message;
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::definitions::field::Kind;
use rootmode_vmx::drive::{offered, segment_fields};
use rootmode_vmx::{
    EntryControls, ExitControls, ExitReason, Field, PinControls, PrimaryControls, SecondaryControls, Vmcs,
};

/// Steps of the walk.
const STEPS: u64 = 2000;
/// Bits of CR0 that transitions leave to the processor ("Loading Guest Control Registers, Debug Registers, and MSRs").
const CR0_KEPT: u64 = 0xffff_ffff_7ffa_ffd0;
/// An injection of a pending MTF VM exit.
const PENDING_MTF: u64 = 0x8000_0700;

struct Walk {
    draw: Seeded,
    /// The last VMCS that was entered.
    valid: Vmcs,
}

impl Walk {
    fn below(&mut self, n: u64) -> u64 {
        self.draw.choose(Site::State, n)
    }
    fn bits(&mut self) -> u64 {
        (0..4).fold(0, |all, _| all << 16 | self.below(1 << 16))
    }

    /// Changes a field of guest state or a control, near what it is or to anything.
    fn change(&mut self, bench: &mut Bench) {
        let words = [Word::Entry, Word::Exit, Word::Secondary, Word::Primary];
        if self.below(6) == 0 {
            let word = words[self.below(4) as usize];
            let (Some(field), Some(allowed)) = (word.field(), offered().allowed(word)) else { return };
            let value = bench.field(field) ^ 1 << self.below(32);
            return bench.set(field, allowed.nearest(value));
        }
        if self.below(10) == 0 {
            let state = self.below(4);
            return bench.set(Field::GuestActivity, state);
        }
        let field = Field::ALL[self.below(Field::COUNT as u64) as usize];
        if field.kind() != Kind::Guest || !offered::fields(&offered()).has(field) {
            return;
        }
        let old = bench.field(field);
        let value = match self.below(6) {
            0 => self.bits(),
            1 => self.bits() & 0xffff_f000,
            2 => self.bits() & 0x7fff_ffff_ffff,
            _ => old ^ 1 << self.below(u64::from(field.width().mask().count_ones())),
        };
        bench.set(field, value & field.width().mask());
    }
}

/// What leaves the guest before its first instruction, by activity state.
fn leave_at_once(bench: &mut Bench) -> ExitReason {
    bench.set(Field::EntryInterruptionInfo, 0);
    match bench.field(Field::GuestActivity) {
        2 => {
            bench.pin(PinControls::NMI_EXITING);
            bench.post(Message::Nmi);
            ExitReason::EXCEPTION_OR_NMI
        }
        3 => {
            bench.post(Message::Sipi(0x12));
            ExitReason::SIPI
        }
        _ => {
            bench.set(Field::EntryInterruptionInfo, PENDING_MTF);
            ExitReason::MONITOR_TRAP_FLAG
        }
    }
}

/// Fields that an exit without more information writes.
const RECORDED: [Field; 4] =
    [Field::ExitReason, Field::ExitQualification, Field::ExitInterruptionInfo, Field::IdtVectoringInfo];

/// What `field` must hold after the exit from a guest entered with `entered`, on a processor that held `host` before.
fn expected(field: Field, entered: &Vmcs, host: &Host) -> Option<u64> {
    let value = entered.value(field);
    let entry = EntryControls(entered.value(Field::EntryControls) as u32);
    let exit = ExitControls(entered.value(Field::ExitControls) as u32);
    // State that is loaded under one control and saved under another.
    let switched = |load: EntryControls, save: ExitControls, before: u64| match exit.contains(save) {
        true if entry.contains(load) => value,
        true => before,
        false => value,
    };
    let always = |load: EntryControls, before: u64| if entry.contains(load) { value } else { before };
    let paged = entered.value(Field::GuestCr0) & Cr0::PG.0 != 0;
    Some(match field {
        field if RECORDED.contains(&field) => return None,
        Field::GuestCr0 => host.cr0 & CR0_KEPT | value & !CR0_KEPT,
        Field::GuestDr7 | Field::GuestDebugCtl => {
            let (loaded, before) = match field {
                Field::GuestDr7 => (value & 0xffff_27ff | 0x400, host.dr7),
                _ => (value, host.debugctl),
            };
            match exit.contains(ExitControls::SAVE_DEBUG_CONTROLS) {
                true if entry.contains(EntryControls::LOAD_DEBUG_CONTROLS) => loaded,
                true => before,
                false => value,
            }
        }
        Field::GuestEfer => {
            let long = entry.contains(EntryControls::IA32E_MODE_GUEST);
            let efer = Efer(host.efer).set(Efer::LMA, long);
            let efer = if paged { efer.set(Efer::LME, long) } else { efer };
            switched(EntryControls::LOAD_EFER, ExitControls::SAVE_EFER, efer.0)
        }
        Field::GuestPat => switched(EntryControls::LOAD_PAT, ExitControls::SAVE_PAT, host.pat),
        Field::GuestPerfGlobalCtrl => {
            switched(EntryControls::LOAD_PERF_GLOBAL_CTRL, ExitControls::SAVE_PERF_GLOBAL_CTRL, host.counters)
        }
        Field::GuestPkrs => always(EntryControls::LOAD_PKRS, host.pkrs),
        Field::GuestSCet => always(EntryControls::LOAD_CET, host.cet[0]),
        Field::GuestSsp => always(EntryControls::LOAD_CET, host.cet[1]),
        Field::GuestSspTable => always(EntryControls::LOAD_CET, host.cet[2]),
        // Only unusable registers may have come with reserved bits of access rights, which nobody keeps.
        field if SegmentName::ALL.iter().any(|name| segment_fields(*name)[2] == field) => {
            value & !0xfffe_0f00
        }
        Field::EntryInterruptionInfo => value & 0x7fff_ffff,
        Field::GuestPendingDebug if entered.value(Field::GuestActivity) >= 2 => 0,
        _ => value,
    })
}

/// What the processor has before an entry and a guest may keep.
#[derive(Debug)]
struct Host {
    cr0: u64,
    dr7: u64,
    debugctl: u64,
    efer: u64,
    pat: u64,
    counters: u64,
    pkrs: u64,
    cet: [u64; 3],
}

impl Host {
    fn of(bench: &mut Bench) -> Self {
        let cpu = bench.cpu();
        let flow = &cpu.control_flow;
        Self {
            cr0: cpu.cr0.0,
            dr7: cpu.dr7,
            debugctl: cpu.msrs.debugctl,
            efer: cpu.efer.0,
            pat: cpu.msrs.pat,
            counters: cpu.counters.global_control(),
            pkrs: cpu.pkrs.into(),
            cet: [flow.supervisor, flow.ssp, flow.table],
        }
    }
}

#[test]
fn an_entry_that_exits_at_once_brings_every_valid_guest_state_back_and_writes_nothing_else() {
    let mut walk = Walk { draw: Seeded::new(4), valid: Bench::new().vmcs };
    let (mut entered, mut activities, mut modes) = (0, [0; 4], std::collections::BTreeSet::new());
    for step in 0..STEPS {
        let mut bench = Bench::new();
        bench.vmcs = walk.valid.clone();
        bench.set(Field::Eptp, EPT | EPTP);
        // Now and then from one of four modes on, or walks end in corners.
        let start = walk.below(200);
        if start < 4 {
            bench = Bench::new();
            if start > 0 {
                bench.legacy();
            }
            match start {
                1 => bench.clear(Field::GuestCr0, Cr0::PE.0),
                2 => {
                    bench.or(Field::GuestCr0, Cr0::PG.0);
                    bench.or(Field::GuestCr4, Cr4::PAE.0);
                }
                _ => {}
            }
        }
        for _ in 0..=walk.below(3) {
            walk.change(&mut bench);
        }
        for field in [Field::EntryMsrLoadCount, Field::ExitMsrLoadCount, Field::ExitMsrStoreCount] {
            bench.set(field, 0);
        }
        // Nothing else may be due, and there is no virtual APIC.
        bench.clear(Field::PrimaryControls, PrimaryControls::USE_TPR_SHADOW.0.into());
        let apic = SecondaryControls::VIRTUALIZE_APIC_ACCESSES | SecondaryControls::ENABLE_VM_FUNCTIONS;
        bench.clear(Field::SecondaryControls, apic.0.into());
        let base = bench.vmcs.clone();
        let reason = leave_at_once(&mut bench);
        let before = bench.vmcs.clone();
        let host = Host::of(&mut bench);
        match bench.run() {
            End::Exit(exit) if exit.reason == u64::from(reason.0) => {}
            End::Exit(exit) => {
                assert!(exit.reason >> 31 != 0, "step {step}: {exit:?}");
                continue;
            }
            End::Fail(_) => continue,
            // The NMI meets the host if the guest was refused.
            End::Stopped(_) if bench.vmread(Field::ExitReason) >> 31 != 0 => continue,
            stopped @ End::Stopped(_) => panic!("step {step}: {stopped:?}"),
        }
        let wrong: Vec<_> = Field::ALL
            .into_iter()
            .filter(|field| before.get(*field).is_some())
            .filter_map(|field| Some((field, bench.field(field), expected(field, &before, &host)?)))
            .filter(|(_, found, expected)| found != expected)
            .collect();
        assert!(wrong.is_empty(), "step {step}: {wrong:x?}\n{host:x?}");
        entered += 1;
        activities[before.value(Field::GuestActivity) as usize] += 1;
        let (cr0, cr4) = (Cr0(before.value(Field::GuestCr0)), Cr4(before.value(Field::GuestCr4)));
        let long = before.value(Field::EntryControls) & u64::from(EntryControls::IA32E_MODE_GUEST.0);
        modes.insert((cr0.contains(Cr0::PE), cr0.contains(Cr0::PG), cr4.contains(Cr4::PAE), long != 0));
        walk.valid = base;
    }
    assert!(entered > STEPS / 5, "{entered} of {STEPS} steps led to a valid VMCS");
    assert!(activities.iter().all(|count| *count > 10), "{activities:?}");
    assert!(modes.len() >= 4, "{modes:?}");
}
