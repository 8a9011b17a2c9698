//! JPEG and PNG files → pixels.

use crate::{
    Error, Result, error,
    raster::{Layout, Raster},
};
use image::{ColorType, DynamicImage, ImageFormat};
use std::{borrow::Cow, path::Path};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// Reads an image: gray (1 channel) or RGB (3), the format told by its first bytes. Transparency is dropped, EXIF
/// rotation not applied (as torchvision's loader does).
pub(crate) fn read(path: &Path) -> Result<Raster<'static>> {
    let contents = error::read(path)?;
    let decoded = match contents.as_slice() {
        [] => Err("is empty".to_owned()),
        [0xff, 0xd8, ..] => jpeg(&contents),
        [0x89, b'P', b'N', b'G', ..] => png(&contents),
        other => Err(format!("is neither JPEG nor PNG: it begins with bytes {:02x?}", &other[..other.len().min(8)])),
    };
    decoded.map_err(|reason| Error::content(path, format!("{reason}; fetch the file again or remove it")))
}

fn jpeg(contents: &[u8]) -> Result<Raster<'static>, String> {
    // The decoder fills what is missing with grey and says nothing, so the end is looked for first.
    if !jpeg_ends(contents) {
        return Err("is a truncated JPEG: its end-of-image marker is missing".to_owned());
    }
    let damaged = |e| format!("is a damaged JPEG: {e}");
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(contents), options);
    decoder.decode_headers().map_err(damaged)?;
    let gray = matches!(decoder.input_colorspace(), Some(ColorSpace::Luma | ColorSpace::LumaA));
    let (channels, colours) = if gray { (1, ColorSpace::Luma) } else { (3, ColorSpace::RGB) };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(damaged)?;
    let (w, h) = decoder.dimensions().ok_or("is a JPEG without a size")?;
    if pixels.len() != channels * h * w || pixels.is_empty() {
        return Err(format!("is a damaged JPEG: {} values for a {w}×{h} image of {channels} channels", pixels.len()));
    }
    Ok(Raster { shape: [channels, h, w], layout: Layout::Interleaved, pixels: Cow::Owned(pixels) })
}

/// Is there an end-of-image marker after the start of the scan? Segments before it are skipped by their lengths, as
/// an EXIF thumbnail has an end of its own.
fn jpeg_ends(contents: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = contents.get(at..at + 4) {
        match marker {
            0xff => at += 1,
            0xda => return contents[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // No well-formed list of segments: the decoder has more to say about that.
    contents[2..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

fn png(contents: &[u8]) -> Result<Raster<'static>, String> {
    let image = image::load_from_memory_with_format(contents, ImageFormat::Png)
        .map_err(|e| format!("is a damaged PNG: {e}"))?;
    let gray = matches!(image.color(), ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16);
    let (w, h) = (image.width() as usize, image.height() as usize);
    let (channels, pixels) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        image if gray => (1, image.into_luma8().into_raw()),
        image => (3, image.into_rgb8().into_raw()),
    };
    Ok(Raster { shape: [channels, h, w], layout: Layout::Interleaved, pixels: Cow::Owned(pixels) })
}
