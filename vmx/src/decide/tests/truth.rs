//! Truth tables of the conditions on control registers, page faults, MSRs, ports and VMCS shadowing, each against a
//! second formulation taken from the manual's words.

use super::*;
use crate::bitmap::{BitPosition, BitmapPage, Bitmaps};
use crate::decide::PauseLoop;
use rootmode_arch::event::{Exception, ExceptionSource, PortAccess, VmxInstruction};

fn page_fault(code: u32) -> Event {
    let source = ExceptionSource::Hardware;
    Event::Exception(Exception {
        vector: 14,
        error_code: Some(code),
        detail: 0x1000,
        source,
        instruction_length: 0,
    })
}

#[test]
fn a_page_fault_exits_by_its_bit_if_the_code_matches_and_against_its_bit_if_not() {
    // "Software can set mask = match = 0 for all, mask = 0 and match = ffffffff for none" with the bit set.
    for bitmap in [0u32, 1 << 14, !0, !(1 << 14)] {
        for mask in 0..32u32 {
            for matching in 0..32u32 {
                for code in 0..32u32 {
                    let controls = Controls {
                        exception_bitmap: bitmap,
                        page_fault_mask: mask,
                        page_fault_match: matching,
                        ..Controls::default()
                    };
                    let bit = bitmap >> 14 & 1 == 1;
                    let matches = (0..5).all(|b| {
                        let (m, wanted, got) = (mask >> b & 1, matching >> b & 1, code >> b & 1);
                        if m == 1 { got == wanted } else { wanted == 0 }
                    });
                    let expected = if matches { bit } else { !bit };
                    let got = ask(&controls, &long_mode(), false, &page_fault(code)).is_some();
                    assert_eq!(
                        got, expected,
                        "bitmap {bitmap:x} mask {mask:x} match {matching:x} code {code:x}"
                    );
                }
            }
        }
    }
    let controls = Controls { page_fault_match: !0, exception_bitmap: 1 << 14, ..Controls::default() };
    assert_eq!(ask(&controls, &long_mode(), false, &page_fault(7)), None, "match no code, exit for none");
}

#[test]
fn every_other_vector_exits_exactly_by_its_bit() {
    for vector in (0..32u8).filter(|v| *v != 14) {
        for bit in 0..32 {
            let controls = Controls { exception_bitmap: 1 << bit, ..Controls::default() };
            let source = ExceptionSource::Software;
            let event = Event::Exception(Exception {
                vector,
                error_code: None,
                detail: 0,
                source,
                instruction_length: 1,
            });
            assert_eq!(ask(&controls, &long_mode(), false, &event).is_some(), bit == u32::from(vector));
        }
    }
}

#[test]
fn lmsw_exits_as_if_it_wrote_the_low_4_bits_without_clearing_pe() {
    for mask in 0..32u64 {
        for shadow in 0..32u64 {
            for source in 0..32u16 {
                let controls = Controls { cr0_mask: mask, cr0_shadow: shadow, ..Controls::default() };
                // What LMSW would put into CR0 as the guest sees it: PE once set stays set, bit 4 and above untouched.
                let written = u64::from(source) & 0xf | shadow & 1 | shadow & !0xf;
                let expected = (0..5).any(|b| mask >> b & 1 == 1 && (written ^ shadow) >> b & 1 == 1);
                let got =
                    ask(&controls, &long_mode(), false, &Event::Lmsw { source, memory: None }).is_some();
                assert_eq!(got, expected, "mask {mask:x} shadow {shadow:x} source {source:x}");
            }
        }
    }
}

#[test]
fn clts_exits_only_if_the_guest_sees_ts_set_and_the_host_owns_it() {
    for mask in 0..16u64 {
        for shadow in 0..16u64 {
            for ts in [false, true] {
                let controls = Controls { cr0_mask: mask, cr0_shadow: shadow, ..Controls::default() };
                let mut processor = long_mode();
                processor.cr0 = processor.cr0.set(Cr0::TS, ts);
                let expected = matches!(mask, 8..=15) && matches!(shadow, 8..=15);
                assert_eq!(ask(&controls, &processor, false, &Event::Clts).is_some(), expected);
            }
        }
    }
}

#[test]
fn mov_to_cr0_and_cr4_exit_on_any_host_owned_bit_that_the_guest_would_see_change() {
    for cr in [0u8, 4] {
        for place in [0u32, 5, 31, 61] {
            for mask in 0..8u64 {
                for shadow in 0..8u64 {
                    for value in 0..8u64 {
                        let (m, s) = (mask << place, shadow << place);
                        let mut controls = Controls::default();
                        if cr == 0 {
                            (controls.cr0_mask, controls.cr0_shadow) = (m, s);
                        } else {
                            (controls.cr4_mask, controls.cr4_shadow) = (m, s);
                        }
                        let differs = |b: u32| mask >> b & 1 == 1 && value >> b & 1 != shadow >> b & 1;
                        let event = Event::CrWrite { cr, gpr: Gpr::Rax, value: value << place };
                        let got = ask(&controls, &long_mode(), false, &event).is_some();
                        assert_eq!(got, (0..3).any(differs));
                    }
                }
            }
        }
    }
}

