//! Batches spread over threads, with results that do not depend on their number: each batch is computed by one thread
//! with one LibTorch thread, and what is summed is summed in batch order.

use crate::{Device, Error, Network, Result};
use ndarray::Array4;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use zipit::Graph;
use zipit::images::ImageBatches;
use zipit::watch::Watch;

/// How often a thread that waits for its turn looks whether another one failed.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Bytes of a batch's largest value on a GPU.
const GPU_VALUE: usize = 256 << 20;

/// How many threads work on `n_batches` batches: as many as the current rayon pool has, one on a GPU.
#[must_use]
pub fn n_workers(device: Device, n_batches: usize) -> usize {
    match device {
        Device::Cpu => rayon::current_num_threads().min(n_batches).max(1),
        Device::Cuda(_) => 1,
    }
}

/// Images per batch at which [`accumulate`](crate::accumulate), [`batch_norm`](crate::batch_norm) and
/// [`evaluate`](crate::evaluate) run fast: on the CPU [`zipit::memory::batch_size`]; a GPU wants to be filled. It depends
/// on the graph and the kind of device alone, never on the machine, so that results do not either.
///
/// # Errors
/// A malformed graph.
pub fn batch_size(graph: &Graph, device: Device) -> Result<usize> {
    Ok(match device {
        Device::Cpu => zipit::memory::batch_size(graph)?,
        Device::Cuda(_) => zipit::memory::fitting(graph, GPU_VALUE, 16, 512)?,
    })
}

/// Reads a batch; an unreadable or empty one is named by its index.
pub(crate) fn read(batches: &dyn ImageBatches, batch: usize) -> Result<Array4<f32>> {
    let images = batches.batch(batch).map_err(|source| Error::Images { batch, source })?;
    if images.is_empty() {
        return Err(Error::Images { batch, source: "it holds no images".into() });
    }
    Ok(images)
}

/// Says which of the threads failed, so that none waits for it.
#[derive(Debug, Default)]
pub(crate) struct Failure(AtomicBool);

/// Something that the first batch finds out and the others need; they wait for it.
#[derive(Debug)]
pub(crate) struct FromFirst<T> {
    value: Mutex<Option<Arc<T>>>,
    there: Condvar,
}

impl<T> FromFirst<T> {
    pub fn new() -> Self {
        Self { value: Mutex::new(None), there: Condvar::new() }
    }

