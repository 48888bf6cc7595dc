//! The kernel's side: descriptors that stand for objects of the model, and the ioctls on them.
//!
//! An object is a memory file, known by its inode, so that duplicates of a descriptor are the same object. The file of a
//! vCPU is the mapping that it shares with its client. Objects whose descriptors are all closed are found when the next
//! VM is made, or by [`release`].

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rootmode_arch::Vendor;
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{Plain, Run, request};
use rootmode_models::kvm::ioctl::{Answer, Instance, system};
use rootmode_models::kvm::vm::{ClientMemory, HostFault, Progress, Vm, VmConfig, host_model};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::fair::{Fair, Held};
use crate::memory::Process;

/// Ticks between two looks at `immediate_exit`.
const SLICE: u64 = 1 << 14;

/// A file by device and inode.
type Inode = (u64, u64);

#[derive(Clone)]
enum Object {
    System,
    Vm(Arc<Fair<Instance>>),
    Vcpu(Arc<Fair<Instance>>, usize, Arc<File>),
    /// The statistics of a vCPU or of the VM, which are written there anew whenever somebody had the VM.
    Statistics(Arc<Fair<Instance>>, Option<usize>, Arc<File>),
    Device(Arc<Fair<Instance>>),
}

#[derive(Default)]
struct Kernel {
    objects: BTreeMap<Inode, Object>,
}

fn kernel() -> MutexGuard<'static, Kernel> {
    static KERNEL: OnceLock<Mutex<Kernel>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(Mutex::default);
    kernel.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Which vendor's processors the host has: `ROOTMODE_VENDOR=amd`, else Intel's.
fn vendor() -> Vendor {
    match std::env::var("ROOTMODE_VENDOR") {
        Ok(name) if name.eq_ignore_ascii_case("amd") => Vendor::Amd,
        _ => Vendor::Intel,
    }
}

fn inode(fd: RawFd) -> Result<Inode, Errno> {
    let metadata = std::fs::metadata(format!("/proc/self/fd/{fd}")).map_err(|_| Errno::Ebadf)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A new file of `bytes` bytes and its inode.
fn file(name: &str, bytes: u64) -> Result<(OwnedFd, Inode), Errno> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC).map_err(|_| Errno::Enomem)?;
    ftruncate(&fd, bytes).map_err(|_| Errno::Enomem)?;
    let metadata =
        File::from(fd.try_clone().map_err(|_| Errno::Enomem)?).metadata().map_err(|_| Errno::Enomem)?;
    Ok((fd, (metadata.dev(), metadata.ino())))
}

impl Kernel {
    /// Forgets objects that no descriptor stands for any more; those of vCPUs have one of our own.
    fn sweep(&mut self) {
        let mut open: BTreeMap<Inode, usize> = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
        for entry in entries.flatten() {
            if let Ok(metadata) = std::fs::metadata(entry.path()) {
                *open.entry((metadata.dev(), metadata.ino())).or_default() += 1;
            }
        }
        self.objects.retain(|inode, object| {
            let own = usize::from(matches!(object, Object::Vcpu(..) | Object::Statistics(..)));
            matches!(object, Object::System) || open.get(inode).copied().unwrap_or(0) > own
        });
    }

    fn find(&self, fd: RawFd) -> Result<Object, Errno> {
        let inode = inode(fd)?;
        if let Some(object) = self.objects.get(&inode) {
            return Ok(object.clone());
        }
        let device = std::fs::metadata("/dev/kvm").map(|metadata| (metadata.dev(), metadata.ino()));
        if device.is_ok_and(|device| device == inode) { Ok(Object::System) } else { Err(Errno::Enotty) }
    }
}

/// Opens what `/dev/kvm` would be.
///
/// # Errors
/// If there is no room for a descriptor.
pub fn open(close_on_exec: bool) -> Result<OwnedFd, Errno> {
    let (fd, inode) = file("kvm", 0)?;
    if !close_on_exec {
        fcntl_setfd(&fd, FdFlags::empty()).map_err(|_| Errno::Ebadf)?;
    }
    kernel().objects.insert(inode, Object::System);
    Ok(fd)
}

