//! The timing diagrams of the data sheet, typed as strings, its rules for latches, gates and reloads, and a counter that
//! really counts, one pulse of the clock at a time.

use super::*;
use crate::devices::clock::PIT;

/// The tick in the middle of a cycle of the input clock.
fn at(cycle: u64) -> u64 {
    (PIT.tick_of(cycle) + PIT.tick_of(cycle + 1)) / 2
}

fn program(pit: &mut Pit, counter: u16, mode: u8, count: u16, cycle: u64) {
    pit.write(0x43, (counter as u8) << 6 | 0x30 | mode << 1, at(cycle));
    pit.write(0x40 + counter, count as u8, at(cycle));
    pit.write(0x40 + counter, (count >> 8) as u8, at(cycle));
}

fn count(pit: &mut Pit, counter: u16, cycle: u64) -> u16 {
    pit.write(0x43, (counter as u8) << 6, at(cycle));
    let low = pit.read(0x40 + counter, at(cycle));
    u16::from_le_bytes([low, pit.read(0x40 + counter, at(cycle))])
}

fn status(pit: &mut Pit, counter: u16, cycle: u64) -> u8 {
    pit.write(0x43, 0xe0 | 2 << counter, at(cycle));
    pit.read(0x40 + counter, at(cycle))
}

/// OUT of counter 0 from `cycle` on, as a string of `-` (high) and `_`.
fn wave(pit: &Pit, cycle: u64, length: u64) -> String {
    (cycle..cycle + length).map(|c| if pit.out0(at(c)) { '-' } else { '_' }).collect()
}

/// The data sheet's diagrams for counter 0 (gate high): the count is written in cycle 0 and loaded in cycle 1.
#[test]
fn outputs_follow_the_timing_diagrams_of_the_gated_high_modes() {
    for (mode, n, expected) in [
        // OUT goes high N + 1 pulses after the count is written.
        (0, 4, "_____-------"),
        // High, low while the count is 1.
        (2, 3, "---_--_--_--_"),
        (2, 4, "----_---_---_"),
        (3, 4, "---__--__--__"),
        (3, 5, "----__---__---__"),
        (4, 3, "----_-----"),
        // No trigger ever comes.
        (1, 3, "--------"),
        (5, 3, "--------"),
    ] {
        let mut pit = Pit::new();
        program(&mut pit, 0, mode, n, 1000);
        assert_eq!(wave(&pit, 1000, expected.len() as u64), expected, "mode {mode}, count {n}");
    }
}

#[test]
fn counts_follow_the_counting_element_of_each_mode() {
    for (mode, n, expected) in [
        (0, 3, &[3, 3, 2, 1, 0, 0xffff, 0xfffe][..]),
        (2, 3, &[3, 3, 2, 1, 3, 2, 1, 3]),
        (3, 4, &[4, 4, 2, 4, 2, 4, 2]),
        (3, 5, &[4, 4, 2, 0, 4, 2, 4, 2, 0, 4]),
        (4, 2, &[2, 2, 1, 0, 0xffff]),
    ] {
        let mut pit = Pit::new();
        program(&mut pit, 0, mode, n, 500);
        let counts: Vec<u16> = (0..expected.len() as u64).map(|i| count(&mut pit, 0, 500 + i)).collect();
        assert_eq!(counts, expected, "mode {mode}, count {n}");
    }
}

#[test]
fn the_next_event_is_exactly_where_the_output_changes() {
    for mode in 0..6 {
        for n in [2, 3, 4, 7, 10] {
            let mut pit = Pit::new();
            program(&mut pit, 0, mode, n, 100);
            for cycle in 100..160 {
                if cycle == 120 {
                    // A new count in the middle of a period.
                    pit.write(0x40, 5, at(cycle));
                    pit.write(0x40, 0, at(cycle));
                }
                let now = pit.out0(at(cycle));
                let change = (cycle + 1..400).find(|later| pit.out0(at(*later)) != now);
                assert_eq!(
                    pit.next_event(at(cycle)),
                    change.map(|c| PIT.tick_of(c)),
                    "mode {mode}, count {n}, cycle {cycle}"
                );
            }
        }
    }
}

#[test]
fn a_new_count_in_mode_2_waits_for_the_end_of_the_period() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 4, 0);
    // Cycles 1-4, 5-8, 9-12 are periods.
    pit.write(0x40, 3, at(6));
    pit.write(0x40, 0, at(6));
    assert_eq!(wave(&pit, 5, 11), "---_--_--_-");
    assert_eq!(status(&mut pit, 0, 7) & 0x40, 0x40, "the null-count bit is set until then");
    assert_eq!(status(&mut pit, 0, 9) & 0x40, 0);
}

