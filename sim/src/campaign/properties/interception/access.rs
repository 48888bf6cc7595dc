//! What a guest's access leads to: emulation, #GP(0) or an exit to userspace; and what userspace's answer does.

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::filter::{
    ExitMask, Failure, MsrExit, MsrFile, Outcome, Path, Resumed, handle, resume,
};
use rootmode_models::kvm::interception::Access;

use super::{draw, oracle};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "denied-access-never-executes",
        about: "A denied access exits with reason FILTER if userspace asked for it, else faults, and never touches the MSR.",
        source: "catalogue 0.3, 0.4; P-A5",
        cost: 1,
        check: outcome,
    },
    Property {
        name: "exit-record",
        about: "The exit's record has the documented layout, and userspace's answer completes or faults the instruction.",
        source: "catalogue 0.4",
        cost: 1,
        check: record,
    },
];

/// An MSR file with one answer, that counts how often it was asked.
struct File {
    answer: Result<u64, Failure>,
    asked: u32,
}

impl MsrFile for File {
    fn read(&mut self, _: u32) -> Result<u64, Failure> {
        self.asked += 1;
        self.answer
    }
    fn write(&mut self, _: u32, _: u64) -> Result<(), Failure> {
        self.asked += 1;
        self.answer.map(|_| ())
    }
}

fn outcome(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let filter = draw::filter(c);
    let (msr, access) = match (c.choose(Site::State, 4), filter.ranges.last()) {
        (0, _) | (_, None) => (draw::any_msr(c), draw::access(c)),
        (1, Some(_)) => (rootmode_arch::msr::IA32_TSC_DEADLINE, Access::Write),
        (_, Some(range)) => (range.base.wrapping_add(c.choose(Site::State, 4) as u32), draw::access(c)),
    };
    let bits = c.choose(Site::State, 8);
    let Ok(mask) = ExitMask::enable(bits) else {
        return Counterexample::new(format!("mask {bits:#x} was refused")).into();
    };
    let path = if c.flip(Site::State) { Path::Fast } else { Path::Normal };
    let ignore = c.choose(Site::State, 4) == 3;
    let answer = [Ok(7), Err(Failure::Unknown), Err(Failure::Invalid)][c.choose(Site::State, 3) as usize];
    let value = c.choose(Site::State, 1 << 48);

    let mut file = File { answer, asked: 0 };
    let found = handle(access, msr, value, path, &filter.build(), mask, ignore, &mut file, bugs);

    let denied = !oracle::allows(&filter, msr, access);
    let (bit, reason) = match (denied, answer) {
        (true, _) => (4, Some(Failure::Filtered)),
        (false, Err(Failure::Unknown)) if ignore => (0, None),
        (false, Err(Failure::Unknown)) => (2, Some(Failure::Unknown)),
        (false, Err(_)) => (1, Some(Failure::Invalid)),
        (false, Ok(_)) => (0, None),
    };
    let data = if access == Access::Write { value } else { 0 };
    let expected = match reason {
        None if access == Access::Write => Outcome::Done(value),
        None => Outcome::Done(answer.unwrap_or(0)),
        Some(reason) if bits & bit != 0 => Outcome::Exit(MsrExit { access, reason, index: msr, data }),
        Some(_) => Outcome::Fault,
    };
    if found != expected || (denied && file.asked > 0) {
        return Counterexample::new(format!("{access} of {}: {found:x?}", oracle::name(msr)))
            .with("expected", format!("{expected:x?}"))
            .with("denied by the filter", denied)
            .with("MSR touched", file.asked > 0)
            .with("mask of KVM_CAP_X86_USER_SPACE_MSR", format!("{bits:#x}"))
            .with("path", format!("{path:?}"))
            .with("filter", format!("{filter:x?}"))
            .into();
    }
    Verdict::Holds
}

fn record(c: &mut dyn Choices, _: Regressions) -> Verdict {
    let access = draw::access(c);
    let reason = [Failure::Invalid, Failure::Unknown, Failure::Filtered][c.choose(Site::State, 3) as usize];
    let (index, data) = (draw::any_msr(c), c.choose(Site::State, u64::MAX));
    let exit = MsrExit { access, reason, index, data };
    let mut bytes = exit.record();
    let mut expected = [0; 24];
    expected[8] = [1, 2, 4][reason as usize / 2];
    (0..4).for_each(|i| expected[12 + i] = (index >> (8 * i)) as u8);
    (0..8).for_each(|i| expected[16 + i] = (data >> (8 * i)) as u8);
    let number = if access == Access::Read { 29 } else { 30 };
    if bytes != expected || exit.exit_reason() != number {
        return Counterexample::new(format!("{exit:x?}: record {bytes:02x?}"))
            .with("expected", format!("{expected:02x?}"))
            .with("exit reason", exit.exit_reason())
            .into();
    }
    let answer = c.choose(Site::State, 1 << 40);
    bytes[0] = [0, 1, 0x80][c.choose(Site::State, 3) as usize];
    bytes[16..].copy_from_slice(&answer.to_le_bytes());
    let expected = match (bytes[0], access) {
        (0, Access::Read) => Resumed::Advanced(Some(answer)),
        (0, Access::Write) => Resumed::Advanced(None),
        _ => Resumed::Fault,
    };
    let found = resume(&exit, &bytes);
    if found != expected {
        return Counterexample::new(format!("after error {}: {found:x?}", bytes[0]))
            .with("expected", format!("{expected:x?}"))
            .into();
    }
    let (bits, defined) = (c.choose(Site::State, 1 << 33), 7);
    if ExitMask::enable(bits).is_ok() != (bits & !defined == 0) {
        return Counterexample::new(format!("mask {bits:#x} of KVM_CAP_X86_USER_SPACE_MSR")).into();
    }
    Verdict::Holds
}
