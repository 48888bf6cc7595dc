//! A worker that takes pages out of L2's shadow tables while others run, as page reclaim does.

use std::sync::{Arc, Mutex};

use super::executor::{Lock, Tasks};
use super::machine::Machine;
use super::point::Point;
use super::vmx::lock;

/// Pages that L2 keeps at least: what one instruction needs with its tables, descriptors and stacks.
const WORKING_SET: usize = 12;

/// Unlinks the oldest leaf of the shadow, again and again. Between unlinking and the flush, which the vCPU does before
/// its next entry, others may run: the translation may still be cached then.
pub(super) async fn zap_worker(machine: Arc<Mutex<Machine>>, tasks: Tasks, mmu: Lock) {
    loop {
        tasks.point(Point::WorkerRound).await;
        mmu.acquire().await;
        unlink_oldest(&machine);
        tasks.point(Point::UnlinkToFlush).await;
        lock(&machine).flush_requested = true;
        mmu.release().await;
    }
}

fn unlink_oldest(machine: &Arc<Mutex<Machine>>) {
    let mut m = lock(machine);
    let Machine { board, shadows, .. } = &mut *m;
    if let Some(shadow) = shadows.iter_mut().flatten().next()
        && shadow.len() > WORKING_SET
        && let Some(page) = shadow.oldest()
    {
        shadow.unmap(&mut board.memory, page);
    }
}
