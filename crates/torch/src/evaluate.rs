//! What a network says of every image.

use crate::convert::to_array;
use crate::parallel::{Failure, all_batches, n_workers, read, replicas};
use crate::{Error, Network, Result};
use ndarray::{Array2, ArrayD, ArrayViewD, Axis, Ix2, IxDyn};
use std::sync::{Mutex, PoisonError};
use zipit::images::ImageBatches;
use zipit::watch::Watch;

/// Logits `[n, classes]` per output of a network whose outputs are vectors, in the order of the images.
///
/// # Errors
/// As [`outputs`], and an output that is no vector.
pub fn logits(network: &Network, batches: &dyn ImageBatches, watch: &dyn Watch) -> Result<Vec<Array2<f32>>> {
    let no_vector =
        |array: &ArrayD<f32>| zipit::Error::Request(format!("an output is {:?}, no vector", &array.shape()[1..]));
    let vector = |array: ArrayD<f32>| {
        let error = no_vector(&array);
        array.into_dimensionality::<Ix2>().map_err(|_| Error::from(error))
    };
    outputs(network, batches, watch)?.into_iter().map(vector).collect()
}

/// Every output, `[n, …]`, in the order of the images. Batches are spread over as many threads as the current rayon pool
/// has; their number does not change the result.
///
/// [`Network::folded`] runs fastest.
///
/// # Errors
/// Images that cannot be read or do not fit, numbers that are not finite, or [`zipit::Error::Interrupted`].
pub fn outputs(network: &Network, batches: &dyn ImageBatches, watch: &dyn Watch) -> Result<Vec<ArrayD<f32>>> {
    let n_batches = batches.n_batches();
    let workers = replicas(network, n_workers(network.device(), n_batches));
    let found: Mutex<Vec<Vec<ArrayD<f32>>>> = Mutex::new(vec![Vec::new(); n_batches]);
    all_batches(workers, n_batches, watch, &Failure::default(), |network, batch| {
        let images = read(batches, batch)?;
        let outputs = network.outputs(network.input(&images)?)?;
        let outputs = outputs.iter().map(to_array).collect::<Result<Vec<_>>>()?;
        for (name, output) in network.graph().outputs.iter().zip(&outputs) {
            if output.shape().first() != images.shape().first() {
                let message = format!("output `{name}` is {:?}, which is not one for each image", output.shape());
                return Err(zipit::Error::Graph(message).into());
            }
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
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let shapes = network.graph().output_shapes()?.into_iter().enumerate();
    shapes
        .map(|(i, shape)| {
            let parts: Vec<ArrayViewD<'_, f32>> = found.iter().map(|outputs| outputs[i].view()).collect();
            if parts.is_empty() {
                return Ok(ArrayD::zeros(IxDyn(&[vec![0], shape].concat())));
            }
            ndarray::concatenate(Axis(0), &parts).map_err(|e| Error::LibTorch(e.to_string()))
        })
        .collect()
}