#[test]
fn only_the_first_n_cr3_targets_are_compared_and_nothing_else_of_cr_reads_exits() {
    let targets = [0x1000, 0x2000, 0x3000, 0x4000];
    for count in 0..8u32 {
        let mut controls = Controls { cr3_targets: targets, cr3_target_count: count, ..Controls::default() };
        turn(&mut controls, Word::Primary, 15, true);
        for (i, value) in targets.into_iter().enumerate() {
            let event = Event::CrWrite { cr: 3, gpr: Gpr::Rax, value };
            assert_eq!(ask(&controls, &long_mode(), false, &event).is_none(), (i as u32) < count);
        }
    }
    let everything = Controls {
        pin: crate::PinControls(!0),
        primary: PrimaryControls(!0),
        secondary: SecondaryControls(!0),
        tertiary: TertiaryControls(!0),
        cr0_mask: !0,
        cr4_mask: !0,
        exception_bitmap: !0,
        ..Controls::default()
    };
    for cr in 0..16 {
        let exits = ask(&everything, &long_mode(), true, &Event::CrRead { cr, gpr: Gpr::Rax }).is_some();
        assert_eq!(exits, cr == 3 || cr == 8, "MOV from CR{cr}");
    }
    assert_eq!(ask(&everything, &long_mode(), true, &Event::Smsw { register: None }), None);
}

/// One bit set in one page.
struct OneBit(BitmapPage, u32);

impl Bitmaps for OneBit {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        if page == self.0 && u32::from(offset) == self.1 / 8 { 1 << (self.1 % 8) } else { 0 }
    }
}

fn exits(controls: &Controls, bitmaps: &OneBit, event: &Event) -> bool {
    decide(&View { controls, processor: &long_mode(), bitmaps }, event).is_some()
}

#[test]
fn each_bit_of_each_bitmap_page_makes_exactly_its_own_access_exit() {
    let mut controls = Controls::default();
    for (word, bit) in [(Word::Primary, 25), (Word::Primary, 28), (Word::Secondary, 14)] {
        turn(&mut controls, word, bit, true);
    }
    let io = |port: u32| {
        Event::PortIo(PortAccess {
            port: port as u16,
            size: 1,
            input: false,
            string: false,
            rep: false,
            immediate: false,
            address_size: 0,
            segment: SegmentName::Ds,
            linear: Linear(0),
        })
    };
    let vmcs = |instruction, value: u32| Event::Vmx {
        instruction,
        operand: None,
        register: Some(Gpr::Rax),
        value: value.into(),
    };
    use VmxInstruction::{Vmread, Vmwrite};
    for number in 0..0x8000u32 {
        let position = BitPosition::from_number(number as u16);
        assert_eq!((u32::from(position.byte), u32::from(position.bit)), (number / 8, number % 8));
        // The manual's order of the four MSR bitmaps: read low, read high, write low, write high.
        let index = number % 0x2000 + if number / 0x2000 % 2 == 1 { 0xc000_0000 } else { 0 };
        let (rdmsr, wrmsr) = (Event::Rdmsr { index }, Event::Wrmsr { index, value: 0 });
        let write = number >= 0x4000;
        for page in
            [BitmapPage::IoA, BitmapPage::IoB, BitmapPage::Msr, BitmapPage::Vmread, BitmapPage::Vmwrite]
        {
            let bit = OneBit(page, number);
            assert_eq!(
                exits(&controls, &bit, &rdmsr),
                page == BitmapPage::Msr && !write,
                "{page:?} {number:#x}"
            );
            assert_eq!(
                exits(&controls, &bit, &wrmsr),
                page == BitmapPage::Msr && write,
                "{page:?} {number:#x}"
            );
            assert_eq!(exits(&controls, &bit, &io(number)), page == BitmapPage::IoA);
            assert_eq!(exits(&controls, &bit, &io(number + 0x8000)), page == BitmapPage::IoB);
            assert_eq!(exits(&controls, &bit, &vmcs(Vmread, number)), page == BitmapPage::Vmread);
            assert_eq!(exits(&controls, &bit, &vmcs(Vmwrite, number)), page == BitmapPage::Vmwrite);
        }
    }
}