/// What an ioctl answers.
#[derive(Debug)]
pub enum Reply {
    /// Its value.
    Value(i32),
    /// A descriptor of a new object.
    Descriptor(OwnedFd),
}

/// Forgets objects whose descriptors are all closed.
pub fn release() {
    kernel().sweep();
}

fn create_vm() -> Result<Reply, Errno> {
    let config = VmConfig {
        host: Arc::new(host_model(vendor())),
        client: Some(Box::new(Process)),
        ..VmConfig::plain(vendor())
    };
    let vm = Vm::new(config).map_err(|_| Errno::Enomem)?;
    let (fd, inode) = file("kvm-vm", 0)?;
    let mut kernel = kernel();
    kernel.sweep();
    kernel.objects.insert(inode, Object::Vm(Arc::new(Fair::new(Instance::new(vm)))));
    Ok(Reply::Descriptor(fd))
}

fn create_vcpu(vm: Arc<Fair<Instance>>, number: usize) -> Result<Reply, Errno> {
    let (fd, inode) = file("kvm-vcpu", vm.lock().mapping_size())?;
    let own = File::from(fd.try_clone().map_err(|_| Errno::Enomem)?);
    kernel().objects.insert(inode, Object::Vcpu(vm, number, Arc::new(own)));
    Ok(Reply::Descriptor(fd))
}

/// `KVM_RESET_DIRTY_RINGS`: all of a VM's.
fn reset_rings(vm: &Arc<Fair<Instance>>) -> Result<Reply, Errno> {
    let of_vm = |object: &Object| match object {
        Object::Vcpu(of, vcpu, file) if Arc::ptr_eq(of, vm) => Some((*vcpu, file.clone())),
        _ => None,
    };
    let rings: Vec<_> = kernel().objects.values().filter_map(of_vm).collect();
    let mut count = 0;
    for (vcpu, file) in rings {
        count += lock(vm).reset_ring(vcpu, 0, &mut Page(&file)).map_err(|failure| failure.errno())?;
    }
    Ok(Reply::Value(count as i32))
}

/// The client's descriptor is one to read by; ours is not.
fn create_statistics(vm: Arc<Fair<Instance>>, vcpu: Option<usize>) -> Result<Reply, Errno> {
    let (fd, inode) = file("kvm-stats", 0)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let theirs = File::open(path).map_err(|_| Errno::Enomem)?;
    let statistics = Object::Statistics(vm, vcpu, Arc::new(fd.into()));
    show_statistics(&statistics)?;
    kernel().objects.insert(inode, statistics);
    Ok(Reply::Descriptor(theirs.into()))
}

fn show_statistics(statistics: &Object) -> Result<(), Errno> {
    let Object::Statistics(vm, vcpu, file) = statistics else { return Ok(()) };
    let bytes = vm.lock().vm.statistics(*vcpu, std::process::id()).map_err(|failure| failure.errno())?;
    file.write_all_at(&bytes, 0).map_err(|_| Errno::Efault)
}

/// Shows every statistic of a VM anew, if somebody looks at any.
fn refresh(vm: &Arc<Fair<Instance>>) -> Result<(), Errno> {
    let looks = |object: &&Object| matches!(object, Object::Statistics(of, ..) if Arc::ptr_eq(of, vm));
    let looked: Vec<Object> = kernel().objects.values().filter(looks).cloned().collect();
    looked.iter().try_for_each(show_statistics)
}

/// The client finds the descriptor in its structure, not in the value.
fn create_device(vm: Arc<Fair<Instance>>, structure: u64) -> Result<Reply, Errno> {
    let (fd, inode) = file("kvm-vfio", 0)?;
    let number = u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::Ebadf)?;
    Instance::show_device(number, structure, &mut Process)?;
    kernel().objects.insert(inode, Object::Device(vm));
    let _ = fd.into_raw_fd();
    Ok(Reply::Value(0))
}

/// An ioctl as the system call has it: its value; new descriptors are the caller's to close.
///
/// # Errors
/// Linux's.
pub fn ioctl(fd: RawFd, number: u32, argument: u64) -> Result<i32, Errno> {
    Ok(match call(fd, number, argument)? {
        Reply::Value(value) => value,
        Reply::Descriptor(fd) => fd.into_raw_fd(),
    })
}

