//! Files of images → pixels, as Pillow's `convert("RGB")` gives them; docs/images.md has the differences.

use crate::{Error, Result, error, jpeg, pictures, raster::Raster, tiff};
use std::path::Path;

/// The extensions that torchvision's `ImageFolder` takes for images, in lower case.
pub(crate) const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];
/// The same for messages (portable bitmaps are one bit deep portable graymaps).
pub(crate) const EXTENSIONS_IN_WORDS: &str = ".jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp, .ppm, .pgm or .pbm";

/// Does the name say that it is an image?
pub(crate) fn is_named(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| e == "pbm" || EXTENSIONS.contains(&e.as_str()))
}

/// Reads an image: gray (1 channel) or RGB (3), the format told by its first bytes. Transparency is dropped, EXIF
/// rotation not applied (as torchvision's loader does).
pub(crate) fn read(path: &Path) -> Result<Raster<'static>> {
    let contents = error::read(path)?;
    let decoded = match contents.as_slice() {
        [] => Err("is empty".to_owned()),
        [0xff, 0xd8, ..] => jpeg::decode(&contents),
        [0x89, b'P', b'N', b'G', ..] => pictures::png(&contents),
        [b'B', b'M', ..] => pictures::bmp(&contents),
        [b'P', b'1'..=b'6', b'\t' | b'\n' | b'\r' | b' ' | b'#', ..] => pictures::pnm(&contents),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => pictures::webp(&contents),
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => tiff::decode(&contents),
        other => Err(format!(
            "is no image that can be read (JPEG, PNG, BMP, TIFF, WebP, PPM): it begins with bytes {:02x?}",
            &other[..other.len().min(8)]
        )),
    };
    let raster =
        decoded.map_err(|reason| Error::content(path, format!("{reason}; fetch the file again or remove it")))?;
    if raster.deep_gray {
        say_once(path);
    }
    Ok(raster)
}

/// One note a run: Pillow's `convert("RGB")` clips such images to white where they exceed 255.
fn say_once(path: &Path) {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "{} is gray of 16 bits: such images are scaled to 0…255 (the high byte), where Pillow's convert(\"RGB\") clips \
             everything above 255 to white",
            path.display()
        );
    });
}
