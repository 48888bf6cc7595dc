//! Four threads in `KVM_RUN`, and one that kicks them, interrupts their guests and changes slots meanwhile.

use std::fmt;
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rootmode_arch::choices::Seeded;
use rootmode_arch::{Choices, Site};
use rootmode_kvm_process::{ioctl, open};
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{
    DirtyLog, IrqLevel, MpState, Msi, Plain, Regs, Sregs, UserspaceMemoryRegion, request as r,
};

/// Virtual processors.
pub(super) const VCPUS: usize = 4;
/// Bytes of the first slot, at address 0, and of the second one, which comes and goes.
pub(super) const RAM: u64 = 0x1_0000;
pub(super) const SECOND: u64 = 0x1000;
/// Where code, the handler of NMIs and the counters are.
pub(super) const CODE: u64 = 0x1000;
pub(super) const HANDLER: u64 = 0x1800;
pub(super) const COUNTERS: u64 = 0x2000;
/// How long the threads may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts up a word at SI; reads the second slot by ES; every 256 rounds OUT; and so on.
pub(super) const BUSY: [u8; 15] =
    [0xff, 0x04, 0x26, 0xa0, 0, 0, 0x41, 0x84, 0xc9, 0x75, 0xf5, 0xe6, 0x10, 0xeb, 0xf1];
/// HLT, again and again: NMIs count up a word at SI.
pub(super) const SLEEPY: [u8; 3] = [0xf4, 0xeb, 0xfd];
pub(super) const COUNT_NMI: [u8; 3] = [0xff, 0x04, 0xcf];

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    exits: u64,
    kicks: u64,
    interrupts: u64,
    changes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exits, kicks, interrupts, changes } = self;
        write!(f, "{exits} exits, {kicks} kicks seen, {interrupts} interrupts, {changes} slot changes")
    }
}

/// Guest memory: of this process, and of whoever the kernel writes for.
struct Pages(Vec<AtomicU64>);

impl Pages {
    fn new(bytes: u64) -> Self {
        Self((0..(bytes + 4096) / 8).map(|_| AtomicU64::new(0)).collect())
    }