#[test]
fn a_new_count_in_mode_3_waits_for_the_end_of_the_half_wave() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 3, 6, 0);
    assert_eq!(wave(&pit, 1, 8), "---___--");
    pit.write(0x40, 4, at(2));
    pit.write(0x40, 0, at(2));
    assert_eq!(wave(&pit, 1, 10), "---__--__-");
}

#[test]
fn the_first_byte_of_a_count_stops_mode_0() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 4, 0);
    assert!(pit.out0(at(5)));
    pit.write(0x40, 2, at(6));
    assert!(!pit.out0(at(6)));
    assert!(!pit.out0(at(60)));
    assert_eq!(pit.next_event(at(60)), None);
    pit.write(0x40, 0, at(60));
    assert_eq!(wave(&pit, 60, 6), "___---");
}

/// OUT of counter 2, through port 0x61.
fn out2(pit: &mut Pit, cycle: u64) -> bool {
    pit.read(0x61, at(cycle)) & 0x20 != 0
}

#[test]
fn the_gate_of_counter_2_holds_mode_0_and_keeps_its_count() {
    let mut pit = Pit::new();
    pit.write(0x61, 1, at(0));
    program(&mut pit, 2, 0, 10, 0);
    pit.write(0x61, 0, at(4));
    let held = count(&mut pit, 2, 4);
    assert_eq!(held, 7);
    assert_eq!(count(&mut pit, 2, 1000), held);
    assert!(!out2(&mut pit, 1000));
    pit.write(0x61, 1, at(1000));
    assert!(!out2(&mut pit, 1006));
    assert!(out2(&mut pit, 1007));
}

#[test]
fn a_rising_gate_triggers_and_retriggers_the_one_shot() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 1, 5, 0);
    assert!(out2(&mut pit, 3));
    pit.write(0x61, 1, at(10));
    assert_eq!((10..18).map(|c| u8::from(out2(&mut pit, c))).collect::<Vec<_>>(), [1, 0, 0, 0, 0, 0, 1, 1]);
    pit.write(0x61, 0, at(20));
    pit.write(0x61, 1, at(20));
    pit.write(0x61, 0, at(23));
    pit.write(0x61, 1, at(23));
    assert!((21..29).all(|c| !out2(&mut pit, c)));
    assert!(out2(&mut pit, 29));
}

#[test]
fn a_low_gate_sets_the_rate_generators_output_high_and_a_rising_one_restarts_it() {
    for mode in [2, 3] {
        let mut pit = Pit::new();
        pit.write(0x61, 1, at(0));
        program(&mut pit, 2, mode, 4, 0);
        assert!(!out2(&mut pit, 4));
        pit.write(0x61, 0, at(4));
        assert!((4..20).all(|c| out2(&mut pit, c)));
        pit.write(0x61, 1, at(20));
        assert_eq!(count(&mut pit, 2, 21), 4);
    }
}

#[test]
fn the_hardware_strobe_is_low_for_one_cycle_after_its_count() {
    let mut pit = Pit::new();
    program(&mut pit, 2, 5, 3, 0);
    pit.write(0x61, 1, at(10));
    assert_eq!((10..17).map(|c| u8::from(out2(&mut pit, c))).collect::<Vec<_>>(), [1, 1, 1, 1, 0, 1, 1]);
}

#[test]
fn latches_hold_and_status_is_read_before_count() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    // Read-back of count and status of counter 0.
    pit.write(0x43, 0xc2, at(101));
    pit.write(0x43, 0x00, at(301));
    assert_eq!(pit.read(0x40, at(500)), 0x80 | 0x34);
    let low = pit.read(0x40, at(500));
    assert_eq!(u16::from_le_bytes([low, pit.read(0x40, at(600))]), 900);
    assert_eq!(count(&mut pit, 0, 301), 700);
}

#[test]
fn one_byte_access_modes_transfer_that_byte_only() {
    let mut pit = Pit::new();
    pit.write(0x43, 0x10, at(0));
    pit.write(0x40, 200, at(0));
    assert_eq!(pit.read(0x40, at(101)), 100);
    assert_eq!(pit.read(0x40, at(101)), 100);
    pit.write(0x43, 0x20, at(200));
    pit.write(0x40, 2, at(200));
    assert_eq!(pit.read(0x40, at(201)), 2);
    assert_eq!(pit.read(0x40, at(202)), 1);
}

