//! AMD's performance counters: which clocks they count, by the manual's fields of PERF_CTL
//! (APM Vol. 2 "Performance Monitoring Counters").

use crate::support::{Rig, STACK, USER_CS, USER_SS};
use iced_x86::code_asm::*;
use rootmode_cpu::Model;

const CTL0: u32 = 0xc001_0000;
const CLOCKS: u32 = 0x76;
const USR: u32 = 1 << 16;
const OS: u32 = 1 << 17;
const EN: u32 = 1 << 22;

/// WRMSR of PERF_CTL0, `supervisor` NOPs, a return to level 3 with `user` NOPs, RDPMC there, and what it gave.
fn count(control: u32, supervisor: usize, user: usize) -> u64 {
    let mut rig = Rig::with_model(Model::max_amd());
    rig.cpu().cr4.0 |= 1 << 8;
    let mut at = 0;
    rig.code(|a| {
        a.mov(ecx, CTL0).unwrap();
        a.mov(eax, control).unwrap();
        a.xor(edx, edx).unwrap();
        a.wrmsr().unwrap();
        (0..supervisor).for_each(|_| a.nop().unwrap());
        for word in [USER_SS, STACK, 2, USER_CS, 0x1_1000] {
            a.push(word as i32).unwrap();
        }
        a.iretq().unwrap();
        at = a.instructions().len();
    });
    rig.code_at(0x1_1000, |a| {
        (0..user).for_each(|_| a.nop().unwrap());
        a.xor(ecx, ecx).unwrap();
        a.rdpmc().unwrap();
        a.nop().unwrap();
    });
    rig.run((at + user + 2) as u64);
    let [low, _, high] = rig.cpu().gpr[..3] else { unreachable!("there are 16 registers") };
    high << 32 | low
}

#[test]
fn clocks_are_counted_at_the_levels_that_the_control_selects() {
    // A clock belongs to what the processor is at its end. At level 0: the write that starts the counter, NOPs, five pushes.
    // At level 3: IRET, NOPs, and XOR.
    let (kernel, user) = (1 + 10 + 5, 1 + 20 + 1);
    for (control, expected) in [
        (CLOCKS | EN | USR | OS, kernel + user),
        (CLOCKS | EN | OS, kernel),
        (CLOCKS | EN | USR, user),
        (CLOCKS | EN, 0),
        (CLOCKS | USR | OS, 0),
        // CntMask 1 is reached by one event a clock, 2 never; INV turns it round.
        (CLOCKS | EN | USR | OS | 1 << 24, kernel + user),
        (CLOCKS | EN | USR | OS | 2 << 24, 0),
        (CLOCKS | EN | USR | OS | 2 << 24 | 1 << 23, kernel + user),
        (CLOCKS | EN | USR | OS | 1 << 24 | 1 << 23, 0),
    ] {
        assert_eq!(count(control, 10, 20), expected, "{control:#x}");
    }
}

#[test]
fn counters_have_48_bits_and_intel_has_none_of_them() {
    let program = |rig: &mut Rig| {
        rig.code(|a| {
            a.mov(ecx, CTL0 + 4).unwrap();
            a.mov(eax, -1).unwrap();
            a.mov(edx, -1).unwrap();
            a.wrmsr().unwrap();
            a.rdmsr().unwrap();
        });
        rig.run(5);
    };
    let mut amd = Rig::with_model(Model::max_amd());
    program(&mut amd);
    assert_eq!((amd.cpu().gpr[0], amd.cpu().gpr[2]), (0xffff_ffff, 0xffff));
    let mut intel = Rig::with_model(Model::max_intel());
    intel.gate(13, 0x1_2000, 0xe, 0, 0);
    intel.code_at(0x1_2000, |a| a.hlt().unwrap());
    program(&mut intel);
    assert_eq!(intel.cpu().rip, 0x1_2001, "#GP");
}
