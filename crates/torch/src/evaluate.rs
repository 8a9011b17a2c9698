//! Logits of every image.

use crate::convert::to_array;
use crate::parallel::{Failure, each_batch, n_workers, read, replicas};
use crate::{Error, Network, Result};
use ndarray::{Array2, ArrayView2, Axis, Ix2};
use std::sync::{Mutex, PoisonError};
use zipit::images::ImageBatches;
use zipit::watch::Watch;

/// Logits `[n, classes]` per output, in the order of the images. Batches are spread over as many threads as the current
/// rayon pool has; their number does not change the result.
///
/// [`Network::folded`] runs fastest.
///
/// # Errors
/// Images that cannot be read or do not fit, logits that are not finite, or [`zipit::Error::Interrupted`].
pub fn logits(network: &Network, batches: &dyn ImageBatches, watch: &dyn Watch) -> Result<Vec<Array2<f32>>> {
    let n_batches = batches.n_batches();
    let workers = replicas(network, n_workers(network.device(), n_batches));
    let found: Mutex<Vec<Vec<Array2<f32>>>> = Mutex::new(vec![Vec::new(); n_batches]);
    let done = each_batch(workers, 0..n_batches, watch, &Failure::default(), |network, batch| {
        let images = read(batches, batch)?;
        let outputs = network.outputs(network.input(&images)?)?;
        let outputs: Vec<Array2<f32>> = outputs
            .iter()
            .map(|output| {
                let logits = to_array(output)?.into_dimensionality::<Ix2>();
                logits.map_err(|e| Error::LibTorch(e.to_string()))
            })
            .collect::<Result<_>>()?;
        for (name, output) in network.graph().outputs.iter().zip(&outputs) {
            if output.iter().any(|x| !x.is_finite()) {
                return Err(Error::NotFinite(format!(
                    "batch {batch}: output `{name}` is NaN or infinity; check the model's weights and its BatchNorm \
                     statistics"
                )));
            }
        }
        found.lock().unwrap_or_else(PoisonError::into_inner)[batch] = outputs;
        Ok(images.shape()[0] as u64)
    })?;
    if done < n_batches {
        return Err(zipit::Error::Interrupted.into());
    }
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let shapes = network.graph().shapes()?;
    let outputs = network.graph().outputs.iter().enumerate();
    outputs
        .map(|(i, name)| {
            let parts: Vec<ArrayView2<'_, f32>> = found.iter().map(|outputs| outputs[i].view()).collect();
            if parts.is_empty() {
                return Ok(Array2::zeros((0, shapes[name.as_str()].iter().product())));
            }
            ndarray::concatenate(Axis(0), &parts).map_err(|e| Error::LibTorch(e.to_string()))
        })
        .collect()
}