#[test]
fn msrs_outside_both_ranges_and_encodings_above_bit_14_exit_whatever_the_bitmaps_say() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Primary, 28, true);
    turn(&mut controls, Word::Secondary, 14, true);
    for index in [0x2000, 0x4000_0000, 0xbfff_ffff, 0xc000_2000, 0xc001_0117, u32::MAX] {
        assert!(ask(&controls, &long_mode(), false, &Event::Rdmsr { index }).is_some());
        assert!(ask(&controls, &long_mode(), false, &Event::Wrmsr { index, value: 0 }).is_some());
    }
    for bit in 0..64 {
        for instruction in [VmxInstruction::Vmread, VmxInstruction::Vmwrite] {
            let event = Event::Vmx { instruction, operand: None, register: Some(Gpr::Rax), value: 1 << bit };
            assert_eq!(ask(&controls, &long_mode(), false, &event).is_some(), bit >= 15, "bit {bit}");
        }
    }
}

#[test]
fn a_port_access_that_wraps_around_exits_with_clear_bitmaps() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Primary, 25, true);
    // With I/O bitmaps, "unconditional I/O exiting" is ignored.
    turn(&mut controls, Word::Primary, 24, true);
    for (port, size, wraps) in
        [(0xfffc, 4, false), (0xfffd, 4, true), (0xfffe, 2, false), (0xffff, 2, true), (0xffff, 1, false)]
    {
        let event = Event::PortIo(PortAccess {
            port,
            size,
            input: true,
            string: false,
            rep: false,
            immediate: false,
            address_size: 0,
            segment: SegmentName::Es,
            linear: Linear(0),
        });
        assert_eq!(ask(&controls, &long_mode(), false, &event).is_some(), wraps, "{port:#x} {size}");
    }
}

#[test]
fn vmfunc_exits_for_a_function_that_is_off_and_for_an_eptp_index_out_of_range() {
    let mut controls = Controls { vm_functions: 1, ..Controls::default() };
    turn(&mut controls, Word::Secondary, 13, true);
    let call = |eax: u64, ecx: u64| {
        let event = Event::Vmx {
            instruction: VmxInstruction::Vmfunc,
            operand: None,
            register: None,
            value: ecx << 32 | eax,
        };
        ask(&controls, &long_mode(), false, &event).is_some()
    };
    assert!(!call(0, 0) && !call(0, 511));
    assert!(call(0, 512) && call(0, 0xffff_ffff));
    assert!(call(1, 0) && call(63, 0));
    assert!(!call(64, 0) && !call(0xffff_ffff, 0), "#UD, not an exit");
}

#[test]
fn a_pause_loop_exits_once_it_has_lasted_longer_than_the_window() {
    let (gap, window) = (100u32, 1000u32);
    let mut controls = Controls { ple_gap: gap, ple_window: window, ..Controls::default() };
    turn(&mut controls, Word::Secondary, 10, true);
    // PAUSEs every `step` ticks: the loop's first is at 5000, so the first exit is the first one after 6000.
    for step in [1u64, 7, 99, 100, 101, 500] {
        let mut processor = long_mode();
        let mut first_exit = None;
        for i in 0..3000 {
            let tsc = 5000 + i * step;
            if ask(&controls, &processor, false, &Event::Pause { cpl: 0, tsc }).is_some() {
                first_exit = Some(tsc);
                break;
            }
            processor.pause_loop = processor.pause_loop.after(gap, tsc);
        }
        let expected = (step <= 100).then(|| 5000 + (1000 / step + 1) * step);
        assert_eq!(first_exit, expected, "step {step}");
    }
    let fresh = PauseLoop::default();
    assert!(fresh.starts(gap, 0) && !fresh.exits(gap, window, u64::MAX));
}

#[test]
fn windows_open_exactly_where_the_manual_opens_them() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Primary, 2, true);
    turn(&mut controls, Word::Primary, 22, true);
    for bits in 0..32u32 {
        for enabled in [false, true] {
            for sti_blocks_nmi_window in [false, true] {
                controls.traits.sti_blocks_nmi_window = sti_blocks_nmi_window;
                let mut processor = long_mode();
                processor.interruptibility = crate::information::Interruptibility(bits);
                processor.rflags = processor.rflags.set(RFlags::IF, enabled);
                let (sti, mov_ss, nmi) = (bits & 1 == 1, bits & 2 == 2, bits & 8 == 8);
                let interrupt = ask(&controls, &processor, false, &Event::InterruptWindow).is_some();
                assert_eq!(interrupt, enabled && !sti && !mov_ss);
                let window = ask(&controls, &processor, false, &Event::NmiWindow).is_some();
                let blocked = nmi || mov_ss || sti && sti_blocks_nmi_window;
                assert_eq!(window, !blocked);
            }
        }
    }
}

#[test]
fn the_tpr_is_below_the_threshold_by_its_upper_four_bits() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Primary, 21, true);
    for threshold in 0..=255u32 {
        for vtpr in 0..=255u8 {
            controls.tpr_threshold = threshold;
            let processor = Processor { vtpr, ..long_mode() };
            let expected = u32::from(vtpr) / 16 < threshold % 16;
            assert_eq!(ask(&controls, &processor, false, &Event::TprBelowThreshold).is_some(), expected);
        }
    }
}
