//! TIFF: the first page, of 1 to 16 bits, gray, RGB or CMYK, stored plainly or with lossless compression.

use crate::{pictures::high_byte, raster::Raster};
use std::io::Cursor;
use tiff::{
    ColorType, TiffResult,
    decoder::{Decoder, DecodingResult},
    tags::{CompressionMethod, PhotometricInterpretation, Tag},
};

pub(crate) fn decode(contents: &[u8]) -> Result<Raster<'static>, String> {
    let damaged = |e| format!("is a damaged TIFF: {e}");
    let mut decoder = Decoder::new(Cursor::new(contents)).map_err(damaged)?;
    if let Some(kind) = unusual(&mut decoder).map_err(damaged)? {
        return Err(format!(
            "is a TIFF {kind}, which is not read: save it as PNG, or as a TIFF without compression, LZW or Deflate"
        ));
    }
    let color = decoder.colortype().map_err(damaged)?;
    let (width, height) = decoder.dimensions().map_err(damaged)?;
    let size = [height as usize, width as usize];
    let photometric: u16 = decoder.get_tag_unsigned(Tag::PhotometricInterpretation).map_err(damaged)?;
    let bits = usize::from(color.bit_depth());
    let values = match decoder.read_image().map_err(damaged)? {
        DecodingResult::U8(values) if bits == 8 => values,
        DecodingResult::U8(packed) if bits < 8 => unpack(&packed, bits, size[1]),
        DecodingResult::U16(values) if bits == 16 => values.into_iter().map(high_byte).collect(),
        _ => return Err(format!("is a TIFF of {color:?} in {bits} bits; 1 to 16 bits without a sign are read")),
    };
    let expected = size[0] * size[1] * usize::from(color.num_samples());
    if values.len() != expected {
        return Err(format!("is a damaged TIFF: {} values where {expected} belong", values.len()));
    }
    match color {
        ColorType::Gray(1 | 2 | 4) => {
            let largest = (1 << bits) - 1;
            let gray = |v: &u8| if photometric == 0 { 255 - v * (255 / largest) } else { v * (255 / largest) };
            Ok(Raster::interleaved([1, size[0], size[1]], values.iter().map(gray).collect()))
        }
        ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::RGB(_) | ColorType::RGBA(_) => {
            let mut raster = Raster::without_alpha(size, usize::from(color.num_samples()), values);
            raster.deep_gray = color == ColorType::Gray(16);
            Ok(raster)
        }
        ColorType::CMYK(_) => Ok(Raster::from_cmyk(size, &values)),
        other => Err(format!("is a TIFF of {other:?}; gray, RGB and CMYK are read")),
    }
}

/// What of the file is beyond what is read here.
fn unusual(decoder: &mut Decoder<Cursor<&[u8]>>) -> TiffResult<Option<String>> {
    let mut number = |tag, default| -> TiffResult<u16> { Ok(decoder.find_tag_unsigned(tag)?.unwrap_or(default)) };
    let compression = CompressionMethod::from_u16_exhaustive(number(Tag::Compression, 1)?);
    let planes = number(Tag::PlanarConfiguration, 1)?;
    let samples = number(Tag::SamplesPerPixel, 1)?;
    let (fill_order, turned) = (number(Tag::FillOrder, 1)?, number(Tag::Orientation, 1)?);
    let photometric = PhotometricInterpretation::from_u16(number(Tag::PhotometricInterpretation, 1)?);
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)?.unwrap_or_default();
    Ok(match compression {
        CompressionMethod::None
        | CompressionMethod::LZW
        | CompressionMethod::Deflate
        | CompressionMethod::OldDeflate
        | CompressionMethod::PackBits => {
            if photometric == Some(PhotometricInterpretation::RGBPalette) {
                Some("with a palette".to_owned())
            } else if planes == 2 && samples > 1 {
                Some("plane by plane".to_owned())
            } else if fill_order != 1 {
                Some("with its bits in reverse".to_owned())
            } else if turned != 1 {
                Some("that is stored turned".to_owned())
            } else {
                extra.contains(&1).then(|| "with colours multiplied by its transparency".to_owned())
            }
        }
        CompressionMethod::JPEG | CompressionMethod::ModernJPEG => Some("with JPEG inside".to_owned()),
        other => Some(format!("with compression {other:?}")),
    })
}

/// Rows of samples of 1, 2 or 4 bits, each row from a byte of its own.
fn unpack(packed: &[u8], bits: usize, width: usize) -> Vec<u8> {
    let mask = ((1_u16 << bits) - 1) as u8;
    let rows = packed.chunks_exact((width * bits).div_ceil(8).max(1));
    rows.flat_map(|row| (0..width).map(move |x| (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & mask)).collect()
}
