//! JPEG, by libjpeg-turbo as Pillow reads it: bit for bit the same pixels.

use crate::raster::Raster;
use std::cell::RefCell;
use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Image, PixelFormat};

thread_local! {
    static DECODER: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// Gray, or RGB from whatever the file holds. What the decoder warns of is an error here: it fills what is missing with
/// grey.
pub(crate) fn decode(contents: &[u8]) -> Result<Raster<'static>, String> {
    DECODER.with_borrow_mut(|decoder| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => decoder.insert(Decompressor::new().map_err(|e| in_words(&e, contents))?),
        };
        let header = decoder.read_header(contents).map_err(|e| in_words(&e, contents))?;
        let DecompressHeader { width, height, .. } = header;
        let (channels, format) = match header.colorspace {
            Colorspace::Gray => (1, PixelFormat::GRAY),
            Colorspace::CMYK | Colorspace::YCCK => (4, PixelFormat::CMYK),
            _ => (3, PixelFormat::RGB),
        };
        let mut pixels = vec![0; channels * height * width];
        let image = Image { pixels: &mut pixels[..], width, pitch: channels * width, height, format };
        match decoder.decompress(contents, image) {
            Err(e) if !is_padding(&e.to_string(), contents) => return Err(in_words(&e, contents)),
            _ => {}
        }
        if channels == 4 {
            // Adobe stores the opposite of ink, and so does everybody who writes such files.
            let ink: Vec<u8> = pixels.iter().map(|stored| 255 - stored).collect();
            return Ok(Raster::from_cmyk([height, width], &ink));
        }
        Ok(Raster::interleaved([channels, height, width], pixels))
    })
}

/// Is all that is wrong a number of zeros before the end, with which some cameras fill up their files? (Anything else there
/// is data that damage has cut off.)
fn is_padding(said: &str, contents: &[u8]) -> bool {
    let Some((before, _)) = said.split_once(" extraneous bytes before marker 0xd9") else { return false };
    let n = before.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
    let end = contents.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    let zeros = end.map_or(0, |end| contents[..end].iter().rev().take_while(|&&byte| byte == 0).count());
    n.is_some_and(|n| n <= zeros)
}

fn in_words(error: &turbojpeg::Error, contents: &[u8]) -> String {
    let said = error.to_string();
    let said = said.rsplit("TurboJPEG error: ").next().unwrap_or_default();
    let said = said.split_once("(): ").map_or(said, |(_, said)| said);
    let end_of_image = contents.windows(2).any(|pair| pair == [0xff, 0xd9]);
    if said.contains("remature end") || !end_of_image {
        format!("is a truncated JPEG: {said}")
    } else {
        format!("is a damaged JPEG, or of a kind that nobody uses: {said}")
    }
}
