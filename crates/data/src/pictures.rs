//! PNG, BMP, WebP and the portable formats.

use crate::raster::Raster;
use image::{DynamicImage, ImageFormat};

pub(crate) fn png(contents: &[u8]) -> Result<Raster<'static>, String> {
    load(contents, ImageFormat::Png, "PNG", high_byte)
}

pub(crate) fn bmp(contents: &[u8]) -> Result<Raster<'static>, String> {
    load(contents, ImageFormat::Bmp, "BMP", high_byte)
}

pub(crate) fn webp(contents: &[u8]) -> Result<Raster<'static>, String> {
    load(contents, ImageFormat::WebP, "WebP", high_byte)
}

/// PBM, PGM and PPM, as text or binary. Samples are scaled from the file's largest value.
pub(crate) fn pnm(contents: &[u8]) -> Result<Raster<'static>, String> {
    load(contents, ImageFormat::Pnm, "PPM, PGM or PBM", |value| ((u32::from(value) + 128) / 257) as u8)
}

/// Pillow's eight bits of sixteen.
pub(crate) fn high_byte(value: u16) -> u8 {
    (value >> 8) as u8
}

fn load(
    contents: &[u8],
    format: ImageFormat,
    name: &str,
    of_sixteen: fn(u16) -> u8,
) -> Result<Raster<'static>, String> {
    let damaged = |e| format!("is a damaged {name}: {e}");
    let image = image::load_from_memory_with_format(contents, format).map_err(damaged)?;
    let size = [image.height() as usize, image.width() as usize];
    let n_stored = usize::from(image.color().channel_count());
    let deep = image.color().bytes_per_pixel() as usize / n_stored == 2;
    let eight = |values: &[u16]| values.iter().map(|&value| of_sixteen(value)).collect();
    let values = match image {
        DynamicImage::ImageLuma16(image) => eight(&image),
        DynamicImage::ImageLumaA16(image) => eight(&image),
        DynamicImage::ImageRgb16(image) => eight(&image),
        DynamicImage::ImageRgba16(image) => eight(&image),
        image => image.into_bytes(),
    };
    let mut raster = Raster::without_alpha(size, n_stored, values);
    raster.deep_gray = deep && n_stored == 1;
    Ok(raster)
}
