//! Rules of the data sheet. Times are ticks of one nanosecond.

use super::*;

const S: u64 = clock::TICK_HZ;

fn clock() -> Rtc {
    Rtc::new(Date { year: 1999, month: 12, day: 31, hour: 23, minute: 59, second: 58 })
}

fn read(rtc: &mut Rtc, register: u8, tick: u64) -> u8 {
    rtc.select(register);
    rtc.read(tick)
}

fn write(rtc: &mut Rtc, register: u8, value: u8, tick: u64) {
    rtc.select(register);
    rtc.write(value, tick);
}

/// Century, year, month, day, weekday, hours, minutes, seconds.
fn time(rtc: &mut Rtc, tick: u64) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|register| read(rtc, register, tick))
}

#[test]
fn the_configured_date_goes_on_in_bcd() {
    let mut rtc = clock();
    assert_eq!(time(&mut rtc, 0), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58]);
    assert_eq!(time(&mut rtc, 2 * S - 1), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]);
    assert_eq!(time(&mut rtc, 2 * S), [0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0]);
}

#[test]
fn binary_and_twelve_hours_show_the_same_moment() {
    let mut rtc = clock();
    write(&mut rtc, B, BINARY, 0);
    assert_eq!(time(&mut rtc, 0), [19, 99, 12, 31, 6, 0x80 | 11, 59, 58]);
    assert_eq!(time(&mut rtc, 2 * S)[5], 12, "midnight is 12 AM");
    assert_eq!(time(&mut rtc, 2 * S + 12 * 3600 * S)[5], 0x80 | 12, "noon is 12 PM");
    write(&mut rtc, B, 0, 2 * S);
    assert_eq!(read(&mut rtc, HOURS, 2 * S + 11 * 3600 * S), 0x11);
}

#[test]
fn set_stops_updates_and_the_written_time_is_taken_when_it_is_cleared() {
    let mut rtc = clock();
    write(&mut rtc, B, SET | HOURS_24 | UPDATE_ENDED, S / 2);
    assert_eq!(read(&mut rtc, B, S / 2), SET | HOURS_24, "SET clears UIE");
    assert_eq!(read(&mut rtc, SECONDS, 100 * S), 0x58);
    for (register, value) in
        [(YEAR, 0x24), (CENTURY, 0x20), (MONTH, 2), (DAY, 0x28), (HOURS, 0x23), (MINUTES, 0x59)]
    {
        write(&mut rtc, register, value, 100 * S);
    }
    write(&mut rtc, SECONDS, 0x59, 100 * S);
    assert_eq!(read(&mut rtc, A, 101 * S - 1) & 0x80, 0, "no update is in progress");
    write(&mut rtc, B, HOURS_24, 100 * S + S / 2);
    assert_eq!(time(&mut rtc, 101 * S), [0x20, 0x24, 2, 0x29, 5, 0, 0, 0], "2024 is a leap year");
}

#[test]
fn update_in_progress_precedes_the_update_by_2228_microseconds() {
    let mut rtc = clock();
    let us = S / 1_000_000;
    assert_eq!(read(&mut rtc, A, S - 2300 * us), 0x26);
    assert_eq!(read(&mut rtc, A, S - 2200 * us), 0xa6);
    assert_eq!(read(&mut rtc, A, S - 1), 0xa6);
    assert_eq!(read(&mut rtc, A, S), 0x26);
}

#[test]
fn the_divider_held_in_reset_stops_time_and_starts_half_a_second_before_an_update() {
    let mut rtc = clock();
    write(&mut rtc, A, 0x66, S / 4);
    assert_eq!(read(&mut rtc, SECONDS, 50 * S), 0x58);
    write(&mut rtc, A, 0x26, 50 * S);
    assert_eq!(read(&mut rtc, SECONDS, 50 * S + S / 2 - S / 1000), 0x58);
    assert_eq!(read(&mut rtc, SECONDS, 50 * S + S / 2 + S / 1000), 0x59);
}

