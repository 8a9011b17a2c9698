//! The live frontier: for every batch, the values that the forward passes of all networks still need.

use crate::convert::{channels_last, to_array, to_tensor};
use crate::forward::Paused;
use crate::{Device, Error, Result};
use ndarray::{ArrayD, IxDyn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use zipit::scratch::Scratch;

/// One batch's forward passes, all standing still.
pub(super) struct Lane {
    /// The models', then the merged network's.
    pub runs: Vec<Paused>,
}

/// A run that was put away: its next node, B, and the shapes of its values, by value number.
type Packed = (usize, i64, Vec<Option<Vec<i64>>>);

enum Slot {
    /// Not begun, or being worked on.
    Empty,
    Memory(Lane),
    /// The values of each run lie in the scratch.
    Scratch(Vec<Packed>),
}

/// The lanes of all batches.
pub(super) struct Lanes<'a> {
    slots: Vec<Mutex<Slot>>,
    in_memory: AtomicUsize,
    limit: Option<(usize, &'a dyn Scratch)>,
    device: Device,
}

impl<'a> Lanes<'a> {
    /// None begun; what exceeds `limit` bytes goes into the scratch.
    pub fn new(n_batches: usize, limit: Option<(usize, &'a dyn Scratch)>, device: Device) -> Self {
        let slots = (0..n_batches).map(|_| Mutex::new(Slot::Empty)).collect();
        Self { slots, in_memory: AtomicUsize::new(0), limit, device }
    }

    /// Bytes of the values in memory.
    pub fn in_memory(&self) -> usize {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Takes a batch's lane out; `None` where it has not begun.
    pub fn take(&self, batch: usize) -> Result<Option<Lane>> {
        let mut slot = self.slots[batch].lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Empty => Ok(None),
            Slot::Memory(lane) => {
                self.in_memory.fetch_sub(n_bytes(&lane), Ordering::Relaxed);
                Ok(Some(lane))
            }
            Slot::Scratch(shapes) => self.unpack(batch, shapes).map(Some),
        }
    }

    /// Puts a batch's lane back.
    pub fn put(&self, batch: usize, lane: Lane) -> Result<()> {
        let n = n_bytes(&lane);
        let before = self.in_memory.fetch_add(n, Ordering::Relaxed);
        let kept = match self.limit {
            Some((limit, scratch)) if before + n > limit => {
                self.in_memory.fetch_sub(n, Ordering::Relaxed);
                Slot::Scratch(pack(batch, &lane, scratch)?)
            }
            _ => Slot::Memory(lane),
        };
        *self.slots[batch].lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(())
    }

    fn unpack(&self, batch: usize, shapes: Vec<Packed>) -> Result<Lane> {
        let (_, scratch) = self.limit.expect("only a limit puts lanes into the scratch");
        let numel = |shape: &Vec<i64>| shape.iter().product::<i64>() as usize;
        let total = shapes.iter().flat_map(|(.., values)| values.iter().flatten()).map(numel).sum();
        let mut all = vec![0.0_f32; total];
        scratch.read(batch, &mut all).map_err(|source| Error::Scratch { source })?;
        let mut rest = all.as_slice();
        let mut restore = |shape: Vec<i64>| {
            let (values, others) = rest.split_at(numel(&shape));
            rest = others;
            let dims: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let array = ArrayD::from_shape_vec(IxDyn(&dims), values.to_vec());
            let tensor = to_tensor(&array.map_err(|e| Error::LibTorch(e.to_string()))?, self.device)?;
            if self.device == Device::Cpu { channels_last(&tensor) } else { Ok(tensor) }
        };
        let runs = shapes
            .into_iter()
            .map(|(next, n_images, values)| {
                let values = values.into_iter().map(|shape| shape.map(&mut restore).transpose());
                Ok(Paused { values: values.collect::<Result<_>>()?, next, n_images })
            })
            .collect::<Result<_>>()?;
        Ok(Lane { runs })
    }
}

/// Writes a lane's values into the scratch and says what they were.
fn pack(batch: usize, lane: &Lane, scratch: &dyn Scratch) -> Result<Vec<Packed>> {
    let mut all = Vec::with_capacity(n_bytes(lane) / size_of::<f32>());
    let mut shapes = Vec::with_capacity(lane.runs.len());
    for run in &lane.runs {
        let mut of_run = Vec::with_capacity(run.values.len());
        for value in &run.values {
            of_run.push(value.as_ref().map(tch::Tensor::size));
            if let Some(value) = value {
                all.extend(to_array(value)?);
            }
        }
        shapes.push((run.next, run.n_images, of_run));
    }
    scratch.write(batch, &all).map_err(|source| Error::Scratch { source })?;
    Ok(shapes)
}

fn n_bytes(lane: &Lane) -> usize {
    let values = lane.runs.iter().flat_map(|run| run.values.iter().flatten());
    values.map(|value| value.numel() * size_of::<f32>()).sum()
}