    /// The first page boundary.
    fn start(&self) -> (usize, u64) {
        let at = self.0.as_ptr().expose_provenance() as u64;
        let skipped = at.next_multiple_of(4096) - at;
        (skipped as usize / 8, at + skipped)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        for (n, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0[self.start().0 + at as usize / 8 + n].store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn word(&self, at: u64) -> u64 {
        self.0[self.start().0 + at as usize / 8].load(Ordering::Relaxed)
    }
}

/// A call whose argument is a structure of the interface.
fn put(fd: RawFd, number: u32, value: &impl Plain) -> Result<i32, Errno> {
    let bytes = value.to_bytes();
    ioctl(fd, number, bytes.as_ptr().expose_provenance() as u64)
}

/// A call that fills one.
fn get<T: Plain>(fd: RawFd, number: u32) -> Result<T, Errno> {
    let mut bytes = vec![0; T::SIZE];
    ioctl(fd, number, bytes.as_mut_ptr().expose_provenance() as u64)?;
    Ok(T::from_bytes(&bytes))
}

/// A vCPU's thread, and its mapping.
struct Runner {
    mapping: Arc<File>,
    thread: JoinHandle<Result<(u64, u64), Errno>>,
}

/// Asks for an exit as soon as possible, or no longer.
fn immediate_exit(mapping: &File, on: bool) {
    // The mapping is a file that exists as long as somebody has it.
    let _ = mapping.write_at(&[on.into()], 1);
}

fn mapping(fd: RawFd) -> Result<File, String> {
    let path = format!("/proc/self/fd/{fd}");
    File::options().read(true).write(true).open(&path).map_err(|e| format!("cannot open {path}: {e}"))
}

/// Runs a vCPU until `stop`: exits and kicks.
fn run_vcpu(fd: RawFd, mapping: &File, stop: &AtomicBool) -> Result<(u64, u64), Errno> {
    let (mut exits, mut kicks) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match ioctl(fd, r::RUN, 0) {
            Ok(_) => exits += 1,
            Err(Errno::Eintr) => {
                immediate_exit(mapping, false);
                kicks += 1;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok((exits, kicks))
}

/// The VM: its descriptor, those of its vCPUs.
fn prepare(ram: &Pages) -> Result<(RawFd, Vec<RawFd>), Errno> {
    let kvm = open(true)?;
    let vm = ioctl(std::os::fd::AsRawFd::as_raw_fd(&kvm), r::CREATE_VM, 0)?;
    ioctl(vm, r::CREATE_IRQCHIP, 0)?;
    ram.put(CODE, &BUSY);
    ram.put(CODE + 0x100, &SLEEPY);
    ram.put(HANDLER, &COUNT_NMI);
    ram.put(8, &HANDLER.to_le_bytes());
    let region = UserspaceMemoryRegion {
        flags: 1,
        memory_size: RAM,
        userspace_addr: ram.start().1,
        ..Default::default()
    };
    put(vm, r::SET_USER_MEMORY_REGION, &region)?;
    let mut vcpus = Vec::new();
    for number in 0..VCPUS as u64 {
        let vcpu = ioctl(vm, r::CREATE_VCPU, number)?;
        let mut sregs: Sregs = get(vcpu, r::GET_SREGS)?;
        (sregs.cs.base, sregs.cs.selector, sregs.es.base) = (0, 0, RAM);
        put(vcpu, r::SET_SREGS, &sregs)?;
        // The later half sleeps.
        let rip = if number < VCPUS as u64 / 2 { CODE } else { CODE + 0x100 };
        let (rsp, rsi) = (0x8000 + 0x1000 * number, COUNTERS + 64 * number);
        put(vcpu, r::SET_REGS, &Regs { rip, rsp, rsi, rflags: 2, ..Default::default() })?;
        put(vcpu, r::SET_MP_STATE, &MpState { mp_state: 0 })?;
        vcpus.push(vcpu);
    }
    Ok((vm, vcpus))
}

/// Lets the threads run so long.
///
/// # Errors
/// A call that fails although nothing is wrong, a vCPU that does not advance, a deadlock.
pub(super) fn run(duration: Duration, seed: u64) -> Result<Report, String> {
    let (ram, second) = (Pages::new(RAM), Pages::new(SECOND));
    let called = |errno: Errno| format!("a call failed: {errno:?}");
    let (vm, vcpus) = prepare(&ram).map_err(called)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut runners = Vec::new();
    for fd in &vcpus {
        let mapping = Arc::new(mapping(*fd)?);
        let (fd, own, stop) = (*fd, mapping.clone(), stop.clone());
        runners.push(Runner { mapping, thread: std::thread::spawn(move || run_vcpu(fd, &own, &stop)) });
    }
    let disturbed = disturb(vm, &runners, &ram, &second, (duration, seed)).map_err(called);
    // Everybody comes home, however often he has to be told.
    stop.store(true, Ordering::Relaxed);
    let since = Instant::now();
    while runners.iter().any(|runner| !runner.thread.is_finished()) {
        for runner in &runners {
            immediate_exit(&runner.mapping, true);
        }
        if since.elapsed() > PATIENCE {
            return Err("a thread does not come back from KVM_RUN".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut report = disturbed?;
    for (number, runner) in runners.into_iter().enumerate() {
        let (exits, kicks) = match runner.thread.join() {
            Ok(result) => result.map_err(|errno| format!("KVM_RUN of vCPU {number}: {errno:?}"))?,
            Err(_) => return Err(format!("the thread of vCPU {number} panicked")),
        };
        (report.exits, report.kicks) = (report.exits + exits, report.kicks + kicks);
        if ram.word(COUNTERS + 64 * number as u64) == 0 {
            return Err(format!("the guest of vCPU {number} did not advance: {report}"));
        }
    }
    for fd in vcpus.into_iter().chain([vm]) {
        let _ = nix::unistd::close(fd);
    }
    rootmode_kvm_process::release();
    Ok(report)
}

/// The fifth thread's work.
fn disturb(
    vm: RawFd,
    runners: &[Runner],
    ram: &Pages,
    second: &Pages,
    (duration, seed): (Duration, u64),
) -> Result<Report, Errno> {
    let mut choices = Seeded::new(seed);
    let mut pick = |n: u64| choices.choose(Site::Program, n);
    let mut report = Report::default();
    let mut there = false;
    let mut log = vec![0_u64; 1];
    let since = Instant::now();
    // So long, and until everybody has got somewhere, however busy the host is.
    let advanced = || (0..VCPUS as u64).all(|number| ram.word(COUNTERS + 64 * number) != 0);
    while since.elapsed() < duration || !advanced() && since.elapsed() < duration + PATIENCE {
        match pick(6) {
            0 => immediate_exit(&runners[pick(VCPUS as u64) as usize].mapping, true),
            1 => {
                there = !there;
                let memory_size = if there { SECOND } else { 0 };
                let userspace_addr = second.start().1;
                let region = UserspaceMemoryRegion {
                    slot: 1,
                    flags: 0,
                    guest_phys_addr: RAM,
                    memory_size,
                    userspace_addr,
                };
                put(vm, r::SET_USER_MEMORY_REGION, &region)?;
                report.changes += 1;
            }
            2 => {
                let dirty_bitmap = log.as_mut_ptr().expose_provenance() as u64;
                put(vm, r::GET_DIRTY_LOG, &DirtyLog { slot: 0, padding1: 0, dirty_bitmap })?;
            }
            3 => {
                let address_lo = 0xfee0_0000 | (pick(VCPUS as u64) as u32) << 12;
                put(vm, r::SIGNAL_MSI, &Msi { address_lo, data: 0x400, ..Default::default() })?;
                report.interrupts += 1;
            }
            4 => drop(put(vm, r::IRQ_LINE, &IrqLevel { irq: pick(24) as u32, level: pick(2) as u32 })?),
            // Memory may change until somebody looks, or not.
            _ => {
                let at = COUNTERS + 64 * pick(VCPUS as u64);
                let before = ram.word(at);
                (0..4).take_while(|_| ram.word(at) == before).for_each(|_| std::thread::yield_now());
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_in_run_are_disturbed_and_all_come_back() {
        let report = run(Duration::from_secs(1), 3).unwrap_or_else(|error| panic!("{error}"));
        assert!(report.exits > 0 && report.kicks > 0 && report.changes > 0, "{report}");
    }
}
