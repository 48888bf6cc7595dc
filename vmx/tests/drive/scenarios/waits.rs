//! MONITOR, MWAIT and their relatives for user programs; bus locks.

use super::*;

/// MONITOR of [DATA], then MWAIT with `hints` in ECX.
fn monitor_and_mwait(hints: u32) -> impl Fn(&mut CodeAssembler) -> Result<(), IcedError> {
    move |a| {
        a.xor(ecx, ecx)?;
        a.lea(rax, qword_ptr(rbx))?;
        a.monitor()?;
        a.mov(ecx, hints)?;
        a.mwait()?;
        a.vmcall()
    }
}
/// Where its MWAIT is.
const MWAIT: u64 = 13;

/// A locked access that crosses a cache line, 4 bytes long.
fn bus_lock(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.lock().inc(qword_ptr(rbx))?;
    a.vmcall()
}

pub(super) fn all() -> Vec<Scenario> {
    use ExitReason as R;
    use PrimaryControls as P;
    use SecondaryControls as S;
    let on_register_cx = 1 << 3 | 1 << 11;
    vec![
        Scenario::on(P::MONITOR_EXITING, R::MONITOR, |a| a.monitor()).length(3),
        Scenario::on(P::MWAIT_EXITING, R::MWAIT, monitor_and_mwait(0))
            .after(MWAIT)
            .length(3)
            .qualification(1),
        Scenario::on(P::MWAIT_EXITING, R::MWAIT, |a| a.mwait()).length(3),
        // Both transitions clear the monitor.
        Scenario::on(P::MWAIT_EXITING, R::MWAIT, |a| {
            a.monitor()?;
            a.cpuid()?;
            a.mwait()
        })
        .register(Gpr::Rax, DATA)
        .between(|_| {})
        .after(5)
        .length(3),
        // An exit while the guest waits finds it active.
        Scenario::on(PinControls::EXTERNAL_INTERRUPT_EXITING, R::EXTERNAL_INTERRUPT, monitor_and_mwait(0))
            .with(|b| {
                b.pin(PinControls::PREEMPTION_TIMER);
                b.set(Field::PreemptionTimer, 2);
            })
            .between(|b| b.post(Message::Interrupt(0x33)))
            .after(MWAIT + 3),
        // Nothing would wake it where the hypervisor asks for a window that masked interrupts end.
        Scenario::on(P::INTERRUPT_WINDOW_EXITING, R::VMCALL, monitor_and_mwait(1))
            .after(MWAIT + 3)
            .length(VMCALL),
        Scenario::on(S::ENABLE_USER_WAIT, R::UMWAIT, |a| a.umwait(ecx))
            .with(|b| b.primary(P::RDTSC_EXITING))
            .length(4)
            .information(on_register_cx),
        Scenario::on(S::ENABLE_USER_WAIT, R::TPAUSE, |a| a.tpause(ecx))
            .with(|b| b.primary(P::RDTSC_EXITING))
            .length(4)
            .information(on_register_cx),
        Scenario::on(S::BUS_LOCK_DETECTION, R::BUS_LOCK, bus_lock)
            .register(Gpr::Rbx, DATA + 60)
            .expect(|exit| exit.reason |= u64::from(ExitReason::BUS_LOCK_PENDING))
            .after(4)
            .sees(1, |b| b.get(DATA + 60)),
    ]
}
