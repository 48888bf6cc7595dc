//! MPERF, APERF and RDPRU (SDM Vol. 3B "Hardware-Coordination Feedback", APM Vol. 3 "RDPRU").

use crate::support::{Rig, STACK, USER_CS, USER_SS};
use iced_x86::code_asm::*;
use rootmode_arch::{Cr4, vector};
use rootmode_cpu::{Model, RunEnd};

const HANDLER: u64 = 0x1_8000;
const USER: u64 = 0x1_4000;
const MPERF: u32 = 0xe7;
const APERF: u32 = 0xe8;

fn rdpru(a: &mut CodeAssembler) {
    a.db(&[0x0f, 0x01, 0xfd]).unwrap();
}

/// EDX:EAX into `to`.
fn collect(a: &mut CodeAssembler, to: AsmRegister64) {
    a.shl(rdx, 32).unwrap();
    a.lea(to, qword_ptr(rax + rdx)).unwrap();
}

#[test]
fn aperf_counts_clocks_and_mperf_counts_at_the_rate_of_the_tsc() {
    for model in [Model::max_intel(), Model::max_amd()] {
        let mut rig = Rig::with_model(model);
        rig.code(|a| {
            for (index, to) in [(MPERF, r8), (APERF, r9)] {
                a.mov(ecx, index).unwrap();
                a.rdmsr().unwrap();
                collect(a, to);
            }
            // Both are writable.
            for index in [MPERF, APERF] {
                a.mov(ecx, index).unwrap();
                a.mov(eax, 1000).unwrap();
                a.mov(edx, 1).unwrap();
                a.wrmsr().unwrap();
                a.rdmsr().unwrap();
                collect(a, if index == MPERF { r10 } else { r11 });
            }
            a.hlt().unwrap();
        });
        assert_eq!(rig.run(100), RunEnd::Asleep);
        // RDMSR after one and after five instructions; one tick after the write.
        let base = (1 << 32) + 1000;
        assert_eq!(rig.cpu().gpr[8..12], [4, 5, base + 4, base + 1]);
    }
}

/// RDPRU of `register` at CPL 3, with CR4.TSD or without: EDX:EAX, or the vector of the exception.
fn user(register: u32, disabled: bool) -> Result<u64, u8> {
    let mut rig = Rig::with_model(Model::max_amd());
    for v in [vector::GP, vector::UD, 0x20] {
        rig.gate(v, HANDLER + 16 * u64::from(v), 0xe, 3, 0);
        rig.code_at(HANDLER + 16 * u64::from(v), |a| a.hlt().unwrap());
    }
    if disabled {
        rig.cpu().cr4 = rig.cpu().cr4 | Cr4::TSD;
    }
    rig.code(|a| {
        for word in [USER_SS, STACK, 2, USER_CS, USER] {
            a.push(word as i32).unwrap();
        }
        a.iretq().unwrap();
    });
    rig.code_at(USER, |a| {
        a.mov(rax, -1_i64).unwrap();
        a.mov(rdx, rax).unwrap();
        a.mov(ecx, register).unwrap();
        rdpru(a);
        a.int(0x20).unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    let came = ((rig.cpu().rip - HANDLER) / 16) as u8;
    let value = rig.cpu().gpr[2] << 32 | rig.cpu().gpr[0];
    if came == 0x20 { Ok(value) } else { Err(came) }
}

#[test]
fn rdpru_reads_them_where_rdtsc_would_read_the_time() {
    // Five pushes, IRET and three moves come before.
    assert_eq!(user(0, false), Ok(4 * 9));
    assert_eq!(user(1, false), Ok(9));
    assert_eq!(user(2, false), Ok(0), "no such register");
    assert_eq!(user(0, true), Err(vector::GP));
}

#[test]
fn rdpru_is_undefined_without_the_feature() {
    let mut rig = Rig::with_model(Model::max_intel());
    rig.gate(vector::UD, HANDLER, 0xe, 0, 0);
    rig.code_at(HANDLER, |a| a.hlt().unwrap());
    rig.code(rdpru);
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().rip, HANDLER + 1);
}