    /// What the first batch found, by `find` if this is it.
    ///
    /// # Errors
    /// What `find` says, or [`zipit::Error::Interrupted`] once another thread has failed.
    pub fn get(&self, is_first: bool, failure: &Failure, find: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let lock = || self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if is_first {
            let found = Arc::new(find()?);
            *lock() = Some(Arc::clone(&found));
            self.there.notify_all();
            return Ok(found);
        }
        let mut value = lock();
        loop {
            if let Some(found) = &*value {
                return Ok(Arc::clone(found));
            }
            if failure.0.load(Ordering::Acquire) {
                return Err(zipit::Error::Interrupted.into());
            }
            value = self.there.wait_timeout(value, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Something that batches add their part to, one after the other.
#[derive(Debug)]
pub(crate) struct InOrder<T, P> {
    state: Mutex<Sum<T, P>>,
    turn: Condvar,
}

#[derive(Debug)]
struct Sum<T, P> {
    /// The batch whose part is next.
    next: usize,
    value: T,
    /// Parts that came too early.
    early: BTreeMap<usize, P>,
}

/// Parts that may wait for their turn: a thread that is ahead goes on with its work instead of waiting, until memory
/// would pile up.
const MAX_EARLY: usize = 2;

impl<T, P> InOrder<T, P> {
    /// Batch `first` is the first to add to `value`.
    pub fn new(first: usize, value: T) -> Self {
        Self { state: Mutex::new(Sum { next: first, value, early: BTreeMap::new() }), turn: Condvar::new() }
    }

    /// Adds the batch's part by `add` when its turn comes, which may be in another thread's call. Does nothing once
    /// another thread has failed.
    ///
    /// # Errors
    /// What `add` says; the thread that hands in has to tell the others.
    pub fn hand_in(
        &self,
        batch: usize,
        part: P,
        failure: &Failure,
        add: impl Fn(&mut T, P) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next != batch && state.early.len() >= MAX_EARLY {
            if failure.0.load(Ordering::Acquire) {
                return Ok(());
            }
            state = self.turn.wait_timeout(state, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.early.insert(batch, part);
        let Sum { next, value, early } = &mut *state;
        while let Some(part) = early.remove(next) {
            add(value, part)?;
            *next += 1;
        }
        self.turn.notify_all();
        Ok(())
    }

    /// The value after the last change.
    pub fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).value
    }
}

/// All batches, as [`each_batch`] does them.
///
/// # Errors
/// What `work` says, or [`zipit::Error::Interrupted`] where `watch` interrupted before the last of them.
pub(crate) fn all_batches<W: Send>(
    workers: Vec<W>,
    n_batches: usize,
    watch: &dyn Watch,
    failure: &Failure,
    work: impl Fn(&mut W, usize) -> Result<u64> + Sync,
) -> Result<()> {
    let done = each_batch(workers, 0..n_batches, watch, failure, work)?;
    if done < n_batches { Err(zipit::Error::Interrupted.into()) } else { Ok(()) }
}

/// Runs `work` on every batch of `range`, one thread per element of `workers`, and returns how many batches were done:
/// all of them, or those from the start of the range up to an interruption. `work` returns its number of images.
///
/// Threads are our own: a rayon task that waits for another batch could be holding the very thread that batch needs.
pub(crate) fn each_batch<S: Send>(
    workers: Vec<S>,
    range: Range<usize>,
    watch: &dyn Watch,
    failure: &Failure,
    work: impl Fn(&mut S, usize) -> Result<u64> + Sync,
) -> Result<usize> {
    let next = AtomicUsize::new(range.start);
    let first_error: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let run = |mut worker: S| {
        tch::set_num_threads(1);
        let _no_grad = tch::no_grad_guard();
        let _panic = FailsOnPanic(failure);
        while !failure.0.load(Ordering::Acquire) && !watch.interrupted() {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= range.end {
                return;
            }
            match work(&mut worker, batch) {
                Ok(n_images) => watch.advance(n_images),
                Err(error) => {
                    failure.0.store(true, Ordering::Release);
                    let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(other, _)| batch < *other) {
                        *first = Some((batch, error));
                    }
                }
            }
        }
    };
    let n_threads = tch::get_num_threads();
    let panicked = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| run(worker))).collect();
        // All are joined: what is left to the scope panics.
        threads.into_iter().fold(None, |first, thread| first.or(thread.join().err()))
    });
    // LibTorch keeps the last setting for threads to come.
    tch::set_num_threads(n_threads);
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None if let Some(payload) = panicked => Err(Error::Fault(told(&*payload))),
        None => Ok(next.into_inner().min(range.end) - range.start),
    }
}

/// What a thread panicked with.
fn told(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a thread panicked").to_owned()
}

/// Wakes the others when a thread panics.
struct FailsOnPanic<'a>(&'a Failure);

impl Drop for FailsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.store(true, Ordering::Release);
        }
    }
}

/// Copies of `network`, one per worker.
pub(crate) fn replicas(network: &Network, n: usize) -> Vec<Network> {
    (0..n).map(|_| network.replicate()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::graph::{ArchSpec, arch::Arch};

    #[test]
    fn batches_are_small_on_the_cpu() {
        let size = |arch, side, device| {
            batch_size(&ArchSpec::new(arch, 1.0, 3, [side, side], 10).build().unwrap(), device).unwrap()
        };
        assert_eq!(size(Arch::ResNet20, 28, Device::Cpu), 32);
        assert_eq!(size(Arch::ResNet20, 8, Device::Cpu), 64);
        assert_eq!(size(Arch::ResNet50, 224, Device::Cpu), 8);
        assert_eq!(size(Arch::ResNet50, 224, Device::Cuda(0)), 64);
    }
}
