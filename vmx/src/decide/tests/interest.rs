//! The published mask of classes is a superset of what `decide` answers, and not simply everything.

use super::causes::causes;
use super::*;
use crate::bitmap::{LeafBitmap, XssBitmap};
use crate::decide::{PauseLoop, Table, interest};
use crate::information::Interruptibility;
use rootmode_arch::{Cr4, EventClass, EventClasses};

fn sparse(stream: &mut Stream) -> u64 {
    match stream.below(4) {
        0 => 0,
        1 => 1 << stream.below(64),
        2 => stream.next() & stream.next(),
        _ => stream.next(),
    }
}

fn controls(s: &mut Stream) -> Controls {
    Controls {
        pin: crate::PinControls(sparse(s) as u32),
        primary: PrimaryControls(sparse(s) as u32 | if s.flip() { 1 << 31 | 1 << 17 } else { 0 }),
        secondary: SecondaryControls(sparse(s) as u32),
        tertiary: TertiaryControls(sparse(s)),
        exit: crate::ExitControls(sparse(s) as u32),
        vm_functions: sparse(s),
        exception_bitmap: sparse(s) as u32,
        page_fault_mask: sparse(s) as u32,
        page_fault_match: sparse(s) as u32,
        cr0_mask: sparse(s),
        cr0_shadow: sparse(s),
        cr4_mask: sparse(s),
        cr4_shadow: sparse(s),
        cr3_targets: [sparse(s); 4],
        cr3_target_count: s.below(6) as u32,
        tpr_threshold: s.below(32) as u32,
        eoi_exit_bitmap: [sparse(s), sparse(s), sparse(s), sparse(s)],
        posted_interrupt_vector: s.below(256) as u16,
        xss_bitmap: XssBitmap(sparse(s)),
        encls_bitmap: LeafBitmap(sparse(s)),
        enclv_bitmap: LeafBitmap(sparse(s)),
        pconfig_bitmap: LeafBitmap(sparse(s)),
        ple_gap: s.below(100) as u32,
        ple_window: s.below(1000) as u32,
        traits: Default::default(),
    }
}

fn processor(s: &mut Stream) -> Processor {
    Processor {
        cr0: Cr0(sparse(s) | u64::from(s.flip())),
        cr4: Cr4(sparse(s)),
        efer: Efer(sparse(s)),
        rflags: RFlags(sparse(s)),
        cs_long: s.flip(),
        cpl: s.below(4) as u8,
        interruptibility: Interruptibility(s.below(32) as u32),
        vtpr: s.next() as u8,
        xss: sparse(s),
        pause_loop: PauseLoop { first: Some(0), last: Some(1000) },
        pending_mtf: s.flip(),
        in_delivery: s.flip(),
        iret_unblocks_nmi: s.flip(),
        apic_write_virtualized: None,
        virtualization_exception_busy: s.flip(),
        asynchronous: s.flip(),
        pasid_translation_failed: s.flip(),
    }
}

#[test]
fn whatever_exits_is_in_the_mask() {
    let events: Vec<Event> = causes().iter().map(|cause| cause.event).collect();
    let mut stream = Stream(0x1234_5678_9abc_def1);
    let (mut exits, mut asked) = (0u32, 0u32);
    for _ in 0..20_000 {
        let (controls, processor, ones) = (controls(&mut stream), processor(&mut stream), stream.flip());
        let mask = interest(&controls);
        for event in &events {
            asked += 1;
            if let Some(exit) = ask(&controls, &processor, ones, event) {
                exits += 1;
                assert!(
                    mask.contains(event.class()),
                    "{event:?} exits with {exit:?}, but is not in the mask of {controls:?}"
                );
            }
        }
        for vector in [1u8, 3, 13, 14] {
            let source = rootmode_arch::event::ExceptionSource::Hardware;
            let code = stream.below(32) as u32;
            let exception = rootmode_arch::event::Exception {
                vector,
                error_code: Some(code),
                detail: 0,
                source,
                instruction_length: 0,
            };
            if ask(&controls, &processor, ones, &Event::Exception(exception)).is_some() {
                assert!(mask.contains(EventClass::Exception));
            }
        }
    }
    assert!(
        exits > asked / 20 && exits < asked,
        "the inputs are neither dull nor trivial: {exits} of {asked}"
    );
}

#[test]
fn a_vmcs_without_conditional_exits_publishes_only_what_exits_unconditionally() {
    use EventClass::*;
    let mut controls = Controls::default();
    turn(&mut controls, Word::Primary, 28, true);
    let unconditional =
        [Init, Sipi, TripleFault, TaskSwitch, MonitorTrap, Cpuid, Getsec, Invd, Rsm, Vmx, Xsetbv, Seam];
    let expected = unconditional.into_iter().fold(EventClasses::NONE, EventClasses::with);
    // MSRs outside both ranges exit even with clear bitmaps.
    assert_eq!(interest(&controls), expected.with(Rdmsr).with(Wrmsr));
}

#[test]
fn an_instruction_that_no_row_mentions_never_exits() {
    let everything = Controls {
        pin: crate::PinControls(!0),
        primary: PrimaryControls(!0),
        secondary: SecondaryControls(!0),
        tertiary: TertiaryControls(!0),
        cr0_mask: !0,
        exception_bitmap: !0,
        ..Controls::default()
    };
    let events = [
        Event::Smi,
        Event::VirtualInterrupt { vector: 3 },
        Event::FerrFreeze,
        Event::IdleHlt,
        Event::Iret,
        Event::Pushf,
        Event::Popf,
        Event::SoftwareInterrupt { vector: 0x80, instruction_length: 2 },
        Event::Vmrun { vmcb: 0 },
        Event::Stgi,
        Event::Clgi,
        Event::Vmmcall,
        Event::Tlbsync,
        Event::Rdpru { register: 0 },
        Event::Mcommit,
        Event::EferWritten { value: 0 },
        Event::CrWritten { cr: 0, value: 0 },
        Event::Smsw { register: None },
    ];
    for event in events {
        assert_eq!(ask(&everything, &long_mode(), true, &event), None, "{event:?}");
        assert!(!interest(&everything).contains(event.class()));
    }
}

#[test]
fn straight_line_code_and_table_decide_alike() {
    let events: Vec<Event> = causes().iter().map(|cause| cause.event).collect();
    let mut stream = Stream(0x0dd_ba11);
    let mut exits = 0;
    for _ in 0..20_000 {
        let (controls, processor, ones) = (controls(&mut stream), processor(&mut stream), stream.flip());
        let view = View { controls: &controls, processor: &processor, bitmaps: &UniformBitmaps(ones) };
        for event in &events {
            let answer = decide(&view, event);
            assert_eq!(answer, Table::BUILT_IN.decide(&view, event), "{event:?} {controls:?} {processor:?}");
            exits += u32::from(answer.is_some());
        }
    }
    assert!(exits > 500_000, "the draws are not all quiet: {exits}");
}