#[test]
fn binary_coded_decimal_counts_from_10000_when_0_is_written() {
    let mut pit = Pit::new();
    pit.write(0x43, 0x35, at(0));
    pit.write(0x40, 0, at(0));
    pit.write(0x40, 0, at(0));
    assert_eq!(count(&mut pit, 0, 2), 0x9999);
    assert_eq!(count(&mut pit, 0, 1001), 0x9000);
    assert_eq!(count(&mut pit, 0, 10_002), 0x9999);
}

#[test]
fn port_61_shows_gate_speaker_refresh_and_output() {
    let mut pit = Pit::new();
    pit.write(0x61, 3, at(0));
    assert_eq!(pit.read(0x61, at(1)) & 0x0f, 3);
    assert_ne!(pit.read(0x61, at(1)) & 0x10, pit.read(0x61, at(19)) & 0x10);
}

/// The data sheet's counter, pulse by pulse.
#[derive(Debug)]
struct Counting {
    mode: u8,
    /// The count register.
    register: u16,
    /// The counting element.
    element: u16,
    loaded: bool,
    load: bool,
    /// Modes 4 and 5: the strobe has still to come. Mode 3: the half wave was loaded from an odd count.
    armed: bool,
    out: bool,
    gate: bool,
}

impl Counting {
    fn new(mode: u8, gate: bool) -> Self {
        let out = mode != 0;
        Self { mode, register: 0, element: 0, loaded: false, load: false, armed: false, out, gate }
    }

    fn write(&mut self, count: u16) {
        self.register = count;
        match self.mode {
            0 => {
                self.out = false;
                self.load = true;
            }
            4 => self.load = true,
            2 | 3 if !self.loaded => self.load = self.gate,
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        match self.mode {
            1 | 5 if rises => self.load = self.register != 0,
            2 | 3 if rises => self.load = self.register != 0,
            2 | 3 if !gate => {
                self.out = true;
                self.loaded = false;
                self.load = false;
            }
            _ => {}
        }
    }

    fn pulse(&mut self) {
        let strobe = matches!(self.mode, 4 | 5);
        if strobe && !self.out {
            self.out = true;
        }
        if std::mem::take(&mut self.load) {
            self.loaded = true;
            self.armed = self.mode != 3 || self.register & 1 != 0;
            self.element = if self.mode == 3 { self.register & !1 } else { self.register };
            if self.mode == 1 {
                self.out = false;
            }
            if matches!(self.mode, 2 | 3) {
                self.out = true;
            }
            return;
        }
        let stops = matches!(self.mode, 0 | 2 | 3 | 4) && !self.gate;
        if !self.loaded || stops {
            return;
        }
        if self.mode == 3 {
            // Odd counts: the high half takes one pulse more, with zero in the element.
            let ends = if self.out && self.armed { self.element == 0 } else { self.element == 2 };
            if ends {
                self.out = !self.out;
                self.armed = self.register & 1 != 0;
                self.element = self.register & !1;
            } else {
                self.element -= 2;
            }
            return;
        }
        self.element = self.element.wrapping_sub(1);
        match self.mode {
            0 | 1 if self.element == 0 => self.out = true,
            2 if self.element == 1 => self.out = false,
            2 if self.element == 0 => {
                self.out = true;
                self.element = self.register;
            }
            4 | 5 if self.element == 0 && std::mem::take(&mut self.armed) => self.out = false,
            _ => {}
        }
    }
}

#[test]
fn random_writes_and_gates_give_what_a_counter_gives_that_counts() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % n
    };
    for run in 0..600 {
        let mode = (run % 6) as u8;
        let mut pit = Pit::new();
        let mut gate = below(2) == 1;
        pit.write(0x61, u8::from(gate), at(0));
        let mut counting = Counting::new(mode, gate);
        pit.write(0x43, 0xb0 | mode << 1, at(0));
        let mut history = Vec::new();
        for cycle in 1..200 {
            counting.pulse();
            match below(14) {
                0 => {
                    let count = 2 + below(9) as u16;
                    pit.write(0x42, count as u8, at(cycle));
                    pit.write(0x42, 0, at(cycle));
                    counting.write(count);
                    history.push((cycle, u64::from(count)));
                }
                1 => {
                    gate = !gate;
                    pit.write(0x61, u8::from(gate), at(cycle));
                    counting.set_gate(gate);
                    history.push((cycle, 100 + u64::from(gate)));
                }
                _ => {}
            }
            assert_eq!(
                out2(&mut pit, cycle),
                counting.out,
                "mode {mode}, cycle {cycle}, {history:?}, {counting:?}"
            );
            if counting.loaded && !counting.load {
                let shown = count(&mut pit, 2, cycle);
                assert_eq!(shown, counting.element, "mode {mode}, cycle {cycle}, {history:?}, {counting:?}");
            }
        }
    }
}
