//! NumPy's files: images that somebody else preprocessed come in as `.npy`, what a
//! network says of them goes out as `.npz`.

use crate::{Error, Result, error};
use ndarray::{Array, Array4, Axis, Dimension, ShapeBuilder};
use npyz::{DType, NpyFile, NpyHeader, Order, TypeChar, WriterBuilder};
use std::io::{self, Cursor};
use std::path::Path;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Many times what the header of an array of numbers takes. Its parser recurses, and a file must not choose how deep.
const MAX_HEADER: usize = 1024;
/// Entries of this size need zip's 64-bit form.
const LARGE: usize = 0xffff_0000;

/// The images of an `.npy` file as they are: `[B, C, H, W]`, f32 or f64, in either order and of either endianness.
///
/// # Errors
/// A file that cannot be read, is no such array, is cut or too long, or holds no images or numbers that are not finite.
pub fn read_images(path: &Path) -> Result<Array4<f32>> {
    let bytes = error::read(path)?;
    if !bytes.starts_with(MAGIC) {
        let found = zipit_artifact::sniff(path)?;
        let what = if bytes.starts_with(b"PK") { " archive" } else { "" };
        let reason = format!("is {found}{what}, expected one array of images saved by numpy.save (.npy)");
        return Err(Error::content(path, reason));
    }
    images(&bytes).map_err(|reason| Error::content(path, reason))
}

fn images(bytes: &[u8]) -> Result<Array4<f32>, String> {
    check_header(bytes)?;
    let mut rest = Cursor::new(bytes);
    let header =
        NpyHeader::from_reader(&mut rest).map_err(|e| format!("is damaged: its header cannot be understood: {e}"))?;
    let shape: Vec<usize> = header.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let n_bytes_each = match header.dtype() {
        DType::Plain(t) if t.type_char() == TypeChar::Float && matches!(t.size_field(), 4 | 8) => t.size_field(),
        other => {
            return Err(format!(
                "holds numbers of type {}, expected preprocessed images as float32 or float64",
                other.descr()
            ));
        }
    };
    let [b, c, h, w] = shape[..] else {
        let advice = if shape.len() == 3 { "; one image becomes a batch by images[None]" } else { "" };
        return Err(format!("holds an array of shape {shape:?}, expected [B, C, H, W]{advice}"));
    };
    let found = bytes.len() - rest.position() as usize;
    let expected = shape.iter().try_fold(n_bytes_each as usize, |product, &n| product.checked_mul(n));
    if expected != Some(found) {
        return Err(format!("is damaged: {shape:?} numbers of {n_bytes_each} bytes do not take {found} bytes"));
    }
    if found == 0 {
        return Err(format!("holds no images: its shape is {shape:?}"));
    }
    let layout = (b, c, h, w).set_f(header.order() == Order::Fortran);
    let file = NpyFile::with_header(header, rest);
    let values = match n_bytes_each {
        4 => file.into_vec::<f32>(),
        _ => file.data::<f64>().map_err(io::Error::other).and_then(|v| v.map(|x| x.map(|x| x as f32)).collect()),
    };
    let values = values.map_err(|e| format!("cannot be read: {e}"))?;
    let images = Array4::from_shape_vec(layout, values).map_err(|e| e.to_string())?;
    match images.axis_iter(Axis(0)).position(|image| image.iter().any(|x| !x.is_finite())) {
        Some(i) => Err(format!("image {i} (from 0) holds NaN, infinity or numbers beyond float32")),
        None => Ok(images.as_standard_layout().into_owned()),
    }
}

/// The length that the header says it has.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    let length = match bytes {
        [_, _, _, _, _, _, 1, _, a, b, ..] => u16::from_le_bytes([*a, *b]).into(),
        [_, _, _, _, _, _, 2 | 3, _, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        [_, _, _, _, _, _, version, ..] => return Err(format!("is an array of NumPy's format {version} or cut")),
        _ => return Err("is damaged: it ends within its header".to_owned()),
    };
    if length > MAX_HEADER {
        return Err(format!("has a header of {length} bytes, expected an array of plain numbers"));
    }
    Ok(())
}

/// Writes arrays `[n, …]` under their names into an `.npz` archive, wholly or not at all. The same arrays give the same
/// bytes: nothing is compressed, and every entry is from 1980.
///
/// # Errors
/// A file that cannot be written, or a name that stands twice.
pub fn write_npz<D: Dimension>(path: &Path, arrays: &[(String, Array<f32, D>)]) -> Result<()> {
    if let Some(i) = (1..arrays.len()).find(|&i| arrays[..i].iter().any(|(name, _)| *name == arrays[i].0)) {
        return Err(Error::content(path, format!("cannot hold two arrays called `{}`", arrays[i].0)));
    }
    let mut archive = Vec::new();
    pack(arrays, &mut archive).map_err(|e| Error::content(path, format!("cannot be put together: {e}")))?;
    Ok(zipit_artifact::atomic::write(path, |file| file.write_all(&archive))?)
}

fn pack<D: Dimension>(arrays: &[(String, Array<f32, D>)], archive: &mut Vec<u8>) -> io::Result<()> {
    let mut zip = ZipWriter::new(Cursor::new(archive));
    for (name, array) in arrays {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(array.len() * size_of::<f32>() >= LARGE);
        zip.start_file(npyz::npz::file_name_from_array_name(name), options)?;
        let shape: Vec<u64> = array.shape().iter().map(|&n| n as u64).collect();
        let mut npy = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut zip).begin_nd()?;
        npy.extend(array.iter().copied())?;
        npy.finish()?;
    }
    zip.finish()?;
    Ok(())
}