/// An ioctl.
///
/// # Errors
/// Linux's.
pub fn call(fd: RawFd, number: u32, argument: u64) -> Result<Reply, Errno> {
    let object = kernel().find(fd)?;
    match object {
        Object::System => match system(&host_model(vendor()), number, argument, &mut Process)? {
            Answer::NewVm => create_vm(),
            answer => value(answer),
        },
        Object::Vm(vm) => {
            let answer = lock(&vm).vm_ioctl(number, argument, &mut Process)?;
            match answer {
                Answer::NewVcpu(vcpu) => create_vcpu(vm, vcpu),
                Answer::NewStatistics => create_statistics(vm, None),
                Answer::NewDevice { structure } => create_device(vm, structure),
                Answer::ResetRings => reset_rings(&vm),
                answer => value(answer),
            }
        }
        Object::Vcpu(vm, vcpu, page) if number == request::RUN => {
            if argument == 0 {
                let result = run(&vm, vcpu, &page);
                refresh(&vm)?;
                result
            } else {
                Err(Errno::Einval)
            }
        }
        Object::Vcpu(vm, vcpu, _) => {
            let answer = lock(&vm).vcpu_ioctl(vcpu, number, argument, &mut Process)?;
            if answer == Answer::NewStatistics { create_statistics(vm, Some(vcpu)) } else { value(answer) }
        }
        Object::Statistics(..) => Err(Errno::Enotty),
        Object::Device(vm) => value(lock(&vm).device_ioctl(number, argument, &mut Process)?),
    }
}

fn value(answer: Answer) -> Result<Reply, Errno> {
    match answer {
        Answer::Value(value) => Ok(Reply::Value(value)),
        Answer::NewVm
        | Answer::NewVcpu(_)
        | Answer::NewStatistics
        | Answer::NewDevice { .. }
        | Answer::ResetRings => Err(Errno::Einval),
    }
}

/// The VM, with what the client has counted up since somebody had it last.
fn lock(vm: &Fair<Instance>) -> Held<'_, Instance> {
    let mut instance = vm.lock();
    instance.vm.poll_events();
    instance
}

/// How long a vCPU that sleeps is left alone, before somebody looks whether the client wants anything.
const NAP: Duration = Duration::from_micros(50);

/// `KVM_RUN`. Between slices others get the VM, and `immediate_exit` is looked at.
fn run(vm: &Fair<Instance>, vcpu: usize, file: &File) -> Result<Reply, Errno> {
    let mut page = Page(file);
    {
        let mut instance = lock(vm);
        instance.take_page(vcpu, 0, &mut page).map_err(|failure| failure.errno())?;
        instance.vm.start(vcpu).map_err(|failure| failure.errno())?;
    }
    loop {
        let idle;
        {
            // It looks at the event counters itself.
            let mut instance = vm.lock();
            let progress = instance.vm.advance(vcpu, SLICE).map_err(|failure| failure.errno())?;
            idle = progress == Progress::Idle;
            if matches!(progress, Progress::Exit | Progress::Failed(_)) {
                instance.show_page(vcpu, 0, &mut page).map_err(|failure| failure.errno())?;
            }
            match progress {
                Progress::Exit => return Ok(Reply::Value(0)),
                Progress::Failed(failure) => return Err(failure.errno()),
                Progress::Budget | Progress::Idle if page.immediate_exit() => {
                    instance.vm.kick(vcpu).map_err(|failure| failure.errno())?;
                }
                Progress::Budget | Progress::Idle => {}
            }
        }
        if idle {
            std::thread::sleep(NAP);
        } else {
            std::thread::yield_now();
        }
    }
}

/// The mapping of a vCPU, by offset.
struct Page<'a>(&'a File);

impl Page<'_> {
    fn immediate_exit(&mut self) -> bool {
        let mut bytes = [0; 2];
        self.read(0, &mut bytes).is_ok() && Run::from_bytes(&bytes).immediate_exit != 0
    }
}

impl ClientMemory for Page<'_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault> {
        self.0.read_exact_at(bytes, address).map_err(|_| HostFault { address })
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault> {
        self.0.write_all_at(bytes, address).map_err(|_| HostFault { address })
    }
}