#[test]
fn the_periodic_interrupt_has_the_rate_of_register_a_and_reading_c_ends_it() {
    for (rate, hertz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let mut rtc = clock();
        write(&mut rtc, A, 0x20 | rate, 0);
        assert_eq!(rtc.next_event(0), None);
        write(&mut rtc, B, HOURS_24 | PERIODIC, 0);
        let period = S.div_ceil(hertz);
        assert_eq!(rtc.next_event(0), Some(period), "rate {rate}");
        assert!(!rtc.interrupt(period - 1) && rtc.interrupt(period));
        assert_eq!(rtc.next_event(period), None, "the line is high already");
        assert_eq!(read(&mut rtc, C, period), 0x80 | PERIODIC);
        assert!(!rtc.interrupt(period));
        assert_eq!(rtc.next_event(period), Some((2 * S).div_ceil(hertz)));
    }
}

#[test]
fn flags_are_set_without_their_enables() {
    let mut rtc = clock();
    assert_eq!(read(&mut rtc, C, S + 1), PERIODIC | UPDATE_ENDED);
    assert_eq!(read(&mut rtc, C, S + 2), 0);
}

#[test]
fn the_update_ended_interrupt_comes_every_second() {
    let mut rtc = clock();
    write(&mut rtc, B, HOURS_24 | UPDATE_ENDED, S / 3);
    assert_eq!(rtc.next_event(S / 3), Some(S));
    assert!(rtc.interrupt(S));
    assert_eq!(read(&mut rtc, C, S), 0x80 | PERIODIC | UPDATE_ENDED);
    assert_eq!(rtc.next_event(S), Some(2 * S));
}

#[test]
fn the_alarm_matches_hours_minutes_seconds_or_any() {
    for (alarm, expected) in [
        ([0x00, 0x00, 0x00], 2),
        ([0xff, 0xff, 0xff], 1),
        ([0xc0, 0x00, 0x30], 32),
        ([0x01, 0xff, 0x05], 2 + 3600 + 5),
        ([0x23, 0x59, 0x58], 86_400),
    ] {
        let mut rtc = clock();
        for (register, value) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(alarm) {
            write(&mut rtc, register, value, 0);
        }
        write(&mut rtc, B, HOURS_24 | ALARM, 0);
        assert_eq!(rtc.next_event(0), Some(expected * S), "{alarm:x?}");
        assert!(!rtc.interrupt(expected * S - 1), "{alarm:x?}");
        assert!(rtc.interrupt(expected * S), "{alarm:x?}");
        assert_eq!(read(&mut rtc, C, expected * S) & 0xa0, 0x80 | ALARM);
    }
}

#[test]
fn an_alarm_that_no_time_matches_never_comes() {
    let mut rtc = clock();
    write(&mut rtc, SECONDS_ALARM, 0x60, 0);
    write(&mut rtc, B, HOURS_24 | ALARM, 0);
    assert_eq!(rtc.next_event(0), None);
}

#[test]
fn ram_keeps_bytes_and_c_and_d_are_read_only() {
    let mut rtc = clock();
    write(&mut rtc, 0x0f, 0x0a, 0);
    write(&mut rtc, 0x8f, 0x0b, 0);
    assert_eq!(read(&mut rtc, 0x0f, 0), 0x0b, "bit 7 of the index is the NMI mask");
    write(&mut rtc, D, 0, 0);
    assert_eq!(read(&mut rtc, D, 0), 0x80);
}

#[test]
fn memory_sizes_stand_where_firmware_looks_for_them() {
    let mut rtc = clock();
    rtc.describe(512 << 20, 5 << 30, 4);
    let word = |rtc: &mut Rtc, at: u8| u16::from_le_bytes([read(rtc, at, 0), read(rtc, at + 1, 0)]);
    assert_eq!(word(&mut rtc, 0x15), 640);
    assert_eq!(word(&mut rtc, 0x17), 0xffff);
    assert_eq!(word(&mut rtc, 0x34), (496 << 20 >> 16) as u16);
    assert_eq!(word(&mut rtc, 0x5b), (5_u64 << 30 >> 16) as u16);
    assert_eq!(read(&mut rtc, 0x5d, 0), 1);
    assert_eq!(read(&mut rtc, 0x5f, 0), 3);
}
